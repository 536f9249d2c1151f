"""The teacher's cached hidden states: what is on disk changes the cost of a run, never what it learns."""

import json
import shutil
import subprocess
import sys
from itertools import product

import pytest
import torch
from safetensors.torch import load, load_file

from distilsql.errors import RunError
from distilsql.inference.loading import load_engines
from distilsql.inference.prepare import load_data, prepare
from distilsql.models.tree_model import TreeModel
from distilsql.runs.folder import RunFolder
from distilsql.training.calibration import Calibration
from distilsql.training.ledger import Ledger
from distilsql.training.teacher_states import store as hidden_store
from distilsql.training.teacher_states.states import open_teacher_hidden
from distilsql.training.train import train
from distilsql.training.window import Denominators, WindowTrainer
from distilsql.training.window_tree import WindowTree
from run_folders import Killed, assert_equal, log_lines, train_killed_at, weights

EPOCH_STEPS = 2  # ten examples: 6 + 4
TWO_EPOCHS = f"train.steps={2 * EPOCH_STEPS}"
EXAMPLES = 10
FAST = {("fkd", "tree", "float32"), ("rkd", "padded", "bfloat16")}


def said(caplog) -> list[str]:
    """Our own sentences: libraries log, too."""
    return [record.getMessage() for record in caplog.records if record.name.startswith("distilsql")]


class Bench:
    """A recipe's engines and examples, and windows of chosen examples on them."""

    hidden = None

    def __init__(self, recipe) -> None:
        self.recipe, self.ledger = recipe, Ledger()
        self.engines = load_engines(recipe, torch.device("cpu"))
        self.prepared = prepare(load_data(recipe)[0], self.engines.tokenizer, recipe.prompt, training=True)

    def open(self, **options):
        self.hidden = open_teacher_hidden(
            self.recipe,
            self.engines.teacher,
            self.engines.teacher_prefixes,
            self.prepared,
            is_longer_than_an_epoch=self.recipe.train.steps > EPOCH_STEPS,
            ledger=self.ledger,
            **options,
        )
        return self.hidden

    def gradients(self, numbers) -> tuple[float, dict[str, torch.Tensor]]:
        """The loss of one window of these examples and all gradients of the student."""
        examples = tuple(self.prepared.examples[number] for number in numbers)
        item = WindowTree(examples[0].prefix_key, self.prepared.tree(examples), examples, tuple(numbers), 0)
        trainer = WindowTrainer(self.recipe, self.engines, self.ledger)
        trainer.teacher.kept = self.hidden
        trained = trainer.source.write([item])
        own = trainer.denominators([item], trained)
        self.engines.student.model.zero_grad()
        loss = trainer.accumulate([item], trained, Denominators(own.trained, own.gold))
        named = self.engines.student.model.named_parameters()
        return loss.total, {name: parameter.grad.clone() for name, parameter in named}


def entries(folder) -> list:
    return sorted(folder.rglob("*.safetensors"))


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache" / "distilsql" / "teacher-hidden"


def counts(run) -> dict[str, float]:
    counts = json.loads(run.summary.read_text())["counts"]
    return {name: count for name, count in counts.items() if name.startswith("teacher_")}


# ---- equal ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "layout", "precision"),
    [
        pytest.param(*case, marks=[] if case in FAST else pytest.mark.slow)
        for case in product(("fkd", "rkd"), ("tree", "padded"), ("float32", "bfloat16"))
    ],
)
def test_loss_and_gradients_are_those_of_the_teacher_to_the_bit(recipe, folder, method, layout, precision):
    """A window of the very tree that an entry holds: cold, warm and without the cache."""
    bench = Bench(recipe(method, TWO_EPOCHS, f"train.precision={precision}"))
    bench.engines.teacher.layout = layout
    numbers = [3, 4, 5]  # the second tree of three
    loss, gradients = bench.gradients(numbers)
    for expected_hits in (3, 6):
        assert bench.open() is not None
        cached_loss, cached = bench.gradients(numbers)
        assert cached_loss == loss
        assert_equal(cached, gradients)
        assert bench.ledger.counts["teacher_hidden_hits"] == expected_hits
    assert bench.ledger.counts["teacher_hidden_computed"] == EXAMPLES


def test_examples_of_other_trees_in_another_order_get_their_own_states(recipe):
    bench = Bench(recipe("rkd", TWO_EPOCHS))
    numbers = [8, 1, 9, 4]
    loss, gradients = bench.gradients(numbers)
    bench.open()
    cached_loss, cached = bench.gradients(numbers)
    assert cached_loss == pytest.approx(loss, rel=1e-5)
    for name, gradient in gradients.items():
        torch.testing.assert_close(cached[name], gradient, rtol=1e-4, atol=1e-6)


def test_with_all_states_there_the_teacher_does_not_run(recipe, monkeypatch, caplog):
    caplog.set_level("INFO", "distilsql")
    bench = Bench(recipe("fkd", TWO_EPOCHS))
    bench.open()
    teacher, real = bench.engines.teacher, TreeModel._run

    def only_the_student(model, *args):
        assert model is not teacher
        return real(model, *args)

    monkeypatch.setattr(TreeModel, "_run", only_the_student)
    assert bench.open() is not None
    bench.gradients([0, 1, 2, 3])
    assert "the teacher need not run" in said(caplog)[-1]


# ---- what is on disk never changes what is learned -----------------------------------------------------------


@pytest.mark.parametrize("precision", ["float32", pytest.param("bfloat16", marks=pytest.mark.slow)])
def test_cold_warm_and_damaged_runs_end_with_the_same_bits(recipe, tmp_path, folder, precision, caplog):
    settings = recipe("rkd", TWO_EPOCHS, f"train.precision={precision}")
    cold = train(settings, tmp_path / "cold")
    assert counts(cold) == {"teacher_hidden_computed": EXAMPLES, "teacher_hidden_hits": 2 * EXAMPLES}
    warm = train(settings, tmp_path / "warm")
    assert counts(warm)["teacher_hidden_hits"] == 2 * EXAMPLES
    assert "teacher_hidden_computed" not in counts(warm)
    missing, flipped, *_ = entries(folder)
    missing.unlink()
    content = flipped.read_bytes()
    flipped.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    damaged = train(settings, tmp_path / "damaged")
    assert "checksum" in caplog.text
    assert counts(damaged)["teacher_hidden_computed"] > 0
    assert_equal(load(content), load_file(flipped))
    for run in (warm, damaged):
        assert_equal(weights(cold), weights(run))


def test_entries_that_vanish_during_training_are_computed_again_to_the_same_bits(recipe, tmp_path, folder):
    settings = recipe("fkd", TWO_EPOCHS)
    whole = train(settings, tmp_path / "whole")
    kept: list[int] = []

    def remove_all(line) -> None:
        if line["step"] == 2:
            kept.append(len(entries(folder)))
            shutil.rmtree(folder)

    bereft = train(settings, tmp_path / "bereft", on_step=remove_all)
    assert kept == [4]
    assert_equal(weights(whole), weights(bereft))
    assert counts(bereft)["teacher_hidden_computed"] == EXAMPLES
    assert len(entries(folder)) == 4


@pytest.mark.slow
def test_a_run_killed_while_filling_and_while_training_resumes_to_the_same_bits(
    recipe, tmp_path, folder, monkeypatch
):
    settings = recipe("rkd", "train.steps=6", "train.save_every_steps=2", "train.precision=bfloat16")
    whole = train(settings, tmp_path / "whole")
    shutil.rmtree(folder)
    real, written = hidden_store.write_bytes, []

    def kill_at_third(path, content, **options) -> None:
        written.append(path)
        if len(written) == 3:  # manifest, one entry, and half of the next
            path.parent.mkdir(parents=True, exist_ok=True)
            path.with_name(f"{path.name}.0.part").write_bytes(content[:50])
            raise Killed
        real(path, content, **options)

    monkeypatch.setattr(hidden_store, "write_bytes", kill_at_third)
    with pytest.raises(Killed):
        train(settings, tmp_path / "killed")
    assert len(entries(folder)) == 1
    monkeypatch.setattr(hidden_store, "write_bytes", real)

    train_killed_at(5, settings, tmp_path / "killed")
    assert_equal(weights(whole), weights(train(settings, tmp_path / "killed")))


# ---- keys ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "entries_missing"),
    [
        (("train.precision=bfloat16",), 4),  # another identity
        (("train.share_prefix=off",), 4),
        (("prompt.values=false",), 4),  # another prefix
        (("train.questions_per_tree=5",), 2),  # other trees
        (("data.train_limit=9",), 1),  # one tree lacks a question
        (("method=fkd",), 0),  # the same states, another use of them
        (("seed=5", "train.learning_rate=0.5", "distill.temperature=2"), 0),
    ],
)
def test_entries_are_used_for_equal_inputs_only(recipe, folder, change, entries_missing):
    Bench(recipe("rkd", TWO_EPOCHS)).open()
    before = set(entries(folder))
    bench = Bench(recipe("rkd", TWO_EPOCHS, *change))
    if "train.share_prefix=off" in change:
        bench.engines.teacher.layout = "padded"
    bench.open()
    assert len(set(entries(folder)) - before) == entries_missing


def test_changed_weights_or_gold_are_computed_anew(recipe, world, folder):
    Bench(recipe("rkd", TWO_EPOCHS)).open()
    pairs = (world / "pairs.jsonl").read_text()
    (world / "pairs.jsonl").write_text(pairs.replace("LIMIT 1", "LIMIT 2"))
    bench = Bench(recipe("rkd", TWO_EPOCHS))
    bench.open()
    assert bench.ledger.counts["teacher_hidden_computed"] == 3, "the tree with the changed query"
    other = Bench(recipe("rkd", TWO_EPOCHS))
    with torch.no_grad():
        other.engines.teacher.head().weight_VD[0, 0] += 1e-3
    other.open()
    assert other.ledger.counts["teacher_hidden_computed"] == EXAMPLES


def test_a_folder_that_says_it_belongs_to_another_teacher_is_refused(recipe, tmp_path, folder):
    settings = recipe("rkd", TWO_EPOCHS)
    train(settings, tmp_path / "one")
    manifest = next(folder.glob("*/manifest.json"))
    content = json.loads(manifest.read_text())
    content["identity"]["weights"] = "0" * 64
    manifest.write_text(json.dumps(content))
    with pytest.raises(RunError, match=r"differs in weights"):
        train(settings, tmp_path / "two")


# ---- when, how much, and what it cost ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "settings", "cached"),
    [
        ("rkd", ("train.steps=2",), False),  # one epoch: nothing is seen twice
        ("rkd", ("train.steps=3",), True),
        ("rkd", ("train.steps=2", "train.teacher_hidden=on"), True),
        ("rkd", ("train.steps=4", "train.teacher_hidden=off"), False),
        ("rkd", ("train.steps=4", "train.teacher_hidden_mb=0"), False),
        ("kid", ("train.steps=4", "train.teacher_hidden=on"), False),  # completions change
        ("imitkd", ("train.steps=4", "train.teacher_hidden=on"), False),
        ("sft", ("train.steps=4", "train.teacher_hidden=on"), False),
    ],
)
def test_states_are_kept_where_it_pays(recipe, folder, method, settings, cached, caplog):
    bench = Bench(recipe(method, *settings))
    assert (bench.open() is not None) == cached
    assert bool(entries(folder)) == cached
    assert ("teacher_hidden_mb = 0" in caplog.text) == ("train.teacher_hidden_mb=0" in settings)


@pytest.mark.slow
def test_a_full_disk_is_said_and_the_teacher_runs_instead(recipe, tmp_path, monkeypatch, caplog):
    real, calls = hidden_store.write_bytes, []

    def full(path, content, **options) -> None:
        calls.append(path)
        if len(calls) > 3:
            raise OSError(28, "No space left on device")
        real(path, content, **options)

    monkeypatch.setattr(hidden_store, "write_bytes", full)
    settings = recipe("rkd", TWO_EPOCHS)
    run = train(settings, tmp_path / "full")
    assert [
        sentence
        for sentence in said(caplog)
        if "No space left on device" in sentence and "rounds slightly differently" in sentence
    ]
    assert "teacher_hidden_hits" not in counts(run)
    off = train(recipe("rkd", TWO_EPOCHS, "train.teacher_hidden=off"), tmp_path / "off")
    assert_equal(weights(off), weights(run))


def test_a_folder_that_cannot_be_made_is_said_too(recipe, tmp_path, caplog):
    (tmp_path / "file").write_text("")
    bench = Bench(recipe("rkd", TWO_EPOCHS, f"train.teacher_hidden_folder='{tmp_path / 'file' / 'x'}'"))
    assert bench.open() is None
    assert "train.teacher_hidden_folder" in said(caplog)[0]


def test_processes_share_the_filling(recipe, folder):
    benches = [Bench(recipe("rkd", TWO_EPOCHS)) for _ in range(2)]
    for rank, bench in enumerate(benches):
        bench.open(rank=rank, processes=2)
    assert [bench.ledger.counts["teacher_hidden_computed"] for bench in benches] == [6, 4]
    assert len(entries(folder)) == 4


@pytest.mark.slow
def test_two_processes_give_the_loss_of_one(recipe, tmp_path, folder):
    settings = recipe("rkd", TWO_EPOCHS)
    alone = train(settings, tmp_path / "alone")
    shutil.rmtree(folder)
    (tmp_path / "recipe.toml").write_text(settings.to_toml())
    launch = "-m accelerate.commands.launch --num_processes 2 --cpu --num_machines 1 --mixed_precision no"
    launch += (
        " --dynamo_backend no --num_cpu_threads_per_process 1 -m distilsql.cli train recipe.toml --out both"
    )
    result = subprocess.run([sys.executable, *launch.split()], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]
    assert len(entries(folder)) == 4
    both = RunFolder(tmp_path / "both")
    for one, other in zip(log_lines(alone), log_lines(both), strict=True):
        growth = 1 if one["step"] == 1 else 100  # of the difference in rounding, by the optimizer's steps
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-5 * growth)
        assert one["gradient_norm"] == pytest.approx(other["gradient_norm"], rel=1e-4 * growth)


def test_times_sft_charges_what_the_states_cost_whoever_paid(recipe):
    first, second = Bench(recipe("rkd", TWO_EPOCHS)), Bench(recipe("fkd", TWO_EPOCHS))
    paid = first.open().seconds()
    assert paid > 0
    assert second.open().seconds() == paid
    calibration = Calibration(first.recipe, first.engines, 4)
    windows = [[0.5, 2.0, 5.0], [1.5, 1.0, 5.0]]
    calibration.load({"sft": 2.0, "method": 3.0, "examples": 10.0, "windows": windows})
    assert calibration.summary(0.1, 0.05) == {
        "x_sft": pytest.approx((0.3 + 0.05) / (0.2 + 0.1)),
        "x_sft_range": [pytest.approx((0.2 + 0.05) / (0.3 + 0.1)), pytest.approx((0.4 + 0.05) / (0.1 + 0.1))],
        "sft_seconds_per_example": pytest.approx(0.3),
    }
