"""A teacher on several devices or in fewer bits: what is asked of `transformers`, and what comes back.

Neither several GPUs nor bitsandbytes are at hand here: what is passed on is tested against a stand-in of
`from_pretrained`, and `device_map="cpu"` for real.
"""

import importlib.util

import pytest
import torch
from accelerate.hooks import ModelHook, add_hook_to_module

from distilsql.errors import ModelError
from distilsql.models import load
from distilsql.models.load import Placement, is_spread, join_ends, load_model
from distilsql.models.tree import Branch, PromptTree
from distilsql.models.tree_model import TreeModel

CPU = torch.device("cpu")


@pytest.fixture
def asked(monkeypatch, tiny_models):
    """The keyword arguments that `from_pretrained` gets; it loads the tiny teacher whatever they are."""
    found: list[dict] = []
    model = load_model(tiny_models["teacher"], "float32")

    def from_pretrained(path, **options):
        found.append(options)
        return model

    monkeypatch.setattr(load.AutoModelForCausalLM, "from_pretrained", from_pretrained)
    return found


@pytest.fixture
def bitsandbytes(monkeypatch):
    """bitsandbytes as if it were installed."""
    real = importlib.util.find_spec
    monkeypatch.setattr(
        load.importlib.util, "find_spec", lambda name: real("torch") if name == "bitsandbytes" else real(name)
    )


def test_without_a_placement_nothing_is_asked(asked):
    load_model("anywhere", "bfloat16")
    assert asked == [{"dtype": torch.bfloat16}]


def test_a_device_map_is_passed_on_as_it_is(asked):
    load_model("anywhere", "float32", placement=Placement(CPU, "balanced"))
    assert asked == [{"dtype": torch.float32, "device_map": "balanced"}]


@pytest.mark.usefixtures("bitsandbytes")
def test_quantization_is_asked_of_bitsandbytes_on_the_students_device(asked):
    load_model("anywhere", "bfloat16", placement=Placement(CPU, quantization="8bit"))
    load_model("anywhere", "bfloat16", placement=Placement(CPU, "auto", "4bit"))
    eight, four = asked
    assert eight["device_map"] == {"": CPU}
    assert eight["quantization_config"].load_in_8bit
    assert not eight["quantization_config"].load_in_4bit
    assert four["device_map"] == "auto"
    assert four["quantization_config"].load_in_4bit
    assert four["quantization_config"].bnb_4bit_quant_type == "nf4"
    assert four["quantization_config"].bnb_4bit_compute_dtype == torch.bfloat16


def test_a_missing_bitsandbytes_is_named_with_the_command(asked, monkeypatch):
    monkeypatch.setattr(load.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match="pip install bitsandbytes"):
        load_model("anywhere", "float32", placement=Placement(CPU, quantization="4bit"))
    assert asked == []


@pytest.mark.parametrize("error", [ImportError, RuntimeError, torch.OutOfMemoryError, ValueError])
def test_hardware_that_cannot_is_a_sentence(monkeypatch, error):
    def from_pretrained(path, **options):
        raise error("no such device")

    monkeypatch.setattr(load.AutoModelForCausalLM, "from_pretrained", from_pretrained)
    with pytest.raises(ModelError, match="no such device"):
        load_model("a/teacher", "float32", placement=Placement(CPU, "auto"))


def test_a_model_offloaded_to_disk_is_refused(tiny_models):
    model = load_model(tiny_models["teacher"], "float32")
    model.get_output_embeddings().to("meta")
    with pytest.raises(ModelError, match="does not fit"):
        join_ends(model, "a/teacher")


def test_hidden_states_come_back_to_the_first_device_and_the_head_lies_there(tiny_models):
    """Stand-ins for two GPUs: a decoder whose output lies on another device, and a head that does."""
    model = load_model(tiny_models["teacher"], "float32")
    moved: list[torch.device] = []

    class Elsewhere(torch.Tensor):
        def to(self, device, *rest, **options):
            moved.append(device)
            return super().to(device, *rest, **options)

    model.base_model.register_forward_hook(
        lambda module, inputs, output: setattr(
            output, "last_hidden_state", output.last_hidden_state.as_subclass(Elsewhere)
        )
    )
    join_ends(model, "a/teacher")
    model.base_model(input_ids=torch.tensor([[4, 5]]))
    assert moved == [CPU]


def test_the_model_itself_gives_logits_where_its_head_lies(tiny_models):
    """The hook that a device_map puts on the head would send hidden states on to another device: here, to nowhere."""

    class Away(ModelHook):
        def pre_forward(self, module, *args, **kwargs):
            return tuple(each.to("meta") for each in args), kwargs

    model = load_model(tiny_models["teacher"], "float32")
    add_hook_to_module(model.get_output_embeddings(), Away())
    join_ends(model, "a/teacher")
    assert model(input_ids=torch.tensor([[4, 5]])).logits.device == CPU


def test_is_spread_means_more_than_one_device(tiny_models):
    model = load_model(tiny_models["teacher"], "float32")
    assert not is_spread(model)
    model.hf_device_map = {"": 0}
    assert not is_spread(model)
    model.hf_device_map = {"model.layers.0": 0, "model.layers.1": 1}
    assert is_spread(model)


def test_device_map_cpu_gives_the_same_teacher(tiny_models):
    whole = TreeModel(load_model(tiny_models["teacher"], "float32"))
    placed = TreeModel(load_model(tiny_models["teacher"], "float32", placement=Placement(CPU, "cpu")))
    tree = PromptTree((4, 5, 6), ((7, 8), (9,)))
    branches = [Branch(0, (10, 11)), Branch(1, (12, 13, 14))]
    with torch.no_grad():
        torch.testing.assert_close(
            placed.completion_hidden(tree, branches), whole.completion_hidden(tree, branches)
        )
    assert placed.device == CPU
