"""Tables from run folders: means, gains and costs are what they say, ours and the paper's over the same columns."""

import csv
import json
import math
import re
import statistics
from dataclasses import asdict

import pytest
from scipy.stats import ttest_rel

from distilsql.distill.exposure import ExposureOptions
from distilsql.experiments.experiment import Book
from distilsql.experiments.gains import _gain, read_answers
from distilsql.experiments.paper_table import Line, Measured, to_paper_markdown
from distilsql.experiments.plan import Plan, make_plan
from distilsql.experiments.render import paper_table, render
from distilsql.metrics.rouge import JudgedInstruction, RougeScores

BOOK = Book()
KID = "kid_smollm2-24_from-teacher_seed{}"
FOUR = ("spider:dev", "spider-dk:dev", "spider-realistic:dev", "spider-syn:dev")


@pytest.fixture
def plan(tmp_path) -> Plan:
    return make_plan(BOOK, ["table3"], "cpu", tmp_path)


def finish(plan: Plan, name: str, accuracy: dict[str, float], *, half: float = 0.05, **summary) -> None:
    """Make the folder of a finished run with these scores, of 200 questions each: the first ones are right."""
    run = plan.runs[name]
    run.folder.model.mkdir(parents=True)
    run.folder.recipe.write_text(run.recipe.to_toml())
    run.folder.summary.write_text(json.dumps({"method": run.recipe.method, "x_sft": None, **summary}))
    for benchmark, value in accuracy.items():
        path = run.folder.scores(benchmark)
        path.parent.mkdir(exist_ok=True)
        score = {
            "benchmark": benchmark,
            "accuracy": value,
            "accuracy_interval_95": [value - half, value + half],
        }
        verdicts = [
            {"example_id": f"q{place}", "outcome": "CORRECT" if place < round(200 * value) else "WRONG"}
            for place in range(200)
        ]
        path.write_text(json.dumps(score | {"metric": "EX", "total": 200, "verdicts": verdicts}))


def lines(plan: Plan) -> dict[str, Line]:
    return {line.key: line for line in paper_table(plan, plan.experiments[0]).groups[0].lines}


def test_nothing_is_measured_before_anything_has_run(plan):
    assert all(not line.cells and not line.seeds for line in lines(plan).values())


def test_the_papers_mean_and_gain_are_over_the_columns_that_ours_are_over(plan):
    """Table 3, QWen1.5-0.5B from 1.8B: EX of kid on Spider-dev, -DK, -Realistic and -Syn; its mean of ten is 47.02."""
    found = lines(plan)
    kid, sft = (found[row].published["qwen1.5-1.8b"]["mean"] for row in ("kid", "sft"))
    assert kid == pytest.approx((63.7 + 47.6 + 53.0 + 47.5) / 4)
    assert found["kid"].published["qwen1.5-1.8b"]["gain"] == pytest.approx(kid - sft)
    assert "gain" not in found["sft"].published["qwen1.5-1.8b"]


def test_a_mean_is_over_seeds_and_columns(plan):
    finish(plan, KID.format(0), dict.fromkeys(FOUR, 0.20))
    alone = lines(plan)["kid"].cells["mean"]
    half = 1.96 * 100 * math.sqrt(0.2 * 0.8 / 200 / 4)
    assert alone.interval == pytest.approx((20 - half, 20 + half), abs=0.2), (
        "four times the questions of a column"
    )
    assert alone.spread is None

    finish(plan, KID.format(1), dict(zip(FOUR, (0.30, 0.30, 0.30, 0.50), strict=True)))
    finish(plan, KID.format(2), dict.fromkeys(FOUR, 0.26))
    kid = lines(plan)["kid"]
    assert (kid.seeds, kid.wanted_seeds) == ((0, 1, 2), 3)
    mean = kid.cells["mean"]
    assert mean.mean == pytest.approx((20 + 35 + 26) / 3)
    assert mean.spread == pytest.approx(statistics.stdev([20, 35, 26]))
    half = 4.303 * mean.spread / 3**0.5
    assert mean.interval[1] - mean.mean == pytest.approx(half, rel=0.15), "nearly that of three seeds alone"


def test_a_mean_with_a_column_missing_is_no_mean(plan):
    finish(plan, "sft_smollm2-24_seed0", dict.fromkeys(FOUR[:3], 0.20))
    cells = lines(plan)["sft"].cells
    assert "spider_ex" in cells
    assert "mean" not in cells


def test_a_gain_is_paired_with_sft_by_question(plan):
    finish(plan, "sft_smollm2-24_seed0", dict.fromkeys(FOUR, 0.20), half=0.03)
    finish(plan, "fkd_smollm2-24_from-teacher_seed0", dict.fromkeys(FOUR, 0.26), half=0.04)
    found = lines(plan)
    gain = found["fkd"].cells["gain"]
    assert gain.mean == pytest.approx(6)
    # 12 of 200 questions were fixed and none broken, on each of four benchmarks.
    half = 1.96 * 100 * math.sqrt(0.06 * 0.94 / 200 / 4)
    assert gain.interval == (pytest.approx(6 - half, abs=0.2), pytest.approx(6 + half, abs=0.2))
    assert gain.p < 1e-3
    assert "gain" not in found["sft"].cells


def test_a_gain_is_over_the_row_that_its_column_names(tmp_path):
    plan = make_plan(BOOK, ["comparisons"], "cpu", tmp_path)
    for method, accuracy in (("rkd", 0.20), ("kid", 0.26), ("fkd", 0.30)):
        finish(
            plan,
            f"{method}_smollm2-24_from-teacher_seed0",
            dict.fromkeys((*FOUR, "spider:indomain-test"), accuracy),
        )
    found = {
        row: {key: round(cell.mean) for key, cell in line.cells.items() if key.startswith("gain_over_")}
        for row, line in lines(plan).items()
    }
    assert found["kid"] == {"gain_over_rkd": 6, "gain_over_fkd": -4}
    assert found["rkd"] == {"gain_over_fkd": -10}
    assert found["sft"] == {}, "it has not run"


def test_a_column_of_one_length_is_the_instructions_of_that_length(tmp_path):
    plan = make_plan(BOOK, ["switch"], "cpu", tmp_path)
    references = ["one two", "a b c d e f g", "twelve words " * 6, "thirteen words " * 6]
    for method, values in (("gkd-rkl", (0.1, 0.2, 0.3, 0.5)), ("switch", (0.1, 0.2, 0.6, 0.6))):
        name = f"{method}_smollm2-24_from-teacher_dolly_seed0"
        finish(plan, name, {})
        judged = tuple(
            JudgedInstruction(f"dolly/{place}", "Say.", "", (reference,), ("said",), (value,))
            for place, (reference, value) in enumerate(zip(references, values, strict=True))
        )
        path = plan.runs[name].folder.scores("dolly:valid")
        path.parent.mkdir()
        path.write_text(RougeScores("dolly:valid", judged).to_json())
    found = lines(plan)
    cells = {key: cell for key, cell in found["gkd-rkl"].cells.items() if key.startswith("dolly")}
    assert {key: pytest.approx(cell.mean) for key, cell in cells.items()} == {
        "dolly": 27.5, "dolly_short": 10, "dolly_middle": 20, "dolly_long": 40,
    }  # fmt: skip
    assert (cells["dolly"].total, cells["dolly_long"].total) == (4, 2)
    low, high = cells["dolly_long"].interval
    assert 30 <= low <= 40 <= high <= 50
    notes = " ".join(paper_table(plan, plan.experiments[0]).notes)
    assert "instructions" in notes
    assert "Spider" not in notes, "what is said of another task has no place here"


def test_gains_that_differ_between_seeds_widen_the_interval(plan):
    """With several seeds in both rows it is nearly the paired t-test of the seeds: the questions add little here."""
    sft, kid = (0.18, 0.10, 0.22), (0.22, 0.34, 0.28)
    for row, accuracies in (("sft_smollm2-24_seed{}", sft), (KID, kid)):
        for seed, accuracy in enumerate(accuracies):
            finish(plan, row.format(seed), dict.fromkeys(FOUR, accuracy))
    gain = lines(plan)["kid"].cells["gain"]
    assert gain.mean == pytest.approx((4 + 24 + 6) / 3)
    assert not gain.is_of_runs
    paired = ttest_rel([22, 34, 28], [18, 10, 22])
    low, high = paired.confidence_interval(0.95)
    assert gain.p == pytest.approx(paired.pvalue, rel=0.1)
    assert gain.interval == pytest.approx((low, high), rel=0.1)


def test_what_moves_all_rows_of_a_seed_alike_is_no_chance_in_their_gain(plan):
    for seed, shift in enumerate((0.0, 0.10, 0.20)):
        finish(plan, f"sft_smollm2-24_seed{seed}", dict.fromkeys(FOUR, 0.20 + shift))
        finish(plan, KID.format(seed), dict.fromkeys(FOUR, 0.26 + shift))
    finish(plan, "fkd_smollm2-24_from-teacher_seed0", dict.fromkeys(FOUR, 0.24))
    found = lines(plan)
    gain = found["kid"].cells["gain"]
    assert gain.mean == pytest.approx(6)
    assert gain.interval[1] - gain.interval[0] < 5
    assert found["fkd"].cells["gain"].mean == pytest.approx(4), (
        "to sft of the same seed, not to the mean of three"
    )


def test_a_gain_over_two_seeds_is_marked(plan):
    """Two that happen to agree make chance in the seeds look like none."""
    for seed in (0, 1):
        finish(plan, f"sft_smollm2-24_seed{seed}", dict.fromkeys(FOUR, 0.20))
        finish(plan, KID.format(seed), dict.fromkeys(FOUR, 0.26))
    assert lines(plan)["kid"].cells["gain"].is_of_runs


def test_a_gain_over_one_seed_says_so(plan):
    finish(plan, "sft_smollm2-24_seed0", dict.fromkeys(FOUR, 0.20))
    for seed, accuracy in enumerate((0.26, 0.22, 0.30)):
        finish(plan, KID.format(seed), dict.fromkeys(FOUR, accuracy))
    gain = lines(plan)["kid"].cells["gain"]
    assert gain.is_of_runs
    assert gain.interval[1] - gain.interval[0] < 5, "of questions alone"
    written = render(plan, plan.folder / "out")[0]
    assert re.search(r"\| 6\.0 \[\d\.\d, \d\.\d\], p = 0\.0002\* \|", written.read_text())
    rows = list(csv.DictReader(written.with_suffix(".csv").read_text().splitlines()))
    assert [float(row["p"]) for row in rows if row["column"] == "gain" and row["whose"] == "ours"] == [gain.p]


def test_columns_with_different_seeds_have_neither_mean_nor_gain(plan):
    """Seed 1 is judged on three of the four benchmarks."""
    for name in ("sft_smollm2-24_seed0", KID.format(0)):
        finish(plan, name, dict.fromkeys(FOUR, 0.20))
    finish(plan, KID.format(1), dict.fromkeys(FOUR[:3], 0.20))
    assert not {"mean", "gain"} & lines(plan)["kid"].cells.keys()


def test_columns_that_ask_the_same_questions_are_drawn_together(tmp_path):
    """Execution and suite accuracy of one benchmark, with equal verdicts, say no more than one of them."""
    plan = make_plan(BOOK, ["table3"], "paper", tmp_path)
    rows = {row.key: row for row in plan.experiments[0].groups[0].rows}
    for row, accuracy in (("sft", 0.20), ("fkd", 0.26)):
        names = dict.fromkeys(name for names in rows[row].cells.values() for name in names)
        for name in names:
            scores = {"spider:dev": accuracy, "spider:dev-ts": accuracy}
            finish(plan, name, scores)
    widths = []
    for keys in (["spider_ex"], ["spider_ex", "spider_ts"]):
        gain = _gain(
            *(read_answers(keys, rows[row], plan.scale, plan.runs) for row in ("fkd", "sft")),
            seed_by_seed=True,
        )
        widths.append(gain.interval[1] - gain.interval[0])
    assert widths[0] == pytest.approx(widths[1], rel=0.05)


def test_there_is_no_gain_between_rows_that_were_asked_different_questions(plan):
    finish(plan, "sft_smollm2-24_seed0", dict.fromkeys(FOUR, 0.20))
    finish(plan, "fkd_smollm2-24_from-teacher_seed0", dict.fromkeys(FOUR, 0.26))
    path = plan.runs["fkd_smollm2-24_from-teacher_seed0"].folder.scores("spider-dk:dev")
    path.write_text(path.read_text().replace('"q7"', '"another"'))
    cells = lines(plan)["fkd"].cells
    assert "mean" in cells
    assert "gain" not in cells


def test_costs_are_relative_to_the_students_own_fine_tuning(plan):
    finish(plan, "sft_smollm2-24_seed0", {}, x_sft=0.97, samples_per_second=3.0)
    finish(plan, "fkd_smollm2-24_from-teacher_seed0", {}, x_sft=1.4, samples_per_second=2.0)
    finish(plan, "teacher", {}, samples_per_second=1.5)
    found = lines(plan)
    assert found["sft"].cells["latency"].mean == 1.0, "by definition, whatever a timing says"
    assert found["fkd"].cells["latency"].mean == 1.4
    assert "latency" not in found["teacher"].cells, "a teacher is not a multiple of its student's cost"
    assert found["teacher"].cells["samples_per_second"].mean == 1.5


def test_training_time_is_in_minutes(tmp_path):
    plan = make_plan(BOOK, ["equal-time"], "cpu", tmp_path)
    finish(plan, "sft_smollm2-24_steps-222_seed0", {}, train_seconds=90.0)
    assert lines(plan)["sft"].cells["train_minutes"].mean == 1.5


def test_a_run_of_another_recipe_or_an_unfinished_one_is_not_shown(plan):
    finish(plan, "sft_smollm2-24_seed0", dict.fromkeys(FOUR, 0.20))
    finish(plan, "fkd_smollm2-24_from-teacher_seed0", dict.fromkeys(FOUR, 0.20))
    recipe = plan.runs["sft_smollm2-24_seed0"].folder.recipe
    recipe.write_text(recipe.read_text().replace("learning_rate = 0.0001", "learning_rate = 0.1"))
    plan.runs["fkd_smollm2-24_from-teacher_seed0"].folder.summary.unlink()
    found = lines(plan)
    assert not found["sft"].cells
    assert not found["fkd"].cells


def test_rendering_only_what_a_run_touches(tmp_path):
    plan = make_plan(BOOK, ["table2", "table6"], "cpu", tmp_path / "runs")
    written = render(plan, tmp_path / "out", touching="gkd-jsd_smollm2-24_from-teacher_seed0")
    assert [path.name for path in written] == ["table2.md"]
    assert "| gkd-jsd | ours | not run |" in written[0].read_text()


@pytest.mark.parametrize(
    "other",
    [
        {"benchmark": "bird:dev"},
        {"prompts": 20},
        {"teacher": "models/other"},
        {"options": asdict(ExposureOptions(length=30))},
        {"options": asdict(ExposureOptions(samples_per_prompt=4))},
    ],
)
def test_exposure_bias_is_shown_only_in_its_own_column(tmp_path, other):
    plan = make_plan(BOOK, ["table7"], "cpu", tmp_path)
    asked = {
        "benchmark": "spider:dev",
        "excess_accumulated_error": 12.0,
        "interval": [4.0, 20.0],
        "prompts": 100,
        "options": asdict(ExposureOptions()),
    }
    for method, values in (("rkd", asked), ("fkd", asked | other)):
        name = f"{method}_smollm2-24_from-teacher_seed0"
        finish(plan, name, {}, excess_accumulated_error=12.0)
        plan.runs[name].folder.exposure.write_text(json.dumps(values))
    found = lines(plan)
    assert found["rkd"].cells["exaccerr"] == Measured(12.0, interval=(4.0, 20.0), total=100)
    assert "exaccerr" not in found["fkd"].cells


def test_published_rows_are_announced_where_there_are_some(tmp_path):
    with_paper, without = (make_plan(BOOK, [name], "cpu", tmp_path) for name in ("table3", "all-methods"))
    said = [to_paper_markdown(paper_table(plan, plan.experiments[0])) for plan in (with_paper, without)]
    assert ["Rows “paper” are" in text for text in said] == [True, False]
    assert ["| paper," in text for text in said] == [True, False]
