"""A teacher that is cut within its layers: which can be, and that it reads what the whole one reads.

That two processes train alike with one is in `training/test_processes.py`.
"""

import json
import subprocess
import sys

import pytest
import torch.distributed

import reading_together
from distilsql.distill.methods import METHODS
from distilsql.errors import ModelError, RecipeError
from distilsql.inference.loading import load_engines
from distilsql.models.sharding import Unsharded
from distilsql.models.tensor_parallel import checked_plan, mesh_of_machine
from distilsql.models.tree_model import TreeModel
from distilsql.training.teacher_states.states import identity_of
from families import make_model
from processes import environment
from tiny_world import own_cache_folder, recipe, world

__all__ = ["own_cache_folder", "recipe", "world"]


@pytest.mark.parametrize(
    ("family", "parts", "said"),
    [
        ("gpt2", 2, "no tensor parallel plan"),
        ("gpt-oss", 2, "which this cannot follow"),
        ("llama", 4, "6 attention heads"),
        ("llama", 6, "2 key and value heads"),
        ("qwen2", 3, "4 attention heads"),
    ],
)
def test_what_cannot_be_cut_is_refused_with_a_cure(family, parts, said):
    with pytest.raises(ModelError, match=said) as refused:
        checked_plan(make_model(family), parts, "some/teacher")
    assert "across_processes = sharded, or whole" in str(refused.value)


def test_a_matrix_that_does_not_divide_is_refused():
    model = make_model("qwen2")
    model.base_model.layers[1].mlp.down_proj.in_features = 63
    with pytest.raises(ModelError, match=r"63 inputs of layers\.\*\.mlp\.down_proj"):
        checked_plan(model, 2, "some/teacher")


def test_machines_with_unequal_numbers_of_processes_are_refused(monkeypatch):
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 5)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(ModelError, match="5 processes, 2 of them here"):
        mesh_of_machine("cpu")


@pytest.mark.parametrize("method", ["switch", "minillm", "seqkd", "imitkd", "distillm"])
def test_a_teacher_that_writes_is_not_cut(method, recipe):
    source = METHODS[method].source
    if source.reads_both_models or source.teacher_beams:
        with pytest.raises(RecipeError, match="has its teacher write"):
            recipe(method, "teacher.across_processes=tensor_parallel")
    else:
        assert recipe(method, "teacher.across_processes=tensor_parallel").teacher.across_processes


def test_a_quantised_teacher_is_not_cut(recipe):
    with pytest.raises(RecipeError, match="quantised teacher is whole"):
        recipe("kid", "teacher.across_processes=tensor_parallel", "teacher.quantization=8bit")


def test_one_process_reads_as_without_the_key(recipe):
    """The key is about several processes."""
    engines = load_engines(recipe("kid", "teacher.across_processes=tensor_parallel"), torch.device("cpu"))
    assert engines.teacher.sharding.parts == 1


def test_kept_states_of_a_cut_teacher_are_others(recipe):
    """It rounds otherwise, so what a whole one left on disk is not read in its place."""
    network = make_model("llama")
    whole, cut = TreeModel(network), TreeModel(network, sharding=Unsharded(network))
    cut.sharding.parts = 2
    assert identity_of(whole) != identity_of(cut)


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "on_a_machine"), [(2, 2), (4, 2)])
def test_families_read_as_the_whole_model_does(processes, on_a_machine, tmp_path):
    """Each process other trees, and more of them than the one before it; two machines of two processes, too."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
    command += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0", reading_together.__file__]
    command += [str(tmp_path / "found"), str(on_a_machine)]
    result = subprocess.run(command, capture_output=True, text=True, env=environment())
    assert result.returncode == 0, result.stderr[-4000:]
    for rank in range(processes):
        by_family = json.loads((tmp_path / f"found.{rank}").read_text())
        assert by_family.keys() == reading_together.CUT.keys()
        first = rank // on_a_machine * on_a_machine
        for family, found in by_family.items():
            assert found["difference"] < 1e-10, family
            assert found["kept"] < found["whole"], family
            # Of all that the processes of its machine have read, in the layout that continues from prefixes.
            assert found["prefixes"] == sum(1 + each for each in range(first, first + on_a_machine)), family
