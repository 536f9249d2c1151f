"""The programs of bench/peers: what they compute, what they train on, and that the tables say so."""

from importlib.util import find_spec

import pytest
import torch

from exactness import COMPARED, OPTIONS, random_model, random_rows, step_of
from peers import PEERS, distils, make_step
from peers.contender import Models, Options, Row, groups_of
from performance import step_time, time_to_accuracy

LIBRARIES = {"prefix-grouper": "prefix_grouper"} | {name: "trl" for name in PEERS if name.startswith("trl-")}
# Other people's libraries warn of other people's libraries.
pytestmark = pytest.mark.filterwarnings("ignore")


def needs_library(name: str) -> None:
    library = LIBRARIES.get(name)
    if library and find_spec(library) is None:
        pytest.skip(f"{library} is not installed: pip install '.[bench]'")


def slowly(*names: str) -> list:
    return [pytest.param(name, marks=pytest.mark.slow) for name in names]


def models(name: str, kind: str = "Llama") -> tuple[Models, list[Row]]:
    tokenizer, rows = random_rows()
    return Models(random_model(kind), random_model(kind) if distils(name) else None, tokenizer), rows


@pytest.mark.parametrize("kind", ["Llama", pytest.param("Qwen2", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] if name.startswith("trl") else []) for name in COMPARED],
)
def test_every_program_has_the_gradient_of_the_padded_loop(name, kind):
    needs_library(name)
    reference, gradients = step_of("hf-loop", *models("hf-loop", kind))
    done, others = step_of(name, *models(name, kind))
    assert done.loss == pytest.approx(reference.loss, abs=1e-5)
    assert (done.rows, done.trained_tokens) == (reference.rows, reference.trained_tokens)
    for key, gradient in gradients.items():
        torch.testing.assert_close(others[key], gradient, atol=1e-5, rtol=1e-4)


def test_the_loop_trains_on_the_completions_alone():
    given, rows = models("hf-loop")
    done, gradients = step_of("hf-loop", given, rows)
    other = random_model("Llama")
    loss = torch.zeros(())
    for row in rows:
        ids = torch.tensor([[*row.prompt, *row.completion]])
        logp = other(input_ids=ids).logits[0, :-1].log_softmax(-1)
        predicted = logp[torch.arange(len(ids[0]) - 1), ids[0, 1:]][len(row.prompt) - 1 :]
        loss = loss - predicted.sum()
    count = sum(len(row.completion) for row in rows)
    (loss / count).backward()
    assert done.trained_tokens == count
    assert done.loss == pytest.approx(float(loss.detach()) / count, abs=1e-5)
    for key, parameter in other.named_parameters():
        torch.testing.assert_close(gradients[key], parameter.grad, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["sft", *slowly("hf-loop", "prefix-grouper", "trl-sft", "trl-sft-packed")])
def test_a_step_moves_the_weights_and_the_next_one_goes_on_from_there(name):
    needs_library(name)
    given, rows = models(name)
    step = make_step(name, given, Options(learning_rate=1e-3))
    losses = [step(rows).loss for _ in range(4)]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("name", ["gkd-rkl", *slowly("trl-gkd", "trl-distillation")])
def test_programs_that_sample_train_on_every_example(name):
    needs_library(name)
    given, rows = models(name)
    step = make_step(name, given, OPTIONS)
    for count in (4, 16):  # a small step does not leave anything for the next one
        done = step(rows[:count])
        assert done.rows == count
        assert count <= done.trained_tokens <= count * OPTIONS.max_new_tokens


@pytest.mark.slow
def test_a_plain_sampler_makes_trl_train_on_one_micro_batch():
    needs_library("trl-distillation-plain-sampler")
    given, rows = models("trl-distillation-plain-sampler")
    done = make_step("trl-distillation-plain-sampler", given, OPTIONS)(rows)
    assert (done.rows, len(rows)) == (OPTIONS.micro_batch, 16)


def test_positions_of_a_shared_prefix_are_counted_once():
    given, rows = models("sft")
    suffixes = sum(len(row.question) + len(row.completion) - 1 for row in rows)
    assert step_of("sft", given, rows)[0].positions == 120 + 37 + suffixes
    done, _ = step_of("sft-padded", *models("sft-padded"))
    assert done.positions >= suffixes + 8 * (120 + 37)


def test_groups_are_neighbours_with_one_prefix():
    rows = [
        Row((1, 2, 3), (9,), 2),
        Row((1, 2, 4), (9,), 2),
        Row((1, 3, 4), (9,), 2),
        Row((1, 2, 3), (9,), 2),
    ]
    assert [len(group) for group in groups_of(rows)] == [2, 1, 1]


def test_a_table_marks_who_trains_on_less():
    def row(contender: str, examples: int) -> dict:
        trained = {"examples": examples, "tokens": 40 * examples, "positions": 900}
        return {
            "contender": contender,
            "k": 16,
            "window": 0,
            "seconds": 4.0,
            "first_visit_seconds": 5.0,
            "peak_bytes": 2**30,
            "examples": 16,
            "trained": trained,
        }

    table = step_time({"rows": [row("trl-sft", 16), row("trl-distillation", 4)]}).splitlines()
    assert "trains on less" not in table[2]
    assert "trains on less: 4 of 16 examples" in table[3]


def test_an_accuracy_is_reached_where_three_evaluations_are_as_good():
    def curve(*accuracies: float) -> list[dict[str, float]]:
        return [
            {"step": 10 * n, "seconds": 100.0 * n, "accuracy": one}
            for n, one in enumerate(accuracies, start=1)
        ]

    theirs = curve(0.2, 0.5, 0.5, 0.5)
    ours = curve(0.9, 0.2, 0.3, 0.6, 0.6, 0.6)  # a lucky first one does not reach anything
    late = curve(0.2, 0.2, 0.2, 0.2)
    curves = {"trl-sft": {"0": theirs}, "kid": {"0": ours}, "rkd": {"0": late}}
    lines = [line.split("|") for line in time_to_accuracy({"curves": curves}).splitlines()]
    cells = {line[1].strip(): [cell.strip() for cell in line[2:-1]] for line in lines}
    assert cells["kid"][3:] == ["1 of 1", "500", "1.25"]
    assert cells["rkd"][3:] == ["0 of 1", "", ""]
