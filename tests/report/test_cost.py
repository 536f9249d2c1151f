"""× SFT: one number on every page, with what it is worth, and a second where whole runs say otherwise."""

import pytest

from distilsql.report.cost import Cost, RunCost, cost
from distilsql.report.entries import group_runs
from distilsql.report.records import load_runs


def run(seconds: float | None, x_sft: float | None = None, spread=None, seed: int = 0) -> RunCost:
    return RunCost(seed, x_sft, spread, seconds)


@pytest.mark.parametrize(
    ("kid", "expected"),
    [
        (run(2.4, 2.5, (2.0, 3.0)), Cost(2.5, (2.0, 3.0))),
        (run(2.4, 3.8, (3.1, 4.4)), Cost(3.8, (3.1, 4.4), 2.4)),
        (run(5.0, 3.8, (3.1, 4.4)), Cost(3.8, (3.1, 4.4), 5.0)),
        (run(2.4, 2.9), Cost(2.9)),  # no windows kept: a fifth either way
        (run(2.4, 3.1), Cost(3.1, None, 2.4)),
        (run(None, 3.8, (3.1, 4.4)), Cost(3.8, (3.1, 4.4))),
        (run(2.4), None),
    ],
)
def test_whole_runs_are_shown_where_they_lie_outside_the_spread(kid, expected):
    assert cost("kid", [kid], [run(1.0, 0.7)]) == expected


def test_without_fine_tuning_beside_it_there_is_nothing_to_disagree_with():
    assert cost("kid", [run(9.0, 3.8, (3.1, 4.4))], []) == Cost(3.8, (3.1, 4.4))


def test_fine_tuning_costs_one_whatever_a_timing_says():
    assert cost("sft", [run(1.0, 0.7, (0.5, 0.8))], [run(1.0)]) == Cost(1.0)


def test_seeds_are_compared_seed_by_seed():
    """The machine was slow for both runs of seed 1."""
    kid = [run(2.0, 2.1, (1.9, 2.2), seed=0), run(6.0, 2.1, (1.9, 2.2), seed=1)]
    sft = [run(1.0, seed=0), run(3.0, seed=1)]
    assert cost("kid", kid, sft) == Cost(2.1, (1.9, 2.2))
    apart = cost("kid", kid, [run(1.0, seed=2)])
    assert apart is not None
    assert apart.of_runs is None, "2 and 6 times: whole runs differ too much among themselves to contradict"


def test_a_cost_says_what_it_is_worth():
    assert Cost(3.8, (3.11, 4.42), 2.36).text == "3.80 (3.11 to 4.42); runs 2.36"
    assert Cost(3.8).text == "3.80"


def test_summaries_of_earlier_versions_are_read():
    assert RunCost.of({"x_sft": 2.0}) == RunCost(0, 2.0, None, None)
    assert RunCost.of({"x_sft": 2.0, "x_sft_range": [1, 3], "seed": 4}) == RunCost(4, 2.0, (1, 3), None)


def test_only_fine_tuning_that_does_the_same_work_is_compared_with(make_run):
    work = "[student]\npath = '{}'\n"
    paths = [
        make_run("kid", method="kid", x_sft=2.0, seconds_per_example=9.0, settings=work.format("small")),
        make_run("sft", seconds_per_example=1.0, settings=work.format("large")),
    ]
    (_, kid) = group_runs(load_runs(paths))
    assert kid.cost == Cost(2.0)
    paths.append(make_run("sft-small", seconds_per_example=1.0, settings=work.format("small")))
    kid = group_runs(load_runs(paths))[-1]
    assert kid.cost == Cost(2.0, None, 9.0)
