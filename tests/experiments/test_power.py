"""What a plan's runs can tell: where the variance comes from, how many seeds a point needs, what becomes of claims."""

import json

import numpy as np
import pytest

from distilsql.errors import RecipeError
from distilsql.experiments.experiment import Book
from distilsql.experiments.plan import make_plan
from distilsql.experiments.power import claim_lines, differences, power_lines

BOOK = Book()
BENCHMARKS = ("demo:lab-test-seen", "demo:lab-test-unseen")
QUESTIONS = 400


@pytest.fixture
def plan(tmp_path):
    return make_plan(BOOK, ["table3"], "lab", tmp_path)


@pytest.fixture
def finish(plan):
    """Runs of a method with these seeds: right with the probability `share`, plus what every question, every seed and
    every answer adds of its own."""

    def make(method: str, share: float, *, seeds=range(8), of_seed=0.005, draw=0):
        easy = np.random.default_rng(7).normal(0, 0.2, (2, QUESTIONS))  # questions are the same for all
        for seed in seeds:
            name = next(
                name
                for name in plan.runs
                if name.startswith(f"{method}_lab-4") and name.endswith(f"_seed{seed}")
            )
            run = plan.runs[name]
            run.folder.model.mkdir(parents=True)
            run.folder.recipe.write_text(run.recipe.to_toml())
            run.folder.summary.write_text(json.dumps({"method": method, "x_sft": None}))
            rng = np.random.default_rng([draw, seed])
            moved = rng.normal(0, of_seed)
            for benchmark, of_question in zip(BENCHMARKS, easy, strict=True):
                right = rng.random(QUESTIONS) < share + of_question + moved
                path = run.folder.scores(benchmark)
                path.parent.mkdir(exist_ok=True)
                verdicts = [
                    {"example_id": f"q{place}", "outcome": "CORRECT" if value else "WRONG"}
                    for place, value in enumerate(right)
                ]
                score = {
                    "benchmark": benchmark,
                    "accuracy": float(right.mean()),
                    "metric": "EX",
                    "verdicts": verdicts,
                }
                path.write_text(json.dumps(score))

    return make


def test_more_seeds_are_needed_where_seeds_differ_more(plan, finish):
    finish("sft", 0.5, draw=1)
    finish("rkd", 0.52, draw=2)
    finish("kid", 0.52, draw=3, of_seed=0.05)
    found = {row.row: row for row in differences(plan) if row.over == "sft"}
    assert found.keys() == {"rkd", "kid"}
    rkd, kid = found["rkd"].seeds_needed(2.0), found["kid"].seeds_needed(2.0)
    assert rkd is not None
    assert kid is not None
    assert 2 < rkd < kid
    assert found["rkd"].seeds_needed(4.0) < rkd, "a larger difference needs fewer"


def test_the_seeds_that_are_needed_find_the_difference_as_often_as_they_should(plan, finish):
    """From the parts of one experiment, simulated again with as many seeds."""
    finish("sft", 0.5, draw=1)
    finish("rkd", 0.55, draw=2)
    (row,) = (row for row in differences(plan) if row.over == "sft")
    seeds = row.seeds_needed(3.0)
    assert seeds is not None
    error, rng = row.parts.with_seeds(seeds) ** 0.5, np.random.default_rng(0)
    found = np.abs(0.03 + rng.normal(0, error, 4000)) > 1.96 * error
    assert found.mean() > 0.78
    fewer = row.parts.with_seeds(max(1, seeds // 3)) ** 0.5
    assert (np.abs(0.03 + rng.normal(0, fewer, 4000)) > 1.96 * fewer).mean() < 0.75


def test_one_seed_leaves_the_number_unknown(plan, finish):
    finish("sft", 0.5, seeds=[0], draw=1)
    finish("rkd", 0.6, seeds=[0], draw=2)
    (row,) = differences(plan)
    assert row.seeds_needed() is None
    assert "–" in list(power_lines(plan))[1]


def test_nothing_trained_is_said(plan):
    assert list(power_lines(plan)) == ["No two rows have been trained and judged with the same seeds yet."]


def test_claims_are_confirmed_refuted_open_or_not_run(plan, finish, tmp_path):
    finish("sft", 0.50, draw=1)
    finish("rkd", 0.60, draw=2)
    finish("kid", 0.50, draw=3)
    finish("gkd-rkl", 0.505, draw=4)
    verdicts = {
        line.split("(")[0][11:].strip(): line.split()[0] for line in claim_lines(BOOK, "lab", tmp_path)
    }
    assert verdicts["rkd is above sft"] == "confirmed"
    assert verdicts["kid is above rkd"] == "refuted"
    assert verdicts["kid is as accurate as gkd-rkl"] in ("open", "confirmed")
    assert verdicts["masks that never touch are better than masks at random"] == "not"


def test_a_claim_is_open_until_it_has_the_seeds_that_were_planned(plan, finish, tmp_path):
    """However large the difference is."""
    finish("sft", 0.50, draw=1)
    finish("rkd", 0.70, seeds=range(7), draw=2)
    (line,) = (line for line in claim_lines(BOOK, "lab", tmp_path) if "rkd is above sft" in line)
    assert line.startswith("open")
    assert "7 of 8 seeds" in line
    finish("rkd", 0.70, seeds=[7], draw=3)
    (line,) = (line for line in claim_lines(BOOK, "lab", tmp_path) if "rkd is above sft" in line)
    assert line.startswith("confirmed")
    assert "8 of 8 seeds" in line


def test_a_scale_without_claims_says_so(tmp_path):
    with pytest.raises(RecipeError, match=r"Scale cpu has no claims\.toml"):
        list(claim_lines(BOOK, "cpu", tmp_path))


def test_claims_name_rows_and_columns_that_exist(tmp_path):
    """All of the published scale's, without any run."""
    assert all(line.startswith("not run") for line in claim_lines(BOOK, "lab", tmp_path))
