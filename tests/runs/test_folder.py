"""The run folder: files whole or not at all, names that files can have, and refusals."""

import pytest

from distilsql.errors import RunError
from distilsql.files import read_json, write_text
from distilsql.runs.folder import existing_run, file_name, open_run
from distilsql.training.checkpoint import load_checkpoint


def test_benchmark_names_become_file_names():
    assert file_name("spider:dev") == "spider-dev"
    assert file_name("bird:dev+evidence") == "bird-dev+evidence"
    assert file_name("some/where/my pairs.jsonl") == "my-pairs"


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "scores.json"
    write_text(path, "old")
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        write_text(path, "new")
    assert path.read_text() == "old"


def test_entering_a_run_again_needs_the_same_recipe(tmp_path):
    open_run(tmp_path / "run", "a = 1\n")
    assert open_run(tmp_path / "run", "a = 1\n").path == tmp_path / "run"
    with pytest.raises(RunError, match=r"there: a = 1; now: a = 2"):
        open_run(tmp_path / "run", "a = 2\n")


def test_our_own_recipe_is_replaced_if_its_training_never_began(recipe, tmp_path):
    """Such as one with a mistyped path. A recipe that somebody wrote there is no run's, and stays."""
    first, second = (recipe("kid", f"data.train={name}").to_toml() for name in ("pears.jsonl", "pairs.jsonl"))
    run = open_run(tmp_path / "run", first)
    open_run(run.path, second)
    assert run.recipe.read_text() == second
    run.environment.write_text("{}")
    with pytest.raises(RunError, match="a different recipe"):
        open_run(run.path, first)
    run.environment.unlink()
    run.recipe.write_text("# mine\n" + second)
    with pytest.raises(RunError, match="a different recipe"):
        open_run(run.path, first)
    assert run.recipe.read_text().startswith("# mine")


def test_files_that_no_run_made_are_never_deleted(recipe, tmp_path):
    text, project = recipe("sft").to_toml(), tmp_path / "project"
    project.mkdir()
    for name in ("recipe.toml", "pairs.jsonl", "notes"):
        (project / name).write_text(text)
    with pytest.raises(RunError, match="it holds notes, which is not part of a run"):
        open_run(project, text, overwrite=True)
    run = open_run(tmp_path / "run", text)
    write_text(run.environment, "{}")
    write_text(run.predictions("demo:test"), "")
    write_text(run.path / "notes", "mine")
    open_run(run.path, text, overwrite=True)
    assert {path.name for path in run.path.iterdir()} == {"recipe.toml", "notes"}


def test_a_run_killed_at_its_first_write_can_be_started_again(tmp_path):
    write_text(tmp_path / "run" / "recipe.toml.4242.part", "a =")
    assert open_run(tmp_path / "run", "a = 1\n").recipe.exists()


def test_missing_and_broken_files_are_named(tmp_path):
    with pytest.raises(RunError, match="not a run folder"):
        existing_run(tmp_path)
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(RunError, match=r"broken\.json"):
        read_json(tmp_path / "broken.json")
    assert load_checkpoint(tmp_path / "none", dict) is None
    (tmp_path / "last").mkdir()
    with pytest.raises(RunError, match="Delete it"):
        load_checkpoint(tmp_path / "last", dict)
