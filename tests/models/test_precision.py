"""`auto`: which precision a machine is given, by what it has and what it takes; nothing here is timed."""

import pytest
import torch
from transformers import AutoConfig

from distilsql.models import precision as precision_module
from distilsql.models.precision import (
    WORTH_IT,
    choose_on_cpu,
    choose_precision,
    product_seconds,
    product_shape,
    settled_precision,
)

SHAPE = (64, 576, 1536)


def taking(**seconds):
    """A measurement by the precision's name that asserts what it is asked to multiply."""

    def measure(precision, shape):
        assert shape == SHAPE
        return seconds[precision]

    return measure


@pytest.mark.parametrize(
    ("bfloat16_s", "chosen"),
    [(0.002, "bfloat16"), (0.050, "float32"), (0.010, "float32"), (0.010 / WORTH_IT, "bfloat16")],
    ids=["fast", "emulated", "alike", "just worth it"],
)
def test_a_cpu_computes_in_bfloat16_where_that_is_faster(bfloat16_s, chosen):
    choice = choose_on_cpu(SHAPE, has_instructions=True, seconds=taking(float32=0.010, bfloat16=bfloat16_s))
    assert choice.precision == chosen
    assert f"{0.010 / bfloat16_s:.2g} times as fast" in str(choice)


def test_a_cpu_without_its_instructions_is_not_measured():
    def measure(precision, shape):
        raise AssertionError("nothing to measure")

    choice = choose_on_cpu(SHAPE, has_instructions=False, seconds=measure)
    assert choice.precision == "float32"
    assert str(choice) == "Computes in float32: this processor has no instructions for bfloat16."


@pytest.mark.parametrize(("supported", "chosen"), [(True, "bfloat16"), (False, "float32")])
def test_a_gpu_computes_in_bfloat16_where_it_has_it(monkeypatch, supported, chosen):
    def is_supported(including_emulation):
        return supported or including_emulation  # an older GPU emulates it

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", is_supported)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a GPU")
    choice = choose_precision("anywhere", torch.device("cuda"))
    assert choice.precision == chosen
    assert str(choice).startswith(f"Computes in {chosen}: a GPU has ")


def test_other_devices_compute_in_float32():
    assert choose_precision("anywhere", torch.device("meta")).precision == "float32"


def test_the_product_is_the_models_own_within_bounds(tiny_models, monkeypatch):
    assert product_shape(str(tiny_models["student"])) == (64, 32, 128)
    assert product_shape(AutoConfig.from_pretrained(tiny_models["student"])) == (64, 32, 128)
    rows, inputs, outputs = product_shape("no-such-model")
    assert 2 * rows * inputs * outputs < 1e9, "milliseconds"

    class Large:
        hidden_size, intermediate_size = 8192, 28672

        def get_text_config(self):
            return self

    monkeypatch.setattr(precision_module.AutoConfig, "from_pretrained", lambda path: Large())
    assert product_shape("large") == (rows, inputs, outputs)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_measuring_leaves_threads_and_random_numbers_alone(precision):
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    assert product_seconds(precision, (2, 8, 8)) > 0
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)


def test_what_is_asked_for_is_not_chosen_and_a_choice_is_said(tiny_models, caplog):
    caplog.set_level("INFO", "distilsql")
    cpu = torch.device("cpu")
    for asked in ("bfloat16", "float32"):
        assert settled_precision(asked, "anywhere", cpu) == asked
    assert caplog.messages == []
    path = str(tiny_models["student"])
    for model in (path, AutoConfig.from_pretrained(path)):
        caplog.clear()
        chosen = settled_precision("auto", model, cpu)
        assert [sentence.split(":")[0] for sentence in caplog.messages] == [f"Computes in {chosen}"]
