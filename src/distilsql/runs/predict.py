"""Write a model's answers to a benchmark: predictions/<benchmark>.jsonl, one line per example."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator

from distilsql.data.benchmark import Benchmark, load_benchmark
from distilsql.errors import RunError
from distilsql.models.load import Precision, load_model, load_tokenizer, shared_vocabulary_size
from distilsql.models.tree_model import TreeModel
from distilsql.runs.folder import RunFolder, existing_run, write_text
from distilsql.runs.prepare import prepare
from distilsql.runs.recipe import PromptSettings, Recipe, load_recipe
from distilsql.runs.scoring import Decoder, answer_all


@dataclass(frozen=True)
class Model:
    """A model that can be asked: a finished run's student, or any `transformers` folder with prompt settings."""

    decoder: Decoder
    prompt: PromptSettings


def load_student(run: RunFolder, *, beams: int = 1, precision: Precision | None = None) -> Model:
    """The finished student of a run, with the prompt it was trained on.

    Raises:
        RunError: the run has no model yet.
    """
    recipe = recipe_of(run)
    if not run.model.exists():
        raise RunError(f"{run.path} has no model yet: start `distilsql train` on it again to finish it.")
    path, adapter = str(run.model), None
    if (run.model / "adapter_config.json").exists():
        path, adapter = recipe.student.path, str(run.model)
    return load_any(
        path, recipe.prompt, beams=beams, precision=precision or recipe.train.precision, adapter=adapter
    )


def load_any(
    path: str,
    prompt: PromptSettings,
    *,
    beams: int = 1,
    precision: Precision = "bfloat16",
    adapter: str | None = None,
) -> Model:
    """Any causal LM folder or hub name, asked with the given prompt settings."""
    tokenizer = load_tokenizer(path)
    model = load_model(path, precision, adapter=adapter).to(Accelerator().device)
    size = shared_vocabulary_size(model, None, tokenizer)
    decoder = Decoder(TreeModel(model), tokenizer, size, prompt.max_completion_tokens, beams=beams)
    return Model(decoder, prompt)


def recipe_of(run: RunFolder) -> Recipe:
    return load_recipe(existing_run(run.path).recipe)


def benchmark_for(recipe: Recipe, spec: str, root: Path | None, database: Path | None) -> Benchmark:
    """A benchmark, looked for where the recipe's own data is unless told otherwise."""
    own_root = Path(recipe.data.root) if recipe.data.root else None
    own_database = Path(recipe.data.database) if recipe.data.database else None
    return load_benchmark(
        spec, root=root or own_root, database=database or own_database, missing_databases="skip"
    )


def predict(
    model: Model, benchmark: Benchmark, out: Path, *, on_progress: Callable[[int, int], None] | None = None
) -> list[str]:
    """Answer every example and write `out`; an interrupted prediction goes on from its `.unfinished` file.

    Returns the predicted SQL in the benchmark's order.
    """
    unfinished = out.with_name(out.name + ".unfinished")
    unfinished.parent.mkdir(parents=True, exist_ok=True)
    known = _read(unfinished, benchmark)
    remaining = tuple(example for example in benchmark.examples if example.example_id not in known)
    if remaining:
        todo = Benchmark(benchmark.name, remaining, benchmark.databases, benchmark.evaluator)
        prepared = prepare(todo, model.decoder.tokenizer, model.prompt, training=False)
        with unfinished.open("a", encoding="utf-8") as file, torch.no_grad():
            for example, sql in answer_all(model.decoder, prepared):
                known[example.example.example_id] = sql
                line = {"example_id": example.example.example_id, "sql": sql}
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
                file.flush()
                if on_progress is not None:
                    on_progress(len(known), len(benchmark.examples))
    lines = [
        json.dumps(
            {
                "example_id": example.example_id,
                "question": example.question,
                "sql": known[example.example_id],
            },
            ensure_ascii=False,
        )
        for example in benchmark.examples
    ]
    write_text(out, "".join(line + "\n" for line in lines))
    unfinished.unlink(missing_ok=True)
    return [known[example.example_id] for example in benchmark.examples]


def _read(path: Path, benchmark: Benchmark) -> dict[str, str]:
    known: dict[str, str] = {}
    if path.exists():
        ids = {example.example_id for example in benchmark.examples}
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                record = json.loads(line)
            except json.JSONDecodeError:
                continue  # a kill cut this last line off; the example is answered again
            if record["example_id"] in ids:
                known[record["example_id"]] = record["sql"]
    return known
