"""Every method of scale `paper` on every model family it is reproduced with: two optimizer steps of tiny models.

The recipes are the scale's own: only models, data, lengths and the number of steps are made small. One that would fail
on a GPU after hours of teacher training fails here in a second. SWITCH's families train every method of the table.
"""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, CodeGenConfig, GPT2Config, LlamaConfig, OPTConfig, Qwen2Config

from distilsql.distill.methods import METHODS
from distilsql.experiments.experiment import Book
from distilsql.experiments.plan import make_plan
from distilsql.models.load import load_tokenizer
from distilsql.runs.recipe import Recipe, make_recipe
from distilsql.training.train import train

# How the hub names of scale `paper` begin, and the architecture behind them.
FAMILIES = {
    "Qwen/Qwen1.5": "qwen2",
    "Salesforce/codegen": "codegen",
    "TinyLlama/": "llama",
    "openlm-research/": "llama",
    "openai-community/gpt2": "gpt2",
    "facebook/opt": "opt",
}
_HEADS = {"n_embd": 32, "n_head": 4, "n_positions": 640}
_LLAMA = {
    "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2,
    "max_position_embeddings": 640,
}  # fmt: skip
_OPT = {
    "hidden_size": 32, "ffn_dim": 48, "num_attention_heads": 4, "max_position_embeddings": 640,
    "word_embed_proj_dim": 32,
}  # fmt: skip
CONFIGS: dict[str, Callable] = {
    "qwen2": lambda layers, **known: Qwen2Config(num_hidden_layers=layers, **_LLAMA, **known),
    "llama": lambda layers, **known: LlamaConfig(num_hidden_layers=layers, **_LLAMA, **known),
    "gpt2": lambda layers, **known: GPT2Config(n_layer=layers, **_HEADS, **known),
    "opt": lambda layers, **known: OPTConfig(num_hidden_layers=layers, **_OPT, **known),
    "codegen": lambda layers, **known: CodeGenConfig(
        n_layer=layers, n_ctx=640, rotary_dim=4, **_HEADS, **known
    ),
}


def paper_recipes() -> dict[tuple[str, str], Recipe]:
    """One recipe for each (family, method) of scale `paper`, of runs on the default seed and settings first."""
    book = Book()
    found: dict[tuple[str, str], Recipe] = {}
    runs = make_plan(book, book.names_at("paper"), "paper", Path("runs")).runs.values()
    started_from = {str(run.folder.model): run.recipe.student.path for run in runs}
    for run in runs:
        if run.name.endswith("_seed0"):
            path = run.recipe.student.path
            path = started_from.get(path, path)
            family = next(f for start, f in FAMILIES.items() if path.startswith(start))
            found.setdefault((family, run.recipe.method), run.recipe)
    return found


PAPERS = paper_recipes()
SWITCH_FAMILIES = ("gpt2", "opt", "llama")
RECIPES = {
    (family, method): PAPERS[family, "fkd"].model_copy(update={"method": method})
    for family in SWITCH_FAMILIES
    for method in METHODS
} | PAPERS


def test_every_family_of_the_papers_is_there():
    assert {family for family, _ in PAPERS} == {"qwen2", "codegen", "llama", "gpt2", "opt"}
    assert {method for family, method in PAPERS if family == "qwen2"} == set(METHODS)
    assert ("codegen", "kid-mask-only") in PAPERS


def test_switchs_comparison_is_whole_at_every_scale():
    """Its baselines and three thresholds, for GPT-2, OPT and OpenLLaMA2 where they are trained."""
    compared = {"sft", "fkd", "seqkd", "imitkd", "minillm", "gkd-rkl", "distillm", "switch"}
    schedules = {"exponential", "linear", "constant"}
    book = Book()
    for scale, pairs in (("paper", ("gpt2", "opt-125m", "openllama-3b")), ("cpu", ("smollm2-24",))):
        runs = make_plan(book, ["switch"], scale, Path("runs")).runs.values()
        for pair in pairs:
            own = [run.recipe for run in runs if f"_{pair}_" in run.name]
            assert compared <= {recipe.method for recipe in own}, (scale, pair)
            assert {recipe.switch.schedule for recipe in own if recipe.method == "switch"} == schedules
            assert {recipe.data.train for recipe in own} == {"dolly:dev"}
        columns = book.scale(scale).columns
        lengths = {columns[name].length for name in book.experiment("switch").columns if name in columns}
        assert {"0-5 words", "6-10 words", "11 words or more"} <= lengths


@pytest.fixture(scope="module")
def family_models(tiny_models, tmp_path_factory) -> dict[tuple[str, str], Path]:
    """Random student (1 layer) and teacher (2 layers) of every family, over the tiny tokenizer."""
    tokenizer = load_tokenizer(tiny_models["student"])
    known = {
        "vocab_size": len(tokenizer),
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    folders = {}
    for family, make in CONFIGS.items():
        for role, layers in (("student", 1), ("teacher", 2)):
            folder = tmp_path_factory.mktemp(f"{family}-{role}")
            torch.manual_seed(layers)
            AutoModelForCausalLM.from_config(make(layers, **known)).save_pretrained(folder)
            tokenizer.save_pretrained(folder)
            folders[family, role] = folder
    return folders


def shrunk(recipe: Recipe, models: dict[tuple[str, str], Path], family: str, world: Path) -> Recipe:
    """The recipe on tiny models and data, for two steps. Method, divergence, LoRA, layout and the rest stay."""
    values = recipe.model_dump()
    values["student"]["path"] = str(models[family, "student"])
    if values["teacher"]:
        values["teacher"]["path"] = str(models[family, "teacher"])
    values["data"] = {"train": str(world / "pairs.jsonl"), "database": str(world / "singers.sqlite")}
    values["prompt"] |= {"max_prompt_tokens": 500, "max_completion_tokens": 40}
    values["train"] |= {
        "steps": 2,
        "epochs": None,
        "evaluate_every_steps": None,
        "questions_per_tree": 5,
        "trees_per_step": 1,
        "calibration_windows": 1,
        "log_every_steps": 1,
    }
    return make_recipe(values)


def cases():
    """All of them, most marked slow: the fast ones are each family's own method and what generates online."""
    fast = {("qwen2", "kid"), ("llama", "gkd-rkl"), ("gpt2", "switch")}
    return [pytest.param(*case, marks=[] if case in fast else pytest.mark.slow) for case in sorted(RECIPES)]


@pytest.mark.parametrize(("family", "method"), cases())
def test_every_method_of_the_paper_trains_on_every_family_it_is_run_with(
    family, method, family_models, world, tmp_path
):
    recipe = shrunk(RECIPES[family, method], family_models, family, world)
    run = train(recipe, tmp_path / "run")
    summary = json.loads(run.summary.read_text())
    assert (summary["method"], summary["steps"], summary["examples_seen"]) == (method, 2, 10)
    assert summary["layout"] == "tree", "the family must not fall back to the slower layout"
    lines = [line for text in run.log.read_text().splitlines() if "loss" in (line := json.loads(text))]
    assert len(lines) == 2
    assert all(line["loss"] >= 0 and line["gradient_norm"] > 0 for line in lines)
    assert (lines[0]["divergence"] is not None) == (recipe.row.divergence is not None)
    assert (run.model / "config.json").exists()
