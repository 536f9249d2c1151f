"""Models and examples in memory train what the same ones train from paths, and a run knows what it was made from."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM

from distilsql.data.load import load_benchmark
from distilsql.errors import DataError, ModelError, RecipeError, RunError
from distilsql.inference.predict import load_student, predict
from distilsql.models.fingerprint import model_fingerprint, tokenizer_fingerprint
from distilsql.models.in_memory import taken_from_memory
from distilsql.models.load import add_lora, load_model, load_tokenizer
from distilsql.runs.recipe import load_recipe
from distilsql.training.train import train
from run_folders import Killed, assert_equal, assert_same_weights, losses
from tiny_world import PAIRS

IN_MEMORY = ("student.path=memory", "teacher.path=memory", "data.train=memory")


@pytest.fixture
def things(tiny_models, world):
    """What `train` takes in memory: the tiny world's own models and pairs."""
    student, teacher = (AutoModelForCausalLM.from_pretrained(tiny_models[role]) for role in tiny_models)
    return {
        "student": student.train(),  # as a user may leave it
        "teacher": teacher,
        "tokenizer": load_tokenizer(tiny_models["student"]),
        "train_set": load_benchmark(world / "pairs.jsonl", database=world / "singers.sqlite"),
    }


@pytest.mark.parametrize(
    ("method", "overrides"),
    [
        ("kid", ()),
        pytest.param(
            "kid",
            ("student.tuning=lora", "student.lora_rank=4", "train.precision=bfloat16"),
            marks=pytest.mark.slow,
        ),
        pytest.param("f-distill", ("student.keep_layers=1", "data.train_limit=7"), marks=pytest.mark.slow),
        pytest.param("sft", ("prompt.max_prompt_tokens=auto",), marks=pytest.mark.slow),
    ],
)
def test_training_in_memory_equals_training_from_paths(recipe, things, tmp_path, method, overrides):
    from_paths = train(recipe(method, *overrides), tmp_path / "paths")
    in_memory = train(recipe(method, *IN_MEMORY, *overrides), tmp_path / "memory", **things)
    assert_same_weights(from_paths, in_memory)
    assert losses(from_paths) == losses(in_memory)
    assert load_recipe(in_memory.recipe).prompt == load_recipe(from_paths.recipe).prompt


@pytest.mark.slow
def test_pairs_as_records_and_validation_in_memory_train_the_same(recipe, things, tmp_path, world):
    each = ("train.evaluate_every_steps=2", "data.valid_limit=3")
    spec = str(world / "pairs.jsonl")
    from_paths = train(recipe("sft", *each, f"data.valid={spec}"), tmp_path / "paths")
    records = [{"question": question, "sql": sql} for question, sql in PAIRS]
    settings = recipe("sft", "data.train=memory", "data.valid=memory", *each)
    in_memory = train(settings, tmp_path / "memory", train_set=records, valid_set=things["train_set"])
    assert_same_weights(from_paths, in_memory)
    assert [line for line in in_memory.log.read_text().splitlines() if "valid_accuracy" in line] == [
        line for line in from_paths.log.read_text().splitlines() if "valid_accuracy" in line
    ]
    examples = load_benchmark(things["train_set"].examples, database=world / "singers.sqlite").examples
    assert examples == things["train_set"].examples


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_what_is_given_stays_as_it_was(recipe, things, tmp_path, precision):
    models = ("student", "teacher")
    before = {role: model_fingerprint(things[role]) for role in models}
    settings = recipe("rkd", *IN_MEMORY, "student.keep_layers=1", f"train.precision={precision}")
    train(settings, tmp_path / "run", **things)
    for role in models:
        model = things[role]
        assert model_fingerprint(model) == before[role]
        assert all(weight.requires_grad and weight.grad is None for weight in model.parameters())
        assert model.config._attn_implementation == "sdpa"
    assert things["student"].training
    tokens = torch.tensor([[4, 5, 6]])
    assert things["teacher"](tokens).logits.requires_grad


def killed_at(step, settings, folder, things):
    def kill(line):
        if line["step"] == step:
            raise Killed

    with pytest.raises(Killed):
        train(settings, folder, on_step=kill, **things)


def test_a_run_in_memory_resumes_with_the_same_and_refuses_others(recipe, things, tmp_path):
    settings = recipe("kid", *IN_MEMORY, "train.save_every_steps=1")
    whole = train(settings, tmp_path / "whole", **things)
    killed_at(3, settings, tmp_path / "run", things)

    def another(role):
        changed = taken_from_memory(things[role], "float32")
        with torch.no_grad():
            next(changed.parameters())[5, 5] += 1e-3
        return changed

    tokenizer = load_tokenizer(things["tokenizer"].name_or_path)
    tokenizer.add_tokens(["neverseen"])
    others = {
        "student": things | {"student": another("student")},
        "teacher": things | {"teacher": another("teacher")},
        "training data": things | {"train_set": things["train_set"].take(9, 0)},
    }
    for what, given in others.items():
        with pytest.raises(RunError, match=f"begun with another {what}: memory:"):
            train(settings, tmp_path / "run", **given)
    with pytest.raises(RunError, match="begun with another student"):
        train(settings, tmp_path / "run", **things | {"tokenizer": tokenizer})
    with pytest.raises(RunError, match="begun with another student"):
        train(recipe("kid", "train.save_every_steps=1"), tmp_path / "run")

    seen = []
    resumed = train(settings, tmp_path / "run", on_step=lambda line: seen.append(line["step"]), **things)
    assert seen == [3, 4]
    assert_same_weights(whole, resumed)
    # a finished run is not taken for that of others either
    with pytest.raises(RunError, match="begun with another teacher"):
        train(settings, tmp_path / "run", **others["teacher"])


def test_the_run_says_what_it_was_made_from(recipe, things, tmp_path):
    settings = recipe("rkd", *IN_MEMORY, "train.steps=1")
    run = train(settings, tmp_path / "run", **things)
    environment = json.loads(run.environment.read_text())
    kept = load_recipe(run.recipe)
    for name, argument in (
        (kept.student.path, "student"),
        (kept.teacher.path, "teacher"),
        (kept.data.train, "train_set"),
    ):
        assert name == "memory:" + environment["in_memory"][argument]["sha256"][:16]
    assert environment["in_memory"]["teacher"]["is"] == "LlamaForCausalLM"
    assert environment["in_memory"]["teacher"]["sha256"] == model_fingerprint(things["teacher"])
    # it is asked as any run is
    assert len(predict(load_student(run.path), things["train_set"].take(2, 0))) == 2
    # and its own recipe trains it again, with the same things alone
    assert_same_weights(train(kept, tmp_path / "again", **things), run)
    with pytest.raises(ModelError, match="a different one"):
        train(kept, tmp_path / "other", **things | {"teacher": things["student"]})


def test_a_run_in_memory_is_not_run_by_its_recipes_path(recipe, things, tmp_path, commands):
    run = train(recipe("rkd", *IN_MEMORY, "train.steps=1"), tmp_path / "run", **things)
    result = commands.run("train", str(run.recipe), "--out", "new", cwd=tmp_path)
    assert result.returncode == 1
    assert "student of this run was in memory when it was made" in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", ["memory", "memory:0123456789abcdef"])
def test_names_of_what_was_in_memory_are_no_paths(name):
    with pytest.raises(ModelError, match="was in memory when it was made"):
        load_tokenizer(name)
    with pytest.raises(ModelError, match="was in memory when it was made"):
        load_model(name, "float32")
    with pytest.raises(DataError, match="was in memory when it was made"):
        load_benchmark(name)


def test_what_cannot_be_taken_from_memory_is_refused(recipe, things, tmp_path, tiny_models):
    settings = recipe("kid", *IN_MEMORY)
    with pytest.raises(ModelError, match="give both student and tokenizer"):
        train(settings, tmp_path / "run", student=things["student"])
    with pytest.raises(
        ModelError, match=r"data\.train = memory is not a path|student\.path = memory is not a path"
    ):
        train(settings, tmp_path / "run")
    with pytest.raises(RecipeError, match="leave them out, or give no teacher"):
        train(recipe("kid", *IN_MEMORY, "teacher.device_map=cpu"), tmp_path / "run", **things)
    adapted = add_lora(AutoModelForCausalLM.from_pretrained(tiny_models["student"]), rank=2, scale=2.0)
    with pytest.raises(ModelError, match="merge_and_unload"):
        train(settings, tmp_path / "run", **things | {"student": adapted})
    with pytest.raises(ModelError, match="give a causal LM"):
        train(settings, tmp_path / "run", **things | {"teacher": torch.nn.Linear(2, 2)})


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_model_from_memory_is_the_one_that_loading_gives(tiny_models, precision):
    model = AutoModelForCausalLM.from_pretrained(tiny_models["teacher"])
    taken = taken_from_memory(model, precision)
    loaded = load_model(tiny_models["teacher"], precision)
    assert_equal(dict(taken.named_parameters()), dict(loaded.named_parameters()))
    assert_equal(dict(taken.named_buffers()), dict(loaded.named_buffers()))
    shared = taken_from_memory(model, "float32", shares_weights=True)
    assert next(shared.parameters()).data_ptr() == next(model.parameters()).data_ptr()
    assert next(taken.parameters()).data_ptr() != next(model.parameters()).data_ptr()


def test_a_tokenizer_is_known_by_its_words_and_not_by_how_it_was_called(tiny_models):
    tokenizer = load_tokenizer(tiny_models["student"])
    known = tokenizer_fingerprint(tokenizer)
    tokenizer.pad_token = tokenizer.eos_token
    with_padding = tokenizer_fingerprint(tokenizer)
    tokenizer(["SELECT", "SELECT name"], padding=True, truncation=True, max_length=3)
    assert tokenizer_fingerprint(tokenizer) == with_padding
    assert tokenizer_fingerprint(load_tokenizer(tiny_models["teacher"])) == known, "the same words"
    tokenizer.add_tokens(["neverseen"])
    assert tokenizer_fingerprint(tokenizer) not in (known, with_padding)
