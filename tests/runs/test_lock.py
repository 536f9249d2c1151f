"""One process at a time works on a run, and a process that dies takes its lock with it."""

import subprocess
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from distilsql.errors import RunError
from distilsql.lock import RunInUse, contents, hold
from distilsql.runs.folder import open_run
from distilsql.training.train import train

HeldElsewhere = Callable[[Path], AbstractContextManager[subprocess.Popen[str]]]


@pytest.mark.parametrize("end", [subprocess.Popen.kill, lambda process: process.stdin.close()])
def test_a_folder_is_free_again_however_its_holder_ends(
    tmp_path: Path, held_elsewhere: HeldElsewhere, end: Callable[[subprocess.Popen[str]], None]
):
    run = tmp_path / "runs" / "kid"
    with held_elsewhere(run) as process:
        with pytest.raises(RunInUse, match=r"working on .*kid\. Wait .* or stop it"), hold(run):
            pass
        with hold(tmp_path / "runs" / "rkd"):
            pass
        end(process)
        process.wait()
        with hold(run):
            pass


def test_a_holder_may_hold_again_and_start_anew(tmp_path: Path, held_elsewhere: HeldElsewhere):
    run = tmp_path / "kid"
    with hold(run):
        with hold(run):
            open_run(run, "a = 1\n")
            open_run(run, "a = 2\n", overwrite=True)
        # Neither the inner hold nor the overwriting has let the outer go.
        with pytest.raises(RunInUse), held_elsewhere(run):
            pass


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="file/kid cannot be written"), hold(tmp_path / "file" / "kid"):
        pass


def test_no_lock_is_left_in_a_folder_that_is_no_run(tmp_path: Path, recipe):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(RunError, match="is not a run folder: it holds"):
        train(recipe("sft"), tmp_path)
    assert not (tmp_path / ".lock").exists()


def test_two_trainings_do_not_share_a_folder(tmp_path: Path, recipe, held_elsewhere: HeldElsewhere, caplog):
    with held_elsewhere(tmp_path / "run"), pytest.raises(RunInUse):
        train(recipe("sft", "train.steps=1"), tmp_path / "run")
    assert not contents(tmp_path / "run")
    seen: list[bool] = []

    def look(line) -> None:
        with pytest.raises(RunInUse), held_elsewhere(tmp_path / "run"):
            pass
        seen.append(True)

    train(recipe("sft", "train.steps=1", "train.calibration_windows=0"), tmp_path / "run", on_step=look)
    assert seen
    with held_elsewhere(tmp_path / "run"):  # as a reproduction that judges it
        caplog.set_level("INFO", "distilsql")
        train(recipe("sft", "train.steps=1", "train.calibration_windows=0"), tmp_path / "run")
    assert "already finished" in caplog.text
