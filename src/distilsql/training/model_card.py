"""The model card (Hugging Face's README.md) of a student: what it is, how it was made, how to prompt it."""

from pathlib import Path

from distilsql.runs.recipe import Recipe


def write_model_card(recipe: Recipe, folder: Path, *, steps: int, examples_seen: int) -> None:
    """Write README.md into the model's folder. Raises OSError if that fails."""
    (folder / "README.md").write_text(_card(recipe, steps, examples_seen), encoding="utf-8")


def _card(recipe: Recipe, steps: int, examples_seen: int) -> str:
    teacher = f" from `{recipe.teacher.path}`" if recipe.teacher and recipe.row.needs_teacher else ""
    layers = " with fewer of its layers" if recipe.student.keep_layers is not None else ""
    tuning = f"LoRA of rank {recipe.student.lora_rank}" if recipe.student.tuning == "lora" else "all weights"
    opened = (
        "`PeftModel.from_pretrained` adds this adapter to the model it was trained on"
        if recipe.student.saves_adapter_alone
        else "`AutoModelForCausalLM.from_pretrained` opens this folder"
    )
    return f"""---
library_name: transformers
pipeline_tag: text-generation
tags: [distilsql, distillation]
---

# {recipe.name}

`{recipe.student.path}`{layers}, trained with distilsql by the method
`{recipe.method}`{teacher} on `{recipe.data.train}`:
{steps:,} optimizer steps, {examples_seen:,} examples, {tuning}, seed {recipe.seed}. {recipe.row.summary}

{opened}. What it is asked with and what it cost are in the run folder that it was made in:
`recipe.toml`, `summary.json` and `scores/`. The licences of its data, its teacher and the model it was made from hold
for it too.
"""
