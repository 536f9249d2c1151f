"""minillm: weights against the paper's formulas, and the gradient of what is trained against autograd in float64."""

import itertools
import json
import math

import pytest
import torch

from distilsql.distill.policy_gradient import policy_gradient_weights
from distilsql.inference.loading import load_engines
from distilsql.models.generate import GenerationOptions, generate_trees, uniform_stream
from distilsql.models.generate_mixed import generate_mixed
from distilsql.training import rollout as rollout_module
from distilsql.training.train import train
from references import alone
from run_folders import step_lines


def weights_by_hand(p, q, drawn, normalise: bool, clip: float | None) -> list[tuple[float, float]]:
    """MiniLLM eqs. 5 to 7 for one completion, from log-probabilities of its tokens."""
    rewards = [a - b for a, b in zip(p, q, strict=True)]
    found = []
    for t in range(len(p)):
        w = math.exp(q[t] - drawn[t])
        after = rewards[t + 1 :]
        future = sum(after) / (len(after) if normalise else 1) if after else 0.0
        if clip is not None and ((future > 0 and w > 1 + clip) or (future < 0 and w < 1 - clip)):
            future = 0.0
        found.append((w, w * future))
    return found


@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("clip", [None, 0.2])
def test_weights_are_the_papers(normalise, clip):
    lengths = [4, 1, 0, 7]
    p, q, drawn = (-torch.rand(sum(lengths), dtype=torch.float64) * 3 for _ in range(3))
    found = policy_gradient_weights(p, q, drawn, lengths, normalise=normalise, clip=clip)
    expected, start = [], 0
    for length in lengths:
        parts = (each[start : start + length].tolist() for each in (p, q, drawn))
        expected += weights_by_hand(*parts, normalise, clip)
        start += length
    torch.testing.assert_close(
        found.divergence_N, torch.tensor([w for w, _ in expected], dtype=torch.float64)
    )
    torch.testing.assert_close(
        found.likelihood_N, torch.tensor([r for _, r in expected], dtype=torch.float64)
    )


def test_the_two_parts_make_up_the_gradient_of_the_sequences_reverse_kl():
    """Eq. 3 over all sequences of three tokens, each step's logits free for every prefix: without normalisation, and
    drawn from the student alone, the expectation is the gradient of KL(q‖p) over sequences, by autograd."""
    tokens, steps = 3, 3
    prefixes = [prefix for t in range(steps) for prefix in itertools.product(range(tokens), repeat=t)]
    logits = torch.randn(len(prefixes), tokens, dtype=torch.float64, requires_grad=True)
    q = dict(zip(prefixes, torch.log_softmax(logits, -1), strict=True))
    p = dict(zip(prefixes, torch.log_softmax(torch.randn(len(prefixes), tokens).double(), -1), strict=True))
    sequence_kl, surrogate = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for sequence in itertools.product(range(tokens), repeat=steps):
        before = [sequence[:t] for t in range(steps)]
        logq = torch.stack([q[prefix][token] for prefix, token in zip(before, sequence, strict=True)])
        logp = torch.stack([p[prefix][token] for prefix, token in zip(before, sequence, strict=True)])
        sequence_kl = sequence_kl + logq.sum().exp() * (logq - logp).sum()
        given = logq.detach()
        weights = policy_gradient_weights(logp, given, given, [steps], normalise=False)
        kl = torch.stack([(q[prefix].exp() * (q[prefix] - p[prefix])).sum() for prefix in before])
        parts = (weights.divergence_N * kl - weights.likelihood_N * logq).sum()
        surrogate = surrogate + given.sum().exp() * parts
    (expected,) = torch.autograd.grad(sequence_kl, logits, retain_graph=True)
    (found,) = torch.autograd.grad(surrogate, logits)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("share", "writer"), [(0.0, "student"), pytest.param(1.0, "teacher", marks=pytest.mark.slow)]
)
def test_at_the_ends_one_model_writes_alone(recipe, share, writer):
    settings = recipe("minillm")
    engines = load_engines(settings, torch.device("cpu"))
    for model in (engines.student, engines.teacher):
        model.model.double()
    prepared = alone(settings).prepared
    tree = prepared.tree(prepared.examples[:3])
    options = GenerationOptions(engines.eos_token_id, engines.vocabulary_size, 12, temperature=1.0)
    streams = lambda: [[uniform_stream(7, number) for number in range(3)]]  # noqa: E731
    (mixed,) = generate_mixed(engines.student, engines.teacher, [tree], options, share, streams=streams())
    (own,) = generate_trees(getattr(engines, writer), [tree], options, streams=streams())
    assert [one.tokens for one in mixed] == own
    for layout in ("student", "teacher"):
        getattr(engines, layout).layout = "padded"
        (padded,) = generate_mixed(
            engines.student, engines.teacher, [tree], options, share, streams=streams()
        )
        assert [one.tokens for one in padded] == own


def test_the_gradient_is_that_of_equation_7(recipe, tmp_path, monkeypatch):
    """Every completion alone, in float64: what each token was drawn with, the loss that is logged, and the gradient."""
    seen = {}
    window = rollout_module.Rollout.window

    def recorded(self, step):
        ready = window(self, step)
        for item, trained in zip(ready.items, ready.trained, strict=True):
            for example, tokens, logps in zip(item.examples, trained.completions, trained.logps, strict=True):
                seen[example.example.example_id] = (tokens, logps)
        return ready

    monkeypatch.setattr(rollout_module.Rollout, "window", recorded)
    keys = (
        "train.steps=1",
        "train.trees_per_step=4",
        "train.learning_rate=1e-30",
        "minillm.teacher_share=0.4",
    )
    settings = recipe("minillm", *keys)
    (line,) = step_lines(train(settings, tmp_path / "run"))
    models = alone(settings)
    student = models.engines.student.causal_lm
    logged, surrogate = 0.0, torch.zeros((), dtype=torch.float64)
    for example in models.prepared.examples:
        tokens, drawn = seen[example.example.example_id]
        prompt = models.prepared.prefixes[example.prefix_key] + example.question
        with models.engines.student.own_attention():
            logits = student(torch.tensor([prompt + tokens])).logits[0, len(prompt) - 1 : -1]
        logq = torch.log_softmax(logits[:, : models.engines.vocabulary_size], -1)
        logp = models.log_probs("teacher", example, tokens)
        at = torch.arange(len(tokens)), torch.tensor(tokens)
        mixture = (0.4 * logp.exp() + 0.6 * logq.detach().exp())[at].log()
        torch.testing.assert_close(torch.tensor(drawn).double(), mixture, atol=1e-4, rtol=1e-4)
        weights = weights_by_hand(
            logp[at].tolist(), logq[at].tolist(), mixture.tolist(), normalise=True, clip=0.2
        )
        w, rewarded = (torch.tensor(each, dtype=torch.float64) for each in zip(*weights, strict=True))
        kl = (logq.exp() * (logq - logp)).sum(-1)
        logged += (w * kl).mean().item() / 10
        surrogate = surrogate + (w * kl - rewarded * logq[at]).mean() / 10
    parameters = [each for each in student.parameters() if each.requires_grad]
    gradients = torch.autograd.grad(surrogate, parameters)
    norm = torch.stack([gradient.norm() for gradient in gradients]).norm().item()
    assert line["loss"] == pytest.approx(logged, rel=1e-3)
    assert line["gradient_norm"] == pytest.approx(norm, rel=1e-3)
    assert line["negative_log_likelihood"] is None, "rewards are no likelihood"


@pytest.mark.slow
def test_weights_follow_the_student_in_later_steps_of_a_round(recipe, tmp_path):
    """Replay: w is that of the student as it stands, and what a token was drawn with goes through checkpoints."""
    settings = recipe("minillm", "generation.rollout_window=4", "minillm.teacher_share=0")
    run = train(settings, tmp_path / "run")

    weight = json.loads(run.summary.read_text())["importance_weight"]
    assert weight != pytest.approx(1.0, abs=1e-6)
    once = train(recipe("minillm", "minillm.teacher_share=0"), tmp_path / "once")
    assert json.loads(once.summary.read_text())["importance_weight"] == pytest.approx(1.0, abs=1e-4)
