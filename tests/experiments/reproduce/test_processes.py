"""Several processes on one plan: each takes what no other works on."""

import os
import shutil
import subprocess
import sys
from contextlib import ExitStack
from types import SimpleNamespace

import pytest

from distilsql.errors import RunError
from distilsql.experiments import reproduce as reproduction
from distilsql.experiments.reproduce import reproduce
from distilsql.experiments.state import State, standings, state_of
from run_folders import log_lines


@pytest.mark.usefixtures("no_figures")
@pytest.mark.slow
@pytest.mark.parametrize("finishes", [True, False])
def test_runs_of_another_process_are_skipped_and_dependent_ones_wait(
    book, world, plan_of, trained, held_elsewhere, monkeypatch, finishes, caplog
):
    """Two processes on one plan: this one goes on to what it can make, and waits for the rest. If the other gives up,
    it makes that run itself."""
    caplog.set_level("INFO", "distilsql")
    plan = plan_of(book, world, "main", only=["sft", "kid"])
    reproduce(plan_of(book, world, "main", only=["start"]), world / "out")
    for name in ("sft_small_seed0", "kid_small_from-teacher_seed0"):
        assert state_of(plan.runs[name]) is State.MISSING
    shutil.move(world / "runs" / "start", world / "set-aside")
    trained.clear()
    pauses: list[list[str]] = []
    with ExitStack() as other:
        other.enter_context(held_elsewhere(world / "runs" / "start"))

        def pause(seconds: float) -> None:
            pauses.append(list(trained))
            if len(pauses) == 2:
                if finishes:
                    shutil.copytree(world / "set-aside", world / "runs" / "start", dirs_exist_ok=True)
                other.close()

        monkeypatch.setattr(reproduction, "time", SimpleNamespace(sleep=pause))
        reproduce(plan, world / "out")
    assert pauses == [[], []], "every run but the teacher, which is done, needs the start"
    students = ["sft_small_seed0", "kid_small_from-teacher_seed0", "kid_small_from-teacher_seed1"]
    assert trained == ([] if finishes else ["start"]) + students
    assert caplog.text.count("Waiting for other processes") == 1
    assert "| kid | ours | 0, 1 |" in (world / "out" / "main.md").read_text()
    assert all(state_of(run) is not State.MISSING for run in plan.runs.values())


def test_processes_that_train_together_are_sent_away(book, world, plan_of, monkeypatch):
    """They would wait for each other: each takes another run."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RunError, match="once for each GPU"):
        reproduce(plan_of(book, world), world / "out")
    assert not (world / "runs").exists()


@pytest.mark.slow
def test_two_processes_share_one_plan(book, world, plan_of):
    """Started at once, they train every run once between them and both write whole tables."""
    command = [sys.executable, "-m", "distilsql.cli", "reproduce", "main", "shares", "--scale", "tiny"]
    command += ["--recipes", str(book.folder), "--runs", str(world / "runs")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    both = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for process in both:
        said, errors = process.communicate(timeout=600)
        assert process.returncode == 0, errors
        assert "main.md" in said
    plan = plan_of(book, world)
    for name, run in plan.runs.items():
        steps = [line["step"] for line in log_lines(run.folder)]
        assert sorted(set(steps)) == [1, 2, 3], name
        assert run.folder.is_finished()
    assert "| kid | ours | 0, 1 |" in (world / "runs" / "report" / "main.md").read_text()
    assert not list(world.rglob("*.part"))


@pytest.mark.usefixtures("no_figures")
def test_a_run_is_judged_later_while_another_process_builds_the_suite(
    book, world, plan_of, held_elsewhere, monkeypatch
):
    plan = plan_of(book, world, "suites")
    with ExitStack() as other:
        other.enter_context(held_elsewhere(world / "runs" / "suites" / "test" / "ts"))
        monkeypatch.setattr(reproduction, "time", SimpleNamespace(sleep=lambda seconds: other.close()))
        reproduce(plan, world / "out")
    assert standings(plan.runs)["sft_small_seed0"].state is State.DONE
