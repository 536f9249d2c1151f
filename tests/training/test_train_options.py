"""What a recipe can ask of training beyond the method: trackers, adapters, evaluation on the way, refusals."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, GPT2Config, HyperCLOVAXConfig

from distilsql.errors import ModelError, RunError
from distilsql.inference.loading import load_engines
from distilsql.inference.predict import load_any
from distilsql.models.layout_check import tree_is_exact
from distilsql.models.load import load_tokenizer
from distilsql.models.tiny import save_tiny_llama, train_tokenizer
from distilsql.training import setup
from distilsql.training.setup import load_training_engines
from distilsql.training.train import train
from run_folders import assert_same_weights, log_lines


def test_a_tracker_that_is_not_installed_is_named_with_the_extra(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr("distilsql.training.setup.get_available_trackers", list)
    with pytest.raises(RunError, match=r"pip install 'distilsql\[tensorboard\]'"):
        train(recipe("sft", "train.trackers=['tensorboard']"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_tensorboard_gets_the_numbers(recipe, tmp_path):
    run = train(recipe("sft", "train.trackers=['tensorboard']", "train.steps=2"), tmp_path / "run")
    events = list(run.path.rglob("events.out.tfevents.*"))
    assert events
    assert events[0].stat().st_size > 100


def test_evaluation_on_the_way_runs_the_sql_and_is_logged(recipe, world, tmp_path, caplog):
    settings = ("train.evaluate_every_steps=2", f"data.valid='{world / 'pairs.jsonl'}'", "data.valid_limit=4")
    caplog.set_level("INFO", "distilsql")
    run = train(recipe("sft", *settings), tmp_path / "run")
    accuracies = {line["step"]: line["valid_accuracy"] for line in log_lines(run) if "valid_accuracy" in line}
    assert set(accuracies) == {2, 4}
    assert all(0 <= accuracy <= 1 for accuracy in accuracies.values())
    assert "execution accuracy" in caplog.text
    seconds = json.loads(run.summary.read_text())["seconds_by_phase"]
    assert seconds["evaluation"] > 0


def test_layouts_are_compared_on_the_longest_questions_of_a_tree(recipe, tmp_path, monkeypatch):
    """Padded rows run the prefix for every question, which takes minutes where it is long."""
    compared, trees, few = [], [], setup._few

    def exact(model, tree, branches, *rest, **options):
        compared.append((tree, branches))
        return tree_is_exact(model, tree, branches, *rest, **options)

    monkeypatch.setattr(setup, "tree_is_exact", exact)
    monkeypatch.setattr(setup, "_few", lambda tree, golds: trees.append((tree, golds)) or few(tree, golds))
    train(recipe("kid", "train.steps=1", "train.questions_per_tree=8"), tmp_path / "run")
    assert len(compared) == 2, "student and teacher"
    for (whole, golds), (tree, branches) in zip(trees, compared, strict=True):
        assert tree.prefix == whole.prefix
        assert len(whole.questions) > len(tree.questions) == len(branches) == setup.COMPARED_QUESTIONS
        lengths = sorted(
            len(question) + len(gold) for question, gold in zip(whole.questions, golds, strict=True)
        )
        kept = sorted(len(tree.questions[each.question]) + len(each.tokens) for each in branches)
        assert kept == lengths[-setup.COMPARED_QUESTIONS :]
        assert len(branches[0].tokens) == min(len(each.tokens) for each in branches)


def test_a_teacher_with_its_adapter_is_another_teacher(recipe, tmp_path, tiny_models):
    lora = recipe(
        "sft",
        f"student.path='{tiny_models['teacher']}'",
        "student.tuning=lora",
        "student.save_merged=false",
        "train.steps=1",
    )
    adapter = train(lora, tmp_path / "adapter").model
    # What a step changes is small and the processor's own: an adapter of the same shapes changes every logit instead.
    file = adapter / "adapter_model.safetensors"
    draws = torch.Generator().manual_seed(0)
    save_file(
        {name: torch.randn(each.shape, generator=draws) for name, each in load_file(file).items()}, file
    )
    plain = train(recipe("rkd", "train.steps=1"), tmp_path / "plain")
    adapted = train(recipe("rkd", "train.steps=1", f"teacher.adapter='{adapter}'"), tmp_path / "adapted")
    first = [json.loads(run.log.read_text().splitlines()[0]) for run in (plain, adapted)]
    assert first[0]["negative_log_likelihood"] == pytest.approx(first[1]["negative_log_likelihood"])
    assert first[0]["divergence"] != pytest.approx(first[1]["divergence"], rel=0.01)


def test_a_student_of_fewer_layers_opens_in_transformers(recipe, tmp_path, tiny_models):
    settings = (f"student.path='{tiny_models['teacher']}'", "student.keep_layers=[0, 2]")
    run = train(recipe("rkd", *settings), tmp_path / "run")
    assert AutoModelForCausalLM.from_pretrained(run.model).config.num_hidden_layers == 2
    assert load_tokenizer(run.model).eos_token_id is not None


def test_a_teacher_of_another_tokenizer_or_without_one_is_refused(recipe, tmp_path):
    other = train_tokenizer(["quite other words, about boats and trains"] * 4, 300)
    save_tiny_llama(tmp_path / "other", other, hidden_size=16, layers=1, heads=2, seed=0)
    with pytest.raises(ModelError, match="one model family"):
        train(recipe("rkd", f"teacher.path='{tmp_path / 'other'}'"), tmp_path / "run")
    for file in (tmp_path / "other").glob("tokenizer*"):
        file.unlink()
    with pytest.raises(ModelError, match="comes without a tokenizer"):
        train(recipe("rkd", f"teacher.path='{tmp_path / 'other'}'"), tmp_path / "again")


def test_a_model_with_unexpected_logits_is_refused_wherever_it_is_loaded(recipe, tmp_path, tiny_models):
    """HyperCLOVAX multiplies by what Granite divides by."""
    tokenizer = load_tokenizer(tiny_models["student"])
    config = HyperCLOVAXConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        logits_scaling=3.0,
        eos_token_id=tokenizer.eos_token_id,
    )
    folder = tmp_path / "other"
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    for role in ("student", "teacher"):
        with pytest.raises(ModelError, match="HyperCLOVAX"):
            load_engines(recipe("rkd", f"{role}.path='{folder}'"), torch.device("cpu"))
    with pytest.raises(ModelError, match="HyperCLOVAX"):
        load_any(str(folder), recipe("sft").prompt, precision="float32")


def test_lengths_beyond_a_models_positions_are_refused_or_reported_before_it_runs(
    recipe, tmp_path, tiny_models, caplog
):
    """The budget of 400 and 32 tokens feeds a model at most 431, under SWITCH drafts of up to sixteen tokens more."""
    tokenizer = load_tokenizer(tiny_models["student"])
    sizes = {"vocab_size": len(tokenizer), "n_embd": 16, "n_layer": 1, "n_head": 2}
    for positions in (430, 431):
        model = AutoModelForCausalLM.from_config(GPT2Config(n_positions=positions, **sizes))
        model.save_pretrained(tmp_path / str(positions))
        tokenizer.save_pretrained(tmp_path / str(positions))
    short, enough = (f"'{tmp_path / name}'" for name in ("430", "431"))
    device, prompt = torch.device("cpu"), recipe("sft").prompt
    for overrides in ((f"student.path={short}",), (f"teacher.path={short}",)):
        with pytest.raises(ModelError, match="430 positions"):
            load_engines(recipe("rkd", *overrides), device)
    load_engines(recipe("rkd", f"student.path={enough}", f"teacher.path={enough}"), device)
    with pytest.raises(ModelError, match="take 446"):
        load_training_engines(recipe("switch", f"student.path={enough}"), device)
    load_training_engines(recipe("switch", f"student.path={enough}", "switch.block_length=1"), device)
    with pytest.raises(ModelError, match="430 positions"):
        load_any(str(tmp_path / "430"), prompt, precision="float32")
    longer = prompt.model_copy(update={"max_prompt_tokens": 1000})
    load_any(str(tiny_models["student"]), longer, precision="float32")
    load_engines(recipe("sft", "prompt.max_prompt_tokens=1000"), device)
    assert len(caplog.messages) == 2
    assert all("knows 1,024 positions" in sentence for sentence in caplog.messages)


def test_an_unknown_mask_token_is_refused(recipe, tmp_path):
    with pytest.raises(ModelError, match="not a token of the student's vocabulary"):
        train(recipe("kid", "distill.mask_token='<nope>'"), tmp_path / "run")


def test_recomputing_activations_changes_no_bit(recipe, tmp_path):
    plain = train(recipe("kid", "train.steps=2"), tmp_path / "plain")
    again = train(recipe("kid", "train.steps=2", "train.recompute_activations=true"), tmp_path / "again")
    assert_same_weights(plain, again)


def test_layers_that_attend_through_a_cache_are_not_recomputed(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr("distilsql.models.tree_model.default_attention", lambda causal_lm: "dense")
    with pytest.raises(ModelError, match="share_prefix = off"):
        train(recipe("kid", "train.recompute_activations=true"), tmp_path / "run")
