import math

import pytest

from distilsql.report import Score, group_runs, load_runs
from distilsql.report.entries import benchmarks_of, combine


def score(accuracy: float, half: float | None = 0.05) -> Score:
    interval = None if half is None else (accuracy - half, accuracy + half)
    return Score(benchmark="b", accuracy=accuracy, interval=interval, total=100)


def test_seeds_of_one_configuration_are_one_entry(make_run) -> None:
    paths = [
        make_run(f"kid-{seed}", method="kid", seed=seed, accuracy=0.5 + seed / 10, x_sft=2.0 + seed / 10)
        for seed in (2, 0, 1)
    ]
    (entry,) = group_runs(load_runs(paths))
    assert entry.seeds == (0, 1, 2)
    accuracy = entry.accuracy("demo:test")
    assert accuracy is not None
    assert accuracy.mean == pytest.approx(0.6)
    assert accuracy.spread == pytest.approx(0.1)
    assert entry.x_sft == pytest.approx(2.1)
    assert entry.label == "kid"


def test_one_seed_keeps_its_own_interval_and_has_no_spread() -> None:
    accuracy = combine([score(0.6)])
    assert accuracy is not None
    assert (accuracy.spread, accuracy.interval) == (None, pytest.approx((0.55, 0.65)))


def test_the_interval_of_several_seeds_adds_both_kinds_of_chance() -> None:
    accuracy = combine([score(0.5), score(0.6), score(0.7)])
    assert accuracy is not None
    assert accuracy.interval is not None
    half = accuracy.interval[1] - 0.6
    assert 0.6 - half == pytest.approx(accuracy.interval[0])
    # More than if the spread were known exactly, less than if both kinds were known from three values.
    assert (
        math.hypot(0.05, 1.96 * 0.1 / math.sqrt(3))
        < half
        < 4.303 * math.hypot(0.05 / 1.96, 0.1 / math.sqrt(3))
    )
    same = combine([score(0.6)] * 9)
    assert same is not None
    assert same.interval == pytest.approx((0.55, 0.65)), "more seeds do not make the examples more"


def test_the_interval_of_several_seeds_needs_all_of_theirs_and_stays_a_share() -> None:
    accuracy = combine([score(0.5), score(0.6, half=None)])
    assert accuracy is not None
    assert accuracy.interval is None
    high = combine([score(0.98, half=0.02), score(0.80, half=0.05)])
    assert high is not None
    assert high.interval is not None
    assert high.interval[1] == 1.0
    assert combine([]) is None


def test_methods_come_in_the_order_of_their_table_and_unknown_ones_last(make_run) -> None:
    paths = [make_run(m, method=m) for m in ("zzz-own", "kid", "sft", "aaa-own", "rkd")]
    assert [e.method for e in group_runs(load_runs(paths))] == ["sft", "rkd", "kid", "aaa-own", "zzz-own"]


def test_configurations_of_a_method_are_told_apart_by_what_differs(make_run) -> None:
    def kid(name: str, share: float, steps: int = 9) -> None:
        paths.append(
            make_run(
                name, method="kid", settings=f"[distill]\nmask_share = {share}\n[train]\nsteps = {steps}"
            )
        )

    paths: list = []
    kid("low", 0.2)
    kid("high", 0.4)
    assert [entry.label for entry in group_runs(load_runs(paths))] == [
        "kid, mask_share 0.2",
        "kid, mask_share 0.4",
    ]
    kid("long", 0.2, steps=99)
    assert [entry.label for entry in group_runs(load_runs(paths))] == [
        "kid, mask_share 0.2, steps 9",
        "kid, mask_share 0.4, steps 9",
        "kid, mask_share 0.2, steps 99",
    ]


def test_configurations_that_differ_in_much_go_by_their_names(make_run) -> None:
    one = make_run("first", method="kid", settings="[train]\na = 1\nb = 1\nc = 1")
    two = make_run("second", method="kid", settings="[train]\na = 2\nb = 2\nc = 2")
    assert [entry.label for entry in group_runs(load_runs([one, two]))] == ["kid, first", "kid, second"]


def test_rollouts_are_part_of_an_on_policy_methods_name(make_run) -> None:
    def gkd(name: str, steps: int, rate: float = 0.1, method: str = "gkd-rkl") -> None:
        settings = f"[generation]\nrollout_window = {steps}\n[train]\nlearning_rate = {rate}"
        paths.append(make_run(name, method=method, settings=settings))

    def labels() -> list[str]:
        return [entry.label for entry in group_runs(load_runs(paths))]

    paths: list = []
    gkd("four", 4)
    assert labels() == ["gkd-rkl (rollouts of 4)"], "alone, too"
    gkd("one", 1)
    assert labels() == ["gkd-rkl (rollouts of 4)", "gkd-rkl"]
    gkd("fast", 4, rate=0.5)
    assert labels() == [
        "gkd-rkl (rollouts of 4), learning_rate 0.1",
        "gkd-rkl, learning_rate 0.1",
        "gkd-rkl (rollouts of 4), learning_rate 0.5",
    ]
    paths.clear()
    gkd("kid-four", 4, method="kid")
    assert labels() == ["kid"], "it generates nothing"


def test_a_truncated_teacher_is_part_of_a_methods_name(make_run) -> None:
    top = "[teacher]\npath = 't'\ntop_k = 20"
    paths = [
        make_run("whole", method="fkd", settings="[teacher]\npath = 't'"),
        make_run("top", method="fkd", settings=top),
        make_run("sft", method="sft", settings=top),
    ]
    labels = [entry.label for entry in group_runs(load_runs(paths))]
    assert labels == ["sft", "fkd", "fkd (teacher's top 20)"], "sft asks no teacher"


def test_a_path_in_a_label_is_its_last_part(make_run) -> None:
    one = make_run("first", method="kid", settings='[student]\npath = "/models/small"')
    two = make_run("second", method="kid", settings='[student]\npath = "/models/large/"')
    assert [entry.label for entry in group_runs(load_runs([one, two]))] == [
        "kid, path small",
        "kid, path large",
    ]


def test_cost_by_phase_is_per_example_and_the_mean_of_the_seeds(make_run) -> None:
    paths = [
        make_run(
            f"kid-{seed}",
            method="kid",
            seed=seed,
            examples_seen=100,
            seconds_by_phase={"student": s, "data": 1.0},
        )
        for seed, s in ((0, 10.0), (1, 30.0))
    ]
    (entry,) = group_runs(load_runs(paths))
    assert entry.seconds_by_phase() == pytest.approx({"student": 0.2, "data": 0.01})


def test_benchmarks_come_as_ordered_then_by_name(make_run) -> None:
    runs = load_runs([make_run("a", accuracy={"c": 0.1, "a": 0.2, "b": 0.3})])
    assert benchmarks_of(group_runs(runs), ["b", "unknown"]) == ["b", "a", "c"]
