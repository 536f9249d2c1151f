"""Experiments: every file is valid at every scale, runs are shared, and the papers' numbers are theirs."""

import json
import statistics
from pathlib import Path

import pytest

from distilsql.errors import RecipeError
from distilsql.experiments.experiment import PAPER, Book
from distilsql.experiments.plan import make_plan
from distilsql.runs.recipe import load_recipe

ROOT = Path(__file__).parents[2]
TRANSCRIPTION = ROOT.parent / "shared" / "paper" / "tables.json"
BOOK = Book()
EVERY = [(name, scale) for scale in BOOK.scales() for name in BOOK.names_at(scale)]


def plan_of(*names: str, scale: str = "cpu", only=()):
    return make_plan(BOOK, names, scale, Path("runs"), only=only)


def test_all_tables_and_figures_of_the_papers_are_there():
    wanted = {f"table{number}" for number in range(2, 8)} | {f"figure{number}" for number in (1, 2, 4, 5, 6)}
    assert wanted | {"switch"} <= set(BOOK.names())
    assert BOOK.scales() == ["cpu", "lab", "paper"]


@pytest.mark.parametrize(("name", "scale"), EVERY)
def test_every_run_of_every_experiment_has_a_valid_recipe_and_comes_after_what_it_needs(name, scale):
    plan = plan_of(name, scale=scale)
    made: set[str] = set()
    for run in plan.runs.values():
        assert set(run.needs) <= made, f"{run.name} comes before what it needs"
        made.add(run.name)
        assert run.recipe.name == run.name
        if run.recipe.row.needs_teacher:
            assert run.recipe.teacher is not None
            assert run.recipe.teacher.path == f"runs/{run.needs[-1]}/model"
    judged = [judgement for run in plan.runs.values() for judgement in run.judged_on]
    assert judged or name == "figure2", "figure 2 shows cost alone; all others judge something"


@pytest.mark.parametrize("scale", BOOK.scales())
def test_base_recipes_are_recipes_of_their_own(scale):
    for path in (PAPER / scale).glob("*.toml"):
        if path.name not in ("scale.toml", "claims.toml"):
            assert load_recipe(path).method == "sft"


@pytest.mark.slow
@pytest.mark.parametrize("scale", BOOK.scales())
def test_one_training_has_one_name_and_two_trainings_have_two(scale):
    runs = plan_of(*BOOK.names_at(scale), scale=scale).runs
    without_names = {run.recipe.model_copy(update={"name": ""}).to_toml() for run in runs.values()}
    assert len(without_names) == len(runs)


def test_tables_share_their_runs():
    alone = {name: set(plan_of(name).runs) for name in ("table2", "table3", "table5", "figure1", "figure6")}
    assert alone["figure1"] <= alone["table3"]
    assert alone["figure6"] <= alone["table3"]
    together = plan_of(*alone)
    assert set(together.runs) == set.union(*alone.values())
    assert len(together.runs) < sum(map(len, alone.values())) / 2


def test_fine_tuning_does_not_depend_on_the_teacher():
    runs = plan_of("table3", scale="paper").runs
    assert [name for name in runs if name.startswith("sft")] == [
        "sft_qwen1.5-0.5b_seed0", "sft_qwen1.5-0.5b_bird_seed0", "sft_qwen1.5-0.5b_bird+evidence_seed0",
    ]  # fmt: skip


def test_settings_equal_to_the_recipes_do_not_make_another_run():
    """Random masking of a share of 0.2 is plain kid."""
    figure = plan_of("figure5").experiments[0]
    by_key = {row.key: row for row in figure.groups[0].rows}
    assert by_key["kid"].cells["spider_ex"] == tuple(
        f"kid_smollm2-24_from-teacher_seed{seed}" for seed in (0, 1, 2)
    )
    assert by_key["0.3"].cells["spider_ex"] == ("kid_smollm2-24_from-teacher_mask_share-0.3_seed0",)


def test_a_row_that_repeats_the_default_is_the_default(tmp_path):
    book = copy_of_the_book(tmp_path)
    path = book / "figure5.toml"
    path.write_text(
        path.read_text().replace('title = "0.2", x', 'settings = { "distill.mask_share" = 0.2 }, x')
    )
    assert make_plan(Book(book), ["figure5"], "cpu", Path("runs")).runs == plan_of("figure5").runs


def test_seeds_of_the_headline_methods_at_scale_cpu():
    runs = plan_of("table2", "table3").runs
    seeds = {}
    for run in runs.values():
        seeds.setdefault(run.recipe.method, set()).add(run.recipe.seed)
    for method in ("sft", "rkd", "kid", "gkd-rkl"):
        assert seeds[method] == {0, 1, 2}
    assert seeds["fkd"] == seeds["imitkd"] == seeds["f-distill"] == seeds["gkd-jsd"] == {0}


def test_a_row_may_have_more_seeds_than_others():
    rows = {row.key: row for row in plan_of("open-choices").experiments[0].groups[0].rows}
    made = {key: [run.rpartition("_")[2] for run in row.cells["spider_ex"]] for key, row in rows.items()}
    assert made["gold-context"] == ["seed0", "seed1", "seed2"]
    assert made["sampled"] == ["seed0"]


def test_every_student_of_scale_cpu_starts_alike():
    recipes = [run.recipe for run in plan_of("table3").runs.values() if run.name.count("_") > 1]
    assert {recipe.student.path for recipe in recipes} == {"runs/start-24/model"}


def test_hyper_parameters_are_table_9():
    runs = plan_of("table3", "table4", scale="paper").runs
    for name, rank, epochs, prompt, completion in (
        ("kid_qwen1.5-0.5b_from-qwen1.5-4b_seed0", 64, 8, 1024, 128),
        ("kid_codegen-350m_from-codegen-2b_seed0", 8, 8, 1024, 128),
        ("kid_tinyllama-1.1b_from-llama2-7b_seed0", 64, 4, 2048, 256),
    ):
        recipe = runs[name].recipe
        assert (recipe.student.lora_rank, recipe.student.lora_scale) == (rank, 32)
        assert (recipe.train.epochs, recipe.train.learning_rate) == (epochs, 2e-4)
        assert recipe.train.questions_per_tree * recipe.train.trees_per_step == 16
        assert (recipe.prompt.max_prompt_tokens, recipe.prompt.max_completion_tokens) == (prompt, completion)
        assert recipe.data.train == "spider:train"


def test_only_runs_with_a_teacher_are_asked_for_their_exposure_bias():
    for scale in BOOK.scales():
        for run in plan_of("table7", "table3", scale=scale).runs.values():
            if any(judgement.exposure_limit for judgement in run.judged_on):
                assert run.recipe.teacher is not None


def test_only_keeps_rows_and_what_they_need():
    runs = plan_of("table3", only=["kid"]).runs
    assert set(runs) == {"teacher", "start-24", *(f"kid_smollm2-24_from-teacher_seed{n}" for n in (0, 1, 2))}
    with pytest.raises(RecipeError, match="did you mean kid"):
        plan_of("table3", only=["kidd"])


# ---- the papers' numbers -------------------------------------------------------------------------------------


@pytest.mark.skipif(
    not TRANSCRIPTION.exists(), reason="the transcription of the paper's tables is not at hand"
)
def test_published_numbers_are_those_of_the_transcription():
    told, value = json.loads(TRANSCRIPTION.read_text()), BOOK.published.value
    columns = ["latency", *told["table3_columns"][1:]]
    blocks = {f"qwen1.5-{size.lower()}": told["table3"][f"teacher_{size}"] for size in ("1.8B", "4B", "7B")}
    blocks["codegen"] = told["table4"]["codegen-350M from 2B"]
    blocks["tinyllama"] = told["table4"]["tinyllama-1.1B from llama2-7B"]
    for group, rows in blocks.items():
        for row, numbers in rows.items():
            assert [value(group, row, column) for column in columns] == numbers
    for place, group in enumerate(("qwen1.5-1.8b", "qwen1.5-4b", "qwen1.5-7b")):
        table2 = told["table2_spider_dev_ex_qwen1.5_0.5b"]
        for row in table2.keys() - {"columns"}:
            assert value(group, row, "spider_ex") == table2[row][place]
    names = {"rkd (vanilla kid)": "rkd"}
    for row, numbers in told["table5_spider_dev_ex"].items():
        if row != "columns":
            found = [value(group, names.get(row, row), "spider_ex") for group in ("codegen", "tinyllama")]
            assert found == numbers
    for row in ("fkd", "rkd", "kid"):
        found = [value("qwen1.5-32b", row, f"{part}_ex") for part in ("spider", "dk", "realistic", "syn")]
        assert found == told["table6_qwen1.5_0.5b_from_32b_ex"][row]
    table7 = told["table7_bird_evidence_qwen1.5_0.5b_from_7b"]
    rows = ["fkd", "rkd", "f-distill", "gkd-rkl", "kid"]
    assert [value("qwen1.5-7b", row, "exaccerr") for row in rows] == table7["exaccerr"]
    assert [value("qwen1.5-7b", row, "bird_ex_evidence") for row in rows] == table7["ex"]


def test_the_papers_mean_is_the_mean_of_its_ten_columns():
    of = BOOK.scale("paper").columns["mean"].of
    assert len(of) == 10
    for block in BOOK.published.blocks:
        if "mean" in block.columns:
            for row, numbers in block.rows.items():
                ten = [numbers[block.columns.index(column)] for column in of]
                assert statistics.fmean(ten) == pytest.approx(numbers[-1], abs=0.011), (block.groups, row)


def test_a_number_that_the_paper_does_not_give_is_none():
    assert BOOK.published.value("qwen1.5-4b", "switch", "spider_ex") is None
    assert BOOK.published.value("qwen1.5-4b", "kid", "indomain_ex") is None


# ---- refusals ------------------------------------------------------------------------------------------------


def copy_of_the_book(folder: Path) -> Path:
    for path in PAPER.rglob("*.toml"):
        copy = folder / "book" / path.relative_to(PAPER)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(path.read_text())
    return folder / "book"


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("table5.toml", "[rows]", "colums = []\n[rows]", "colums"),
        ("table5.toml", 'method = "kid",', 'method = "kidd",', "did you mean kid"),
        ("table5.toml", 'method = "kid",', 'method = "kid", role = "teacher",', "exactly one of"),
        ("table5.toml", '"smollm2"', '"smollm3"', "did you mean smollm2"),
        ("figure5.toml", "mask_share", "mask_shar", "did you mean distill.mask_share"),
        ("open-choices.toml", "{ gold-context = [0", "{ gold-contxt = [0", "did you mean gold-context"),
        ("cpu/scale.toml", 'teacher = "teacher" }', 'teacher = "teachr" }', "did you mean teacher"),
        ("cpu/scale.toml", '"data.train" = "dolly:dev"', '"data.trian" = "dolly:dev"', "data.trian"),
        (
            "cpu/scale.toml",
            'benchmark = "spider:dev" }',
            'benchmark = "spider:dew" }',
            "did you mean spider:dev",
        ),
        ("cpu/scale.toml", "default = [0]", "usual = [0]", "default"),
        ("cpu/scale.toml", 'of = ["mean"]', 'of = ["latency"]', "a gain is of accuracy or mean columns"),
        ("cpu/scale.toml", 'over = "fkd"', 'over = "fdk"', "did you mean fkd"),
        ("cpu/scale.toml", 'length = "0-5 words"', 'length = "0-6 words"', "did you mean 0-5 words"),
        (
            "cpu/scale.toml",
            'benchmark = "spider:dev", limit = 100',
            'benchmark = "spider:dev"',
            "needs a limit",
        ),
        ("published.toml", "sft = [1.0, ", "sft = [", "11 numbers for 12 columns"),
    ],
)
def test_a_slip_in_a_file_is_refused_with_its_place(tmp_path, file, old, new, message):
    folder = copy_of_the_book(tmp_path)
    text = (folder / file).read_text()
    assert old in text
    (folder / file).write_text(text.replace(old, new))
    with pytest.raises(RecipeError, match=message.replace(".", r"\.")):
        plan_everything(folder)


def plan_everything(folder: Path) -> None:
    book = Book(folder)
    make_plan(book, book.names_at("cpu"), "cpu", Path("runs"))


def test_two_trainings_under_one_name_are_refused(tmp_path):
    folder = copy_of_the_book(tmp_path)
    path = folder / "figure5.toml"
    # Two keys whose last parts are alike, and so their names.
    path.write_text(
        path.read_text()
        .replace('"distill.mask_share" = 0.1', '"distill.temperature" = 0.5')
        .replace('"distill.mask_share" = 0.3', '"generation.temperature" = 0.5')
    )
    with pytest.raises(RecipeError, match="Two different trainings"):
        make_plan(Book(folder), ["figure5"], "cpu", Path("runs"))


@pytest.mark.parametrize(
    ("name", "scale", "message"), [("tabel3", "cpu", "table3 "), ("table3", "cpus", "cpu")]
)
def test_what_is_not_there_is_named_with_what_is(name, scale, message):
    with pytest.raises(RecipeError, match=message):
        make_plan(BOOK, [name], scale, Path("runs"))


def test_a_folder_without_experiments_says_what_to_do(tmp_path):
    with pytest.raises(RecipeError, match="--recipes"):
        Book(tmp_path)
