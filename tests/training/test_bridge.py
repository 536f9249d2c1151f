"""A teacher with another vocabulary: exact where the tokenizers agree, elsewhere as computed from whole sequences."""

import json
from itertools import pairwise, product

import numpy as np
import pytest
import torch

from distilsql.distill.divergences import DIVERGENCES
from distilsql.errors import ModelError, RecipeError
from distilsql.models.tiny import save_tiny_llama, train_tokenizer
from distilsql.runs.method_sections import READS_TOKENS
from distilsql.training.train import train
from references import alone
from run_folders import losses, step_lines, whole_and_resumed

STILL = "train.learning_rate=1e-30"


@pytest.fixture(scope="session")
def other_teacher(tmp_path_factory):
    """A random Llama whose tokenizer was trained on other words and ends a text with another EOS."""
    folder = tmp_path_factory.mktemp("other") / "teacher"
    tokenizer = train_tokenizer(["SELECT name , age", "WHERE country = France", "singer singers oldest"], 290)
    tokenizer.eos_token = tokenizer.pad_token
    save_tiny_llama(folder, tokenizer, hidden_size=48, layers=2, heads=4, seed=3)
    return folder


@pytest.fixture
def bridged(recipe, other_teacher):
    def make(method: str, bridge: str, *overrides: str):
        return recipe(method, f"teacher.path={other_teacher}", f"teacher.bridge={bridge}", *overrides)

    return make


@pytest.mark.parametrize(
    "method", ["kid", *(pytest.param(name, marks=pytest.mark.slow) for name in ("rkd", "akl", "gkd-jsd"))]
)
def test_the_same_tokenizer_on_both_sides_is_no_bridge(recipe, tmp_path, method):
    ordinary = train(recipe(method, "train.steps=2", STILL), tmp_path / "ordinary")
    crossed = train(recipe(method, "train.steps=2", STILL, "teacher.bridge=hybrid"), tmp_path / "crossed")
    for one, other in zip(step_lines(ordinary), step_lines(crossed), strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-5)
        assert one["divergence"] == pytest.approx(other["divergence"], rel=1e-4)
        assert one["gradient_norm"] == pytest.approx(other["gradient_norm"], rel=1e-3)


@pytest.mark.parametrize("bridge", ["uld", "hybrid"])
def test_the_loss_is_that_of_whole_sequences(bridged, tmp_path, bridge):
    """Every example alone through the stock forward, in float64; spans found by comparing all beginnings of a text."""
    settings = bridged(
        "rkd", bridge, "train.steps=1", "train.trees_per_step=4", STILL, "distill.gold_weight=0"
    )
    run = train(settings, tmp_path / "run")
    (line,) = step_lines(run)
    models = alone(settings)
    teacher_tokenizer = models.engines.teacher_tokenizer
    student_tokenizer, expected = models.engines.tokenizer, []
    common = [
        (mine, teacher_tokenizer.get_vocab()[piece])
        for piece, mine in student_tokenizer.get_vocab().items()
        if piece in teacher_tokenizer.get_vocab() and piece not in ("<eos>", "<pad>")
    ]
    common.append((student_tokenizer.eos_token_id, teacher_tokenizer.eos_token_id))
    merged = 0
    for example in models.prepared.examples:
        parts = models.prepared.prefixes[example.prefix_key], example.question
        prompt = [
            token for part in parts for token in teacher_tokenizer(student_tokenizer.decode(part)).input_ids
        ]
        gold = example.gold[:-1]
        theirs = tuple(teacher_tokenizer(student_tokenizer.decode(gold)).input_ids)
        q = models.log_probs("student", example, example.gold).exp().numpy()
        p = probabilities(models.engines.teacher, prompt, theirs)
        spans = spans_by_hand(student_tokenizer, gold, teacher_tokenizer, theirs)
        merged += sum(b - a > 1 or d - c > 1 for a, b, c, d in spans)
        values = []
        for a, b, c, d in [*spans, (len(gold), len(gold) + 1, len(theirs), len(theirs) + 1)]:
            mine = q[a] * np.prod([q[t, gold[t]] for t in range(a + 1, b)])
            other = p[c] * np.prod([p[t, theirs[t]] for t in range(c + 1, d)])
            values.append(value_by_hand(bridge, other, mine, common))
        expected.append(sum(values) / len(values))
    assert merged > 10
    assert line["loss"] == pytest.approx(sum(expected) / len(expected), rel=1e-4)
    counts = json.loads(run.summary.read_text())["counts"]
    assert counts["merged_spans"] == merged
    assert counts["tokens_in_no_span"] == 0


def probabilities(teacher, prompt, completion):
    with torch.no_grad(), teacher.own_attention():
        logits = teacher.causal_lm(torch.tensor([[*prompt, *completion]])).logits[0, len(prompt) - 1 :]
    return torch.softmax(logits, -1).numpy()


def spans_by_hand(mine, own, theirs, others):
    def beginnings(tokenizer, tokens):
        return {len(tokenizer.decode(tokens[:n])): n for n in range(len(tokens) + 1)}

    one, other = beginnings(mine, own), beginnings(theirs, others)
    cuts = sorted(set(one) & set(other))
    return [(one[a], one[b], other[a], other[b]) for a, b in pairwise(cuts)]


def value_by_hand(bridge, p, q, common):
    def distance(p, q):
        size = max(len(p), len(q))
        pad = lambda values: np.pad(np.sort(values)[::-1], (0, size - len(values)))  # noqa: E731
        return np.abs(pad(p) - pad(q)).sum()

    if bridge == "uld":
        return distance(p, q)
    mine, theirs = ([pair[side] for pair in common] for side in (0, 1))
    one, other = np.append(q[mine], 1 - q[mine].sum()), np.append(p[theirs], 1 - p[theirs].sum())
    return float((one * np.log(one / other)).sum()) + distance(np.delete(p, theirs), np.delete(q, mine))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "bridge"),
    [
        *product(("fkd", "akl", "kid", "imitkd", "distillm"), ("uld", "hybrid")),
        *[("gkd-jsd", "hybrid"), ("seqkd", "hybrid"), ("f-distill", "uld"), ("atkd", "uld")],
    ],
)
def test_methods_train_and_resume_to_the_same_bits(bridged, tmp_path, method, bridge):
    settings = bridged(
        method, bridge, "train.steps=4", "train.save_every_steps=2", "generation.teacher_beams=1"
    )
    whole, resumed = whole_and_resumed(settings, tmp_path, killed_at=3)
    assert losses(resumed) == losses(whole)
    assert all(line["loss"] >= 0 and line["gradient_norm"] > 0 for line in step_lines(whole))


def test_what_the_teacher_writes_comes_as_the_students_tokens(bridged, tmp_path):
    run = train(bridged("seqkd", "hybrid", "train.steps=1", "generation.teacher_beams=1"), tmp_path / "run")
    models = alone(bridged("seqkd", "hybrid"))
    records = [json.loads(line) for line in run.teacher_completions.read_text().splitlines()]
    for record in records:
        written = record["tokens"]
        assert len(written) <= 40
        assert max(written) < len(models.engines.tokenizer)
        if not {"<", "\ufffd"} & set(record["text"]):  # no special token, no broken character
            expected = models.engines.tokenizer(record["text"]).input_ids[:40]
            assert written[: len(expected)] == expected


@pytest.mark.slow
def test_states_on_disk_are_those_of_the_teachers_own_tokens(bridged, tmp_path):
    found = []
    for kept in ("on", "off"):
        settings = bridged("rkd", "hybrid", "train.steps=3", STILL, f"train.teacher_hidden={kept}")
        run = train(settings, tmp_path / kept)
        found.append(losses(run))
    counts = json.loads((tmp_path / "on" / "summary.json").read_text())["counts"]
    assert counts["teacher_hidden_computed"] == 10
    assert found[0] == pytest.approx(found[1], rel=1e-5)


def test_another_tokenizer_is_refused_and_the_key_is_named(recipe, other_teacher, tmp_path):
    with pytest.raises(ModelError, match=r"one model family, bridge the vocabularies \(teacher\.bridge"):
        train(recipe("rkd", f"teacher.path={other_teacher}"), tmp_path / "run")


@pytest.mark.parametrize("method", ["switch", "minillm"])
def test_methods_that_mix_both_models_token_by_token_are_refused(recipe, method):
    with pytest.raises(RecipeError, match="same next token"):
        recipe(method, "teacher.bridge=hybrid")


def test_what_else_a_bridge_cannot_do_is_refused(recipe):
    with pytest.raises(RecipeError, match="mask tokens"):
        recipe("kid-mask-only", "teacher.bridge=hybrid")
    for method in ("atkd", "distillm-2"):
        with pytest.raises(RecipeError, match=r"own token.*bridge = uld"):
            recipe(method, "teacher.bridge=hybrid")
    with pytest.raises(RecipeError, match=r"takes the place.*hybrid"):
        recipe("rkd", "teacher.bridge=uld", "distill.divergence=forward-kl")


def test_the_recipes_list_of_divergences_that_read_tokens_is_the_codes():
    assert {name for name, divergence in DIVERGENCES.items() if divergence.reads_positions} == READS_TOKENS
