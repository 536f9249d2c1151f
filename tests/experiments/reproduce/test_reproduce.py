"""`distilsql reproduce` on a tiny world: what is missing is made in order and once, whatever happens in between."""

import io
import json
import os
import shutil

import pytest
import torch
from rich.console import Console

from distilsql.errors import RunError
from distilsql.experiments import reproduce as reproduction
from distilsql.experiments.experiment import Book
from distilsql.experiments.listing import print_plan
from distilsql.experiments.plan import make_plan
from distilsql.experiments.render import render
from distilsql.experiments.reproduce import reproduce
from distilsql.experiments.state import State, standings, state_of
from reporters import answering
from run_folders import log_lines

# Every row once, then the seeds that are more than one.
ALL = [
    "teacher", "start", "sft_small_seed0", "kid_small_from-teacher_seed0",
    "kid_small_from-teacher_mask_share-0.5_seed0", "kid_small_from-teacher_seed1",
]  # fmt: skip


@pytest.mark.slow
def test_everything_is_made_once_judged_and_rendered(book, world, plan_of, trained, capsys):
    plan = plan_of(book, world)
    assert [standing.state for standing in standings(plan.runs).values()] == [State.MISSING] * 6
    written = reproduce(plan, world / "out")
    assert trained == ALL
    assert [path.name for path in written] == ["main.md", "shares.md"]
    # The teacher's layers were cut for the start, and students begin as the start.
    assert json.loads((world / "runs/start/model/config.json").read_text())["num_hidden_layers"] == 2

    table = (world / "out" / "main.md").read_text()
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in table.splitlines()
        if line[:1] == "|"
    ]
    assert rows[0][3:] == ["× SFT", "EX % (n = 3)", "Spider EX %", "mean", "Δ", "ExAccErr % (n = 2)"]
    by_row = {(row[0], row[1]): row for row in rows}
    sft, kid = by_row["sft", "ours"], by_row["kid", "ours"]
    assert sft[2:4] == ["0", "1.00"]
    assert kid[2] == "0, 1"
    assert "±" in kid[3]
    assert "[" in sft[4]
    assert kid[5] == "–", "Spider's data is not to be had"
    assert (sft[7], sft[8]) == ("–", "–"), "no gain over itself; no teacher to compare errors with"
    assert "[" in kid[7]
    assert float(kid[8].split()[0]) is not None
    assert by_row["teacher", "ours"][3] == "–"
    assert "test/0 is left out: for the test's sake." in table
    assert (world / "out" / "shares.png").stat().st_size > 5_000

    # A second start finds everything there.
    trained.clear()
    reproduce(plan, world / "out")
    assert trained == []
    known = standings(plan.runs)
    # Errors over another length, measured in between, are not what the column shows.
    exposure = plan.runs["kid_small_from-teacher_seed0"].folder.exposure
    measured = json.loads(exposure.read_text())
    other = measured | {"excess_accumulated_error": 1e6, "options": measured["options"] | {"length": 30}}
    exposure.write_text(json.dumps(other))
    reproduce(plan, world / "out")
    assert json.loads(exposure.read_text()) == measured
    # Spider's column stays unjudged wherever it is asked for.
    assert known["kid_small_from-teacher_mask_share-0.5_seed0"].state is State.DONE
    assert known["teacher"].state is State.TRAINED
    assert (known["teacher"].judged, known["teacher"].wanted) == (1, 2)


@pytest.mark.usefixtures("no_figures")
def test_a_kill_at_any_place_trains_nothing_twice_and_asks_nothing_twice(
    book, world, plan_of, trained, monkeypatch
):
    """Killed in the middle of a training, between two runs, and in the middle of answering."""
    plan = plan_of(book, world, "main", only=["sft"])

    class Killed(BaseException):
        pass

    real_train = reproduction.train
    steps_of: list[int] = []

    def die_in_training(recipe, folder, *, same):
        def watch(line):
            steps_of.append(line["step"])
            if recipe.name == "start" and line["step"] == 3:
                raise Killed

        return real_train(recipe, folder, on_step=watch, same=same)

    monkeypatch.setattr(reproduction, "train", die_in_training)
    with pytest.raises(Killed):
        reproduce(plan, world / "out")
    assert steps_of == [1, 2, 3, 1, 2, 3]
    found = standings(plan.runs)
    assert found["start"].state is State.PART_DONE
    assert (found["start"].steps_done, found["start"].steps) == (2, 3)
    assert found["start"].seconds_left > 0
    assert "start" in found["start"].basis

    def die(done):
        raise Killed

    steps_of.clear()

    def count_only(recipe, folder, *, same):
        return real_train(recipe, folder, on_step=lambda line: steps_of.append(line["step"]), same=same)

    monkeypatch.setattr(reproduction, "train", count_only)
    with answering(die), pytest.raises(Killed):
        reproduce(plan, world / "out")
    assert steps_of == [3, 1, 2, 3], "start's last step, then sft's"
    assert trained == ["teacher", "start", "start", "sft_small_seed0"]

    unfinished = next((world / "runs" / "sft_small_seed0" / "predictions").glob("*.unfinished"))
    lines = map(json.loads, unfinished.read_text().splitlines())
    answered = [line["example_id"] for line in lines if "example_id" in line]
    asked: list[int] = []

    with answering(asked.append):
        reproduce(plan, world / "out")
    assert trained == ["teacher", "start", "start", "sft_small_seed0"]
    assert asked == list(range(len(answered) + 1, 4))


@pytest.mark.slow
@pytest.mark.usefixtures("no_figures")
def test_a_larger_draw_asks_only_the_new_questions(book, world, plan_of, monkeypatch):
    plan = plan_of(book, world, "shares", only=["kid"])
    reproduce(plan, world / "out")
    scale = book.folder / "tiny" / "scale.toml"
    scale.write_text(scale.read_text().replace("limit = 3,", "limit = 5,"))
    asked: list[int] = []
    larger = make_plan(Book(book.folder), ["shares"], "tiny", world / "runs", only=["kid"])
    with answering(asked.append):
        reproduce(larger, world / "out")
    assert asked == [4, 5, 4, 5], "two questions more for each of two seeds"
    assert "(n = 5)" in (world / "out" / "shares.md").read_text()


@pytest.mark.usefixtures("no_figures")
def test_a_task_of_its_own_is_trained_for_and_sampled_with_every_seed(book, world, plan_of, trained):
    plan = plan_of(book, world, "talk")
    reproduce(plan, world / "out")
    assert trained == ["teacher_talk", "start_talk", "sft_small_talk_seed0"]
    run = world / "runs" / "sft_small_talk_seed0"
    assert len(list((run / "predictions").iterdir())) == 2
    assert "ROUGE-L (n = 2)" in (world / "out" / "talk.md").read_text()
    assert standings(plan.runs)["sft_small_talk_seed0"].state is State.DONE
    # One sample lost: it is drawn again, and the score, older than it, is taken anew.
    next((run / "predictions").iterdir()).unlink()
    assert state_of(plan.runs["sft_small_talk_seed0"]) is State.TRAINED
    reproduce(plan, world / "out")
    assert len(list((run / "predictions").iterdir())) == 2
    assert len(trained) == 3
    # Answers newer than their score, as a kill between the two leaves them: judged again, not asked again.
    score, answers = next((run / "scores").iterdir()), next((run / "predictions").iterdir())
    os.utime(score, ns=(0, 0))
    written = answers.stat().st_mtime_ns
    reproduce(plan, world / "out")
    assert score.stat().st_mtime_ns > written == answers.stat().st_mtime_ns


@pytest.mark.usefixtures("no_figures")
def test_a_suite_is_built_once_and_its_scores_carry_its_name(book, world, plan_of):
    plan = plan_of(book, world, "suites")
    reproduce(plan, world / "out")
    suite = world / "runs" / "suites" / "test" / "ts" / "suite.json"
    built = suite.stat().st_mtime_ns
    table = (world / "out" / "suites.md").read_text()
    assert "TS % (n = 3)" in table
    assert "TS on test [" in table
    assert standings(plan.runs)["sft_small_seed0"].state is State.DONE
    reproduce(plan, world / "out")
    assert suite.stat().st_mtime_ns == built


@pytest.mark.slow
@pytest.mark.usefixtures("no_figures")
def test_without_weights_a_suite_is_judged_on_the_queries_that_scores_hold(book, world, plan_of, trained):
    plan = plan_of(book, world, "both")
    reproduce(plan, world / "out")
    sft = plan.runs["sft_small_seed0"].folder.path
    on_suite, on_database = sft / "scores" / "test-ts.json", sft / "scores" / "test.json"
    judged = on_suite.read_bytes()
    for run in plan.runs.values():
        for part in ("model", "predictions", "checkpoints"):
            shutil.rmtree(run.folder.path / part, ignore_errors=True)
    on_suite.unlink()
    found = {name: standing.state for name, standing in standings(plan.runs).items()}
    assert found == {
        "teacher": State.MEASURED,
        "start": State.MEASURED,
        "sft_small_seed0": State.ANSWERED,
    }
    trained.clear()
    written = on_database.stat().st_mtime_ns
    reproduce(plan, world / "out")
    assert trained == []
    assert on_suite.read_bytes() == judged
    assert on_database.stat().st_mtime_ns == written
    # Neither answers nor what holds them.
    shutil.rmtree(sft / "predictions")
    on_suite.unlink()
    on_database.unlink()
    assert state_of(plan.runs["sft_small_seed0"]) is State.PART_DONE


@pytest.mark.slow
@pytest.mark.usefixtures("no_figures")
def test_another_tables_runs_are_used_and_what_only_left_out_is_shown(book, world, plan_of, trained):
    reproduce(plan_of(book, world, "main", only=["kid"]), world / "out")
    made = list(trained)
    reproduce(plan_of(book, world, "shares"), world / "out")
    assert trained == [*made, "kid_small_from-teacher_mask_share-0.5_seed0"]
    render(plan_of(book, world, "main", only=["sft"]), world / "out")
    assert "| kid | ours | 0, 1 |" in (world / "out" / "main.md").read_text()
    assert "| sft | ours | not run |" in (world / "out" / "main.md").read_text()


@pytest.mark.slow
@pytest.mark.usefixtures("no_figures")
def test_deleted_weights_are_made_again_only_if_another_run_needs_them(book, world, plan_of, trained):
    """Scores, logs and summaries are what is kept of published runs."""
    plan = plan_of(book, world, "shares")
    reproduce(plan, world / "out")
    table = (world / "out" / "shares.md").read_bytes()
    for run in plan.runs.values():
        for part in ("model", "predictions", "checkpoints"):
            shutil.rmtree(run.folder.path / part, ignore_errors=True)
    assert {standing.state for standing in standings(plan.runs).values()} == {State.MEASURED}
    trained.clear()
    reproduce(plan, world / "out")
    assert trained == []
    assert (world / "out" / "shares.md").read_bytes() == table

    half, kept = "kid_small_from-teacher_mask_share-0.5_seed0", plan.runs["kid_small_from-teacher_seed0"]
    shutil.rmtree(world / "runs" / half)
    found = {name: standing.state for name, standing in standings(plan.runs).items()}
    assert (found["teacher"], found["start"], found[half]) == (
        State.PART_DONE,
        State.PART_DONE,
        State.MISSING,
    )
    results = (kept.folder.summary, *kept.folder.path.glob("scores/*"))
    written = [path.stat().st_mtime_ns for path in results]
    reproduce(plan, world / "out")
    assert trained == ["teacher", "start", half]
    assert state_of(kept) is State.MEASURED
    assert [path.stat().st_mtime_ns for path in results] == written
    steps = [line["step"] for line in log_lines(plan.runs["teacher"].folder)]
    assert steps == [1, 2, 3], "the log of the training that was lost is not gone on with"
    # What a run without weights was never judged on has to be trained for.
    next(kept.folder.path.glob("scores/*")).unlink()
    assert state_of(kept) is State.PART_DONE


@pytest.mark.slow
@pytest.mark.usefixtures("no_figures")
def test_a_folder_of_another_recipe_is_left_alone_and_the_others_are_made(book, world, plan_of, trained):
    plan = plan_of(book, world, "main", only=["sft", "kid"])
    reproduce(plan_of(book, world, "main", only=["sft"]), world / "out")
    recipe = world / "runs" / "sft_small_seed0" / "recipe.toml"
    recipe.write_text(recipe.read_text().replace("learning_rate = 0.0002", "learning_rate = 0.5"))
    assert state_of(plan.runs["sft_small_seed0"]) is State.OTHER
    with pytest.raises(RunError, match=r"1 of 5 runs could not be made.*sft_small_seed0.*--runs"):
        reproduce(plan, world / "out")
    assert "learning_rate = 0.5" in recipe.read_text()
    assert trained[-1] == "kid_small_from-teacher_seed1"
    assert "| sft | ours | not run |" in (world / "out" / "main.md").read_text()


@pytest.mark.usefixtures("no_figures")
def test_runs_that_cannot_be_made_take_those_that_need_them_with_them(book, world, plan_of, trained):
    (world / "pairs.jsonl").unlink()
    with pytest.raises(RunError, match=r"6 of 6 runs could not be made.*teacher.*pairs.jsonl"):
        reproduce(plan_of(book, world), world / "out")
    assert trained == ["teacher"]
    assert "not run" in (world / "out" / "main.md").read_text()


@pytest.mark.slow
@pytest.mark.usefixtures("no_figures")
def test_a_run_that_is_out_of_memory_leaves_the_others_their_turn(book, world, plan_of, monkeypatch):
    real = reproduction.predict

    def too_large(model, benchmark, out, **options):
        if "kid_small_from-teacher_seed0" in str(out):
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return real(model, benchmark, out, **options)

    monkeypatch.setattr(reproduction, "predict", too_large)
    plan = plan_of(book, world, "main", only=["sft", "kid"])
    with pytest.raises(
        RunError, match=r"1 of 5 runs could not be made.*kid_small_from-teacher_seed0: CUDA out of"
    ):
        reproduce(plan, world / "out")
    assert state_of(plan.runs["kid_small_from-teacher_seed1"]) is State.TRAINED


@pytest.mark.usefixtures("no_figures")
def test_the_folder_of_runs_may_move(book, world, plan_of):
    reproduce(plan_of(book, world, "main", only=["start"]), world / "out")
    (world / "elsewhere").mkdir()
    os.rename(world / "runs", world / "elsewhere" / "runs")
    moved = make_plan(book, ["main"], "tiny", world / "elsewhere" / "runs", only=["start"])
    assert [state_of(run) for run in moved.runs.values()] == [State.DONE, State.TRAINED]


@pytest.mark.usefixtures("no_figures")
def test_the_dry_run_names_every_run_its_state_and_what_is_left(book, world, plan_of):
    plan = plan_of(book, world, "main", only=["sft"])
    reproduce(plan_of(book, world, "main", only=["start"]), world / "out")
    (world / "runs" / "start" / "summary.json").unlink()
    console = Console(record=True, width=120, file=io.StringIO())
    print_plan(plan, console)
    shown = console.export_text()
    lines = shown.splitlines()
    told = {line.split()[0]: " ".join(line.split()[1:]) for line in lines if line}
    assert told["teacher"].startswith("done 3/3")
    assert told["start"].startswith("part done 0/3 about ")
    assert told["sft_small_seed0"] == "missing 0/3 0/2 unknown"
    assert "1 of 3 runs are trained" in shown
