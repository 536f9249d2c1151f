"""From a finished run to predictions, scores and a comparison; and ExAccErr."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM, MistralConfig

from distilsql.data.load import load_benchmark
from distilsql.databases.database import open_database
from distilsql.databases.execute import execute
from distilsql.errors import DataError, RunError
from distilsql.inference.ask import ask, rows_table
from distilsql.inference.decoder import Decoder
from distilsql.inference.exposure import ExposureOptions, expose_run, measure_exposure
from distilsql.inference.predict import benchmark_for, load_any, load_student, predict
from distilsql.inference.prepare import prepare
from distilsql.metrics.scores import Scores
from distilsql.models.generate import uniform_stream
from distilsql.models.load import load_model, load_tokenizer
from distilsql.models.tree_model import TreeModel
from distilsql.report import load_runs, write_report
from distilsql.runs.evaluate import evaluate_run
from distilsql.runs.folder import RunFolder
from distilsql.runs.recipe import load_recipe
from distilsql.training.train import train
from reporters import answering


@pytest.fixture
def benchmark(world):
    return load_benchmark(str(world / "pairs.jsonl"), database=world / "singers.sqlite")


def test_a_run_learns_its_pairs_and_is_judged_by_running_them(learned, tmp_path):
    run = RunFolder(shutil.copytree(learned.path, tmp_path / "run"))
    spec = benchmark_for(load_recipe(run.recipe), str(learned.path.parent / "pairs.jsonl"), None, None)
    written = predict(load_student(run), spec, run.predictions(spec.name))
    scores = evaluate_run(run, spec)
    assert scores.accuracy >= 0.7, written
    assert Scores.from_json(run.scores(spec.name).read_text()).accuracy == scores.accuracy
    lines = [json.loads(line) for line in run.predictions(spec.name).read_text().splitlines()]
    assert [line["sql"] for line in lines] == written
    assert [line["example_id"] for line in lines] == [example.example_id for example in spec.examples]
    page = write_report(load_runs([run.path]), tmp_path / "report", title="t").page
    assert "sft" in page.read_text()


def test_one_question_is_answered_and_carried_out(learned, world, tmp_path, benchmark):
    model, database = load_student(learned), world / "singers.sqlite"
    first = benchmark.take(1, 0)
    answer = ask(model, first.examples[0].question, open_database(database))
    assert answer.sql == predict(model, first, tmp_path / "p.jsonl")[0]
    assert answer.result.rows == execute(database, first.examples[0].gold_sql).rows
    many = replace(answer, result=execute(database, "SELECT name FROM singer", mode="serving"))
    assert (rows_table(many, 1).row_count, rows_table(many, 99).row_count) == (1, len(many.result.rows))
    with pytest.raises(DataError, match="not carried out"):
        rows_table(replace(answer, result=execute(database, "SELECT nothing", mode="serving")), 1)


def test_beams_score_at_least_their_share_and_lora_adapters_open(recipe, tmp_path, benchmark):
    settings = recipe("sft", "student.tuning=lora", "student.save_merged=false", "train.steps=2")
    run = train(settings, tmp_path / "run")
    assert (run.model / "adapter_config.json").exists()
    assert len(predict(load_student(run, beams=3), benchmark, tmp_path / "out.jsonl")) == 10


def test_an_interrupted_prediction_goes_on(recipe, tmp_path, benchmark, monkeypatch):
    run = train(recipe("sft", "train.steps=2"), tmp_path / "run")
    model = load_student(run)
    small = type(model)(Decoder(**{**vars(model.decoder), "questions_per_batch": 3}), model.prompt)
    whole = predict(small, benchmark, tmp_path / "whole.jsonl")

    def stop(done):
        if done >= 5:
            raise KeyboardInterrupt

    with answering(stop), pytest.raises(KeyboardInterrupt):
        predict(small, benchmark, tmp_path / "cut.jsonl")
    with (tmp_path / "cut.jsonl.unfinished").open("a") as file:
        file.write('{"example_id": "half a li')
    asked = []
    with answering(asked.append):
        assert predict(small, benchmark, tmp_path / "cut.jsonl") == whole
    assert len(asked) == 5
    assert not (tmp_path / "cut.jsonl.unfinished").exists()


@pytest.mark.slow
def test_predictions_of_another_model_or_decoding_are_not_resumed(recipe, tmp_path, benchmark):
    first, second = (train(recipe("sft", "train.steps=2", f"seed={n}"), tmp_path / f"run{n}") for n in (0, 1))

    def stop(done):
        raise KeyboardInterrupt

    def asked(model, interrupted=None):
        out, seen = tmp_path / "p.jsonl", []
        if interrupted is not None:
            with answering(stop), pytest.raises(KeyboardInterrupt):
                predict(interrupted, benchmark, out)
        with answering(seen.append):
            predict(model, benchmark, out)
        return len(seen)

    student = load_student(first)
    assert asked(student, interrupted=student) == 9, "its own answer is kept"
    assert asked(load_student(second), interrupted=student) == 10
    assert asked(load_student(first, temperature=1.0), interrupted=student) == 10
    others = replace(benchmark, examples=tuple(replace(e, question="Why?") for e in benchmark.examples))
    with answering(stop), pytest.raises(KeyboardInterrupt):
        predict(student, others, tmp_path / "p.jsonl")
    assert asked(student) == 10, "an answer to another question is none, though the ids are the same"


@pytest.mark.slow
def test_a_model_with_a_short_window_is_asked_as_transformers_would_and_says_so(
    recipe, tmp_path, benchmark, tiny_models, caplog
):
    tokenizer = load_tokenizer(tiny_models["student"])
    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        sliding_window=8,
        initializer_range=0.3,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    causal_lm = AutoModelForCausalLM.from_config(config).eval()
    causal_lm.save_pretrained(tmp_path / "mistral")
    tokenizer.save_pretrained(tmp_path / "mistral")
    prompt = recipe("sft").prompt
    model = load_any(str(tmp_path / "mistral"), prompt, precision="float32")
    assert len(caplog.messages) == 1
    assert "slower" in caplog.messages[0]
    written = predict(model, benchmark, tmp_path / "out.jsonl")
    prepared = prepare(benchmark, tokenizer, prompt, training=False)
    for example, answer in zip(prepared.examples, written, strict=True):
        ids = torch.tensor([prepared.prefixes[example.prefix_key] + example.question])
        theirs = causal_lm.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=prompt.max_completion_tokens,
            do_sample=False,
            pad_token_id=tokenizer.eos_token_id,
        )
        assert answer == model.decoder.answer(theirs[0, ids.shape[1] :].tolist(), "sql").text


def test_predicting_from_an_unfinished_run_says_what_to_do(recipe, tmp_path):
    run = train(recipe("sft", "train.steps=1"), tmp_path / "run")
    (run.model / "config.json").unlink()
    for file in run.model.iterdir():
        file.unlink()
    run.model.rmdir()
    with pytest.raises(RunError, match="finish it"):
        load_student(run)


def test_exposure_is_the_same_every_time_and_inside_its_interval(tiny_models, benchmark, recipe):
    tokenizer = load_tokenizer(tiny_models["student"])
    student = TreeModel(load_model(tiny_models["student"], "float32"))
    teacher = TreeModel(load_model(tiny_models["teacher"], "float32"))
    prompt, options = recipe("sft").prompt, ExposureOptions(length=5, samples_per_prompt=2)
    size = len(tokenizer)
    result = measure_exposure(student, teacher, tokenizer, size, benchmark, prompt, options)
    again = measure_exposure(student, teacher, tokenizer, size, benchmark, prompt, options)
    assert result == again
    assert result.interval[0] <= result.excess_accumulated_error <= result.interval[1]
    assert result.prompts == 10


def test_exposure_to_a_teacher_that_is_the_student_is_refused(recipe, tmp_path, benchmark):
    run = train(recipe("sft", "train.steps=1"), tmp_path / "run")
    with pytest.raises(RunError, match="agree everywhere"):
        expose_run(run, benchmark, ExposureOptions(length=5), teacher=str(run.model))


@pytest.mark.slow
def test_the_samples_of_a_prompt_are_resampled_together(tiny_models, benchmark, recipe, monkeypatch):
    """Where the samples of a prompt are all the same, three of them tell no more than one."""

    def without_repeat(seed, use, repeat, number):
        return uniform_stream(seed, use, number)

    monkeypatch.setattr("distilsql.inference.exposure.uniform_stream", without_repeat)
    tokenizer = load_tokenizer(tiny_models["student"])
    models = [TreeModel(load_model(tiny_models[role], "float32")) for role in ("student", "teacher")]
    once, often = (
        measure_exposure(
            *models,
            tokenizer,
            len(tokenizer),
            benchmark,
            recipe("sft").prompt,
            ExposureOptions(length=5, samples_per_prompt=samples, questions_per_batch=4),
        )
        for samples in (1, 3)
    )
    assert once.interval[1] - once.interval[0] > 1
    assert often.interval == pytest.approx(once.interval, abs=0.01)
