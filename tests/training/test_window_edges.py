"""Completions as no dataset has them: without EOS, nothing but EOS, no SQL, nothing at all.

None may stop a run, and none may shift the loss of a window: it is the mean that its reduction names, over the
completions as they were written.
"""

from itertools import product

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distilsql.distill.divergences import reverse_kl
from distilsql.inference.loading import load_engines
from distilsql.inference.prepare import load_data, prepare
from distilsql.models.tree import as_branches
from distilsql.training.ledger import Ledger
from distilsql.training.sampling import TreeOfExamples
from distilsql.training.sources import writing
from distilsql.training.train import train
from distilsql.training.window import Denominators, Trained, WindowTrainer
from distilsql.training.window_tree import as_window_trees
from run_folders import step_lines

REDUCTIONS = ["per_completion", "per_token"]


def always(monkeypatch, make_completion) -> None:
    """Every completion is `make_completion(eos, max_new_tokens)`, whatever the model says."""

    def generate_trees(model, trees, options, *, streams=None, prefixes=None):
        written = make_completion(options.eos_token_id, options.max_new_tokens)
        return [[written] * len(tree.questions) for tree in trees]

    monkeypatch.setattr(writing, "generate_trees", generate_trees)


ODD_STUDENTS = {
    "never ends": lambda eos, longest: tuple(10 + position % 7 for position in range(longest)),
    "ends at once": lambda eos, longest: (eos,),
    "writes no SQL": lambda eos, longest: (11, 11, 11, eos),
    "writes nothing": lambda eos, longest: (),
}


def odd_cases():
    """Of every student one method, and of what is written nothing both reductions; the others are slow."""
    for method, student, reduction in product(("gkd-rkl", "imitkd", "f-distill"), ODD_STUDENTS, REDUCTIONS):
        is_fast = method == "gkd-rkl" and (reduction == "per_completion" or student == "writes nothing")
        is_fast |= (method, student, reduction) == ("f-distill", "writes nothing", "per_token")
        yield pytest.param(method, student, reduction, marks=[] if is_fast else pytest.mark.slow)


@pytest.mark.parametrize(("method", "student", "reduction"), list(odd_cases()))
def test_an_odd_student_stops_nothing(recipe, tmp_path, monkeypatch, method, student, reduction):
    always(monkeypatch, ODD_STUDENTS[student])
    keys = ("train.steps=2", f"distill.reduction={reduction}", "train.calibration_windows=1")
    run = train(recipe(method, *keys), tmp_path / "run")
    for line in step_lines(run):
        written_nothing = student == "writes nothing" and method != "imitkd"
        assert (line["loss"] == 0) if written_nothing else (line["loss"] > 0)
        assert line["gradient_norm"] < float("inf")


def test_under_switch_too_a_model_that_never_ends_or_ends_at_once_trains(recipe, tmp_path, monkeypatch):
    """The tokens are forced at the one place where both models' tokens are chosen."""
    from distilsql.training.sources import switch_engine as switch

    for name, token in (("never", 12), ("at once", load_eos(recipe))):
        monkeypatch.setattr(
            switch, "choose_tokens", lambda logp_BV, *rest, token=token: torch.full(logp_BV.shape[:1], token)
        )
        run = train(recipe("switch", "train.steps=2"), tmp_path / name)
        assert all(line["loss"] > 0 for line in step_lines(run))


def load_eos(recipe) -> int:
    return load_engines(recipe("switch"), torch.device("cpu")).eos_token_id


# ---- the denominator -----------------------------------------------------------------------------------------

TOKEN = st.integers(5, 300)
COMPLETION = st.lists(TOKEN, max_size=6).map(tuple)


@pytest.fixture(params=REDUCTIONS)
def trainer(request, recipe):
    """A trainer, and the ten examples of the tiny world as trees of 4, 3 and 3."""
    options = recipe("gkd-rkl", f"distill.reduction={request.param}")
    engines = load_engines(options, torch.device("cpu"))
    prepared = prepare(load_data(options)[0], engines.tokenizer, options.prompt, training=True)
    trees = [TreeOfExamples(numbers, 0) for numbers in ((0, 1, 2, 3), (4, 5, 6), (7, 8, 9))]
    return WindowTrainer(options, engines, Ledger()), as_window_trees(prepared, trees)


def divergences(trainer, item, completions) -> list[torch.Tensor]:
    """Reverse KL at every position of each completion, each run as a sequence of its own."""
    engines, values = trainer.engines, []
    for branch in as_branches(completions):
        if not branch.tokens:
            values.append(torch.zeros(0))
            continue
        sides = [
            model.head().log_probs(model.completion_hidden(item.tree, [branch]), engines.vocabulary_size)
            for model in (engines.teacher, engines.student)
        ]
        values.append(reverse_kl(*sides).detach())
    return values


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(written=st.lists(COMPLETION, min_size=10, max_size=10))
def test_the_loss_is_the_mean_over_what_was_written(trainer, written):
    windows, items = trainer
    trained = [Trained(written[:4]), Trained(written[4:7]), Trained(written[7:])]
    loss = windows.accumulate(items, trained, windows.denominators(items, trained))
    values = [
        value
        for item, each in zip(items, trained, strict=True)
        for value in divergences(windows, item, each.completions)
        if len(value)
    ]
    if not values:
        expected = 0.0
    elif windows.recipe.distill.reduction == "per_token":
        expected = float(torch.cat(values).mean())
    else:
        expected = float(torch.stack([value.mean() for value in values]).mean())
    assert loss.total == pytest.approx(expected, rel=2e-3, abs=1e-6)
    assert loss.finite
    assert loss.examples == 10


def test_completions_cut_off_at_the_limit_weigh_as_their_reduction_says(trainer):
    """Nine completions of one token and one of forty: per completion it is a tenth of the loss, per token 40/49."""
    windows, items = trainer
    eos = windows.engines.eos_token_id
    longest = tuple(10 + position % 7 for position in range(40))
    trained = [Trained([longest, (eos,), (eos,), (eos,)]), Trained([(eos,)] * 3), Trained([(eos,)] * 3)]
    share = 1 / 10 if windows.recipe.distill.reduction == "per_completion" else 40 / 49
    whole = windows.denominators(items, trained)
    assert whole == Denominators(10 if share == 1 / 10 else 49, whole.gold)
    loss = windows.accumulate(items, trained, whole).total
    per_position = [float(value.mean()) for value in divergences(windows, items[0], [longest])]
    others = [
        float(value.mean())
        for item, each in zip(items, trained, strict=True)
        for value, tokens in zip(divergences(windows, item, each.completions), each.completions, strict=True)
        if tokens == (eos,)
    ]
    assert loss == pytest.approx(share * per_position[0] + (1 - share) * sum(others) / 9, rel=2e-3)


def test_how_a_window_is_cut_into_trees_and_processes_does_not_shift_its_loss(trainer):
    windows, items = trainer
    written = [(11,) * (1 + 3 * row % 7) for row in range(9)] + [()]
    trained = [Trained(written[:4]), Trained(written[4:7]), Trained(written[7:])]
    whole = windows.denominators(items, trained)
    together = windows.accumulate(items, trained, whole).total
    apart = [windows.denominators([item], [each]).trained for item, each in zip(items, trained, strict=True)]
    assert sum(apart) == whole.trained
    alone = [
        windows.accumulate([item], [each], whole).total for item, each in zip(items, trained, strict=True)
    ]
    assert sum(alone) == pytest.approx(together, rel=1e-5)
