"""Instruction following on the same engine: every method trains on it, samples are kept apart, ROUGE-L judges."""

import json
import statistics
from pathlib import Path

import pytest

from distilsql.data.load import load_benchmark
from distilsql.distill.methods import METHODS
from distilsql.errors import DataError, RunError
from distilsql.inference.loading import load_engines
from distilsql.inference.predict import benchmark_for, load_any, load_student, predict
from distilsql.inference.prepare import prepare
from distilsql.metrics.golds import GoldResults
from distilsql.metrics.rouge import RougeScores, judge_responses
from distilsql.models.load import load_tokenizer
from distilsql.report import comparison_table, load_runs
from distilsql.runs.evaluate import Rules, compare_scores, evaluate_file, evaluate_run, score_lines
from distilsql.runs.recipe import load_recipe
from distilsql.training.train import train
from distilsql.training.validation import score_during_training

RECIPES = Path(__file__).parents[2] / "recipes" / "instruct"
RECORDS = [
    {"instruction": "Greet.", "input": "", "output": "hello\nyou"},
    {"instruction": "Say yes or no.", "output": ["yes", "no"]},
    {"instruction": "Name a colour.", "output": "red"},
    {"instruction": "Count.", "input": "a b c", "output": "three"},
    {"instruction": "Repeat.", "input": "so it is", "output": "so it is"},
]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "own.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in RECORDS))
    return path


@pytest.fixture
def instruct(recipe, file):
    """Make a recipe as `recipe` does, over instructions."""
    return lambda method, *overrides: recipe(
        method, f"data.train={file}", "prompt.max_completion_tokens=12", *overrides
    )


@pytest.fixture
def prepared(instruct, file, tiny_models):
    """Make the tokenised instructions: `prepared(training=True, "prompt.max_prompt_tokens=100")`."""
    tokenizer = load_tokenizer(tiny_models["student"])

    def make(*overrides: str, training: bool):
        settings = instruct("sft", *overrides).prompt
        return prepare(load_benchmark(str(file)), tokenizer, settings, training=training), tokenizer

    return make


def test_instructions_share_the_templates_head_and_end_with_eos(prepared):
    made, tokenizer = prepared(training=True)
    assert made.task == "instruct"
    assert [len(group) for group in made.by_prefix()] == [3, 2]
    for example in made.examples:
        assert example.gold[-1] == tokenizer.eos_token_id
        assert tokenizer.decode(example.gold[:-1]) == example.example.references[0]
    tree = made.tree(made.by_prefix()[1])
    assert tokenizer.decode(tree.prefix).endswith("### Instruction:\n")
    assert tokenizer.decode(tree.questions[0]) == "Count.\n\n### Input:\na b c\n\n### Response:\n"


def test_the_budget_drops_in_training_and_cuts_inputs_in_prediction(prepared):
    whole, _ = prepared(training=True)
    long = max(len(whole.prefixes[each.prefix_key]) + len(each.question) for each in whole.examples)
    budget = f"prompt.max_prompt_tokens={long - 1}"
    trained, _ = prepared(budget, training=True)
    assert len(trained.examples) == 4
    assert "1 of 5 examples dropped for length: own/4" in trained.lengths.sentences()[-1]
    asked, tokenizer = prepared(budget, training=False)
    assert asked.lengths.shortened == {"input cut": 1}
    assert tokenizer.decode(asked.examples[4].question) == "Repeat.\n\n### Input:\nso it\n\n### Response:\n"
    with pytest.raises(DataError, match="exceed the length budget"):
        prepared(budget, "prompt.over_length=error", training=True)
    with pytest.raises(DataError, match="raise them"):
        prepared("prompt.max_prompt_tokens=16", training=True)


@pytest.mark.parametrize(
    "method",
    [name if name in ("kid", "gkd-rkl") else pytest.param(name, marks=pytest.mark.slow) for name in METHODS],
)
def test_every_method_trains_on_instructions(instruct, tmp_path, method):
    settings = instruct(method, "train.steps=2", "train.calibration_windows=0", "switch.threshold=0.01")
    run = train(settings, tmp_path / "run")
    losses = [json.loads(line)["loss"] for line in run.log.read_text().splitlines()]
    assert len(losses) == 2
    assert losses[0] != losses[1]


@pytest.mark.slow
def test_a_run_learns_its_instructions_and_is_judged_by_rouge(instruct, file, tmp_path):
    run = train(instruct("sft", "train.steps=120", "train.calibration_windows=0"), tmp_path / "run")
    benchmark = benchmark_for(instruct("sft"), str(file), None, None)
    written = predict(load_student(run), benchmark, run.predictions(benchmark.name))
    scores = evaluate_run(run, benchmark)
    assert scores.rouge_l >= 0.8, written
    assert "hello\nyou" in written  # line breaks are kept
    lines = [json.loads(line) for line in run.predictions(benchmark.name).read_text().splitlines()]
    assert [line["response"] for line in lines] == written
    assert lines[3]["question"] == "Count.\n\na b c"
    assert RougeScores.from_json(run.scores(benchmark.name).read_text()) == scores
    table = comparison_table(load_runs([run.path]))
    assert f"{file} ROUGE-L %" in table.titles
    cell = table.rows[0][table.titles.index(f"{file} ROUGE-L %")]
    assert cell.text.startswith(f"{100 * scores.rouge_l:.1f} [")
    assert "by length of the reference" in "\n".join(score_lines(scores, tables=True))


def test_a_student_is_scored_while_it_trains_as_its_greedy_answers_are(instruct, file, tmp_path, tiny_models):
    settings = instruct("sft")
    benchmark = load_benchmark(str(file))
    model = load_any(str(tiny_models["student"]), settings.prompt, precision="float32")
    written = predict(model, benchmark, tmp_path / "out.jsonl")
    engines = load_engines(settings, model.decoder.model.device)
    scored = score_during_training(settings, engines, benchmark, GoldResults())
    assert scored == judge_responses([written], benchmark).rouge_l


def test_a_sample_depends_on_its_seed_and_example_alone(instruct, file, tmp_path, tiny_models):
    benchmark, prompt = load_benchmark(str(file)), instruct("sft").prompt

    def sampled(seed: int, n: int = 5) -> dict[str, str]:
        model = load_any(str(tiny_models["student"]), prompt, precision="float32", temperature=1.0, seed=seed)
        asked = benchmark.take(n, seed=0)
        answers = predict(model, asked, tmp_path / f"{seed}-{n}.jsonl")
        return {example.example_id: text for example, text in zip(asked.examples, answers, strict=True)}

    whole = sampled(1)
    assert sampled(1, n=2).items() <= whole.items()
    assert len(set(whole.values())) == 5
    assert sampled(2) != whole
    with pytest.raises(RunError, match="cannot sample"):
        load_any(str(tiny_models["student"]), prompt, beams=2, temperature=1.0)


def test_seeds_have_their_own_files_and_are_scored_together(instruct, file, tmp_path):
    run = train(instruct("sft", "train.steps=5", "train.calibration_windows=0"), tmp_path / "run")
    benchmark = load_benchmark(str(file))
    with pytest.raises(RunError, match=r"--temperature 1 --seed 1"):
        evaluate_run(run, benchmark, temperature=1.0)
    paths = [run.predictions(benchmark.name)]
    predict(load_student(run), benchmark, paths[0])
    for seed in (10, 2):
        paths.append(run.predictions(benchmark.name, 1.0, seed))
        predict(load_student(run, temperature=1.0, seed=seed), benchmark, paths[-1])
    assert [path.name for path in paths] == ["own.jsonl", "own-T1-seed10.jsonl", "own-T1-seed2.jsonl"]
    greedy, sampled = evaluate_run(run, benchmark), evaluate_run(run, benchmark, temperature=1.0)
    draw = benchmark.take(2, 0)
    drawn = evaluate_run(run, draw, temperature=1.0, whole=benchmark)
    assert {judged.example_id for judged in drawn.instructions} == {
        example.example_id for example in draw.examples
    }
    evaluate_run(run, benchmark, temperature=1.0)
    assert sampled.seeds == (2, 10)
    alone = [evaluate_file(path, benchmark).rouge_l for path in (paths[2], paths[1])]
    assert sampled.by_sample() == pytest.approx(alone)
    assert sampled.rouge_l == pytest.approx(statistics.fmean(alone))
    known = load_runs([run.path])[0].scores
    assert {name: score.accuracy for name, score in known.items()} == {
        str(file): pytest.approx(greedy.rouge_l),
        f"{file} T=1": pytest.approx(sampled.rouge_l),
    }
    assert compare_scores(greedy, sampled).difference == pytest.approx(sampled.rouge_l - greedy.rouge_l)
    assert "seed 10" in "\n".join(score_lines(sampled))


def test_sampled_sql_is_judged_a_file_at_a_time(recipe, world, tmp_path):
    run = train(recipe("sft", "train.steps=1", "train.calibration_windows=0"), tmp_path / "run")
    benchmark = load_benchmark(str(world / "pairs.jsonl"), database=world / "singers.sqlite")
    path = run.predictions(benchmark.name, 0.5, 3)
    written = predict(load_student(run, temperature=0.5, seed=3), benchmark, path)
    assert len(written) == len(benchmark.examples)
    with pytest.raises(DataError, match=r"pairs-T0\.5-seed3\.jsonl --on"):
        evaluate_run(run, benchmark, temperature=0.5)
    assert len(evaluate_file(path, benchmark).verdicts) == 10


def test_what_is_of_sql_alone_is_refused(file, tmp_path):
    benchmark = load_benchmark(str(file))
    for option in ({"keep_distinct": True}, {"suite": tmp_path}, {"plug_values": True}, {"column": "sql"}):
        with pytest.raises(DataError, match="Leave them out"):
            evaluate_file(file, benchmark, Rules(**option))


@pytest.mark.parametrize("name", ["teacher", "sft", "switch"])
def test_the_recipes_are_whole_and_differ_as_they_say(name):
    recipe = load_recipe(RECIPES / f"{name}.toml")
    assert (recipe.data.train, recipe.name) == ("dolly:dev", f"instruct-{name}")
    assert recipe.method == ("switch" if name == "switch" else "sft")
    if name == "switch":
        other = load_recipe(RECIPES / "sft.toml")
        assert (recipe.student, recipe.data, recipe.prompt, recipe.train) == (
            other.student,
            other.data,
            other.prompt,
            other.train,
        )
