import json
from pathlib import Path

import pytest

from distilsql.errors import RunError
from distilsql.report import load_runs
from distilsql.report.entries import group_runs
from distilsql.report.records import RunRecord


def test_a_run_is_read_as_it_was_written(make_run) -> None:
    path = make_run("kid-0", method="kid", seed=3, accuracy={"demo:test": 0.61, "demo:valid": 0.7}, x_sft=2.1)
    (run,) = load_runs([path])
    assert (run.summary.method, run.summary.seed, run.summary.x_sft) == ("kid", 3, 2.1)
    assert run.scores["demo:test"].accuracy == 0.61
    assert run.scores["demo:test"].interval == pytest.approx((0.5548, 0.6652), abs=1e-4)
    assert run.scores["demo:test"].total == 300
    assert {line.step for line in run.log} == set(range(5, 201, 5))
    assert any(line.valid_accuracy for line in run.log)


def test_scores_may_name_interval_and_number_either_way(make_run) -> None:
    path = make_run("sft")
    score = {"benchmark": "mine", "accuracy": 0.5, "interval": [0.4, 0.6], "n": 10, "metric": "TS"}
    (path / "scores" / "mine.json").write_text(json.dumps(score))
    (run,) = load_runs([path])
    assert run.scores["mine TS"].interval == (0.4, 0.6)
    assert (run.scores["mine TS"].total, run.scores["mine TS"].metric) == (10, "TS")


def test_sft_costs_one_sft_whatever_its_calibration_says(make_run) -> None:
    (entry,) = group_runs(load_runs([make_run("sft", method="sft", x_sft=1.04)]))
    assert entry.x_sft == 1.0


def test_the_same_folder_given_twice_is_one_run(make_run) -> None:
    path = make_run("sft")
    assert len(load_runs([path, path / ".." / "sft"])) == 1


def test_configuration_is_the_recipe_without_seed_and_name(make_run) -> None:
    def configuration(name: str, seed: int, share: float) -> str:
        settings = f"[distill]\nmask_share = {share}"
        (run,) = load_runs([make_run(name, method="kid", seed=seed, settings=settings)])
        return run.configuration

    first = configuration("a", 0, 0.2)
    assert configuration("b", 1, 0.2) == first
    assert configuration("c", 0, 0.4) != first


def test_a_log_that_a_kill_cut_off_keeps_its_whole_lines(make_run) -> None:
    path = make_run("sft")
    log = path / "log.jsonl"
    whole = len(load_runs([path])[0].log)
    log.write_text(log.read_text()[:-9])
    assert len(load_runs([path])[0].log) == whole - 1


def test_a_run_without_log_or_scores_is_a_run(make_run) -> None:
    path = make_run("sft", accuracy={})
    (path / "log.jsonl").unlink()
    (run,) = load_runs([path])
    assert isinstance(run, RunRecord)
    assert (run.log, run.scores) == ((), {})


def delete(path: Path) -> None:
    path.unlink()


def cut(path: Path) -> None:
    path.write_text(path.read_text()[:20])


def drop_steps(path: Path) -> None:
    values = json.loads(path.read_text())
    del values["steps"]
    path.write_text(json.dumps(values))


def make_list(path: Path) -> None:
    path.write_text("[]")


def make_binary(path: Path) -> None:
    path.write_bytes(b"\xff\xfe\x00")


def raise_accuracy(path: Path) -> None:
    path.write_text(json.dumps({"benchmark": "demo:test", "accuracy": 61.0}))


def break_third_line(path: Path) -> None:
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:2], "{", *lines[3:]]))


@pytest.mark.parametrize(
    ("name", "harm", "said"),
    [
        ("summary.json", delete, r"sft holds no finished run: it has no summary\.json.*resumes it"),
        ("summary.json", cut, r"summary\.json is not JSON.*write it again"),
        ("summary.json", drop_steps, r"summary\.json: steps: Field required.*distilsql train"),
        ("summary.json", make_list, r"summary\.json: the file: "),
        ("summary.json", make_binary, r"summary\.json cannot be read"),
        ("recipe.toml", delete, r"sft is not a run folder: it has no recipe\.toml"),
        ("recipe.toml", lambda path: path.write_text("= 1"), r"recipe\.toml is not valid TOML"),
        ("scores/demo-test.json", cut, r"demo-test\.json is not JSON.*distilsql evaluate"),
        ("scores/demo-test.json", raise_accuracy, r"demo-test\.json: accuracy: .*less than or equal to 1"),
        ("log.jsonl", break_third_line, r"log\.jsonl, line 3 is not JSON"),
    ],
)
def test_a_broken_folder_is_refused_with_file_and_cure(make_run, name, harm, said) -> None:
    path = make_run("sft")
    harm(path / name)
    with pytest.raises(RunError, match=said):
        load_runs([path])


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"no run folder .*nowhere"):
        load_runs([tmp_path / "nowhere"])


def test_no_runs_are_refused() -> None:
    with pytest.raises(RunError, match="no run to report on"):
        load_runs([])
