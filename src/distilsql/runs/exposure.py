"""ExAccErr of a student: how much more it errs along its own samples than along the teacher's (Arora et al. 2022)."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch

from distilsql.data.benchmark import Benchmark
from distilsql.distill.divergences import forward_kl
from distilsql.distill.exposure import bootstrap_interval, excess_accumulated_error
from distilsql.distill.tree import PromptTree
from distilsql.errors import RunError
from distilsql.models.generate import Completion, GenerationOptions, generate_trees, uniform_stream
from distilsql.models.load import check_same_tokenizer
from distilsql.models.tree_model import TreeModel
from distilsql.runs.decode_batches import fill_batches
from distilsql.runs.folder import RunFolder, read_json, write_json
from distilsql.runs.hidden_store import Say, silent
from distilsql.runs.predict import load_any, load_student, recipe_of
from distilsql.runs.prepare import prepare
from distilsql.runs.recipe import PromptSettings
from distilsql.runs.window_tree import as_branches


@dataclass(frozen=True)
class ExposureOptions:
    """`length` is l of the definition; one sample per prompt and model, at temperature 1 (as public code reports)."""

    length: int = 15
    samples_per_prompt: int = 1
    temperature: float = 1.0
    seed: int = 0
    questions_per_batch: int = 16


@dataclass(frozen=True)
class Exposure:
    """ExAccErr in percent with its 95 % bootstrap interval over prompts."""

    benchmark: str
    excess_accumulated_error: float
    interval: tuple[float, float]
    prompts: int
    options: ExposureOptions

    def to_json(self) -> dict[str, object]:
        return asdict(self)


def expose_run(
    run: RunFolder,
    benchmark: Benchmark,
    options: ExposureOptions,
    *,
    teacher: str | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    say: Say = silent,
) -> Exposure:
    """ExAccErr of a finished run's student, also written into the run: exposure.json, and the number in summary.json.

    `teacher` is a folder or hub name; without it, the run's own. `say` is told of models that run padded.

    Raises:
        RunError: the run has no teacher and none is given.
        ModelError: the teacher reads other tokens than the student.
    """
    recipe = recipe_of(run)
    if teacher is None and recipe.teacher is None:
        raise RunError(
            f"{run.path} has no teacher in its recipe to compare its student with: name one with --teacher."
        )
    path = teacher or (recipe.teacher.path if recipe.teacher else "")
    adapter = recipe.teacher.adapter if recipe.teacher and teacher is None else None
    student = load_student(run, say=say).decoder
    other = load_any(path, recipe.prompt, precision=recipe.train.precision, adapter=adapter, say=say).decoder
    check_same_tokenizer(student.tokenizer, other.tokenizer, path)
    result = measure_exposure(
        student.model,
        other.model,
        student.tokenizer,
        min(student.vocabulary_size, other.vocabulary_size),
        benchmark,
        recipe.prompt,
        options,
        on_progress,
    )
    write_json(run.exposure, result.to_json())
    summary = read_json(run.summary)
    summary["excess_accumulated_error"] = result.excess_accumulated_error
    write_json(run.summary, summary)
    return result


def measure_exposure(
    student: TreeModel,
    teacher: TreeModel,
    tokenizer: Any,
    vocabulary_size: int,
    benchmark: Benchmark,
    prompt: PromptSettings,
    options: ExposureOptions,
    on_progress: Callable[[int, int], None] | None = None,
) -> Exposure:
    """Sample from both models on every example of `benchmark` and compare the errors along the samples.

    Raises:
        ValueError: student and teacher agree everywhere, so that the ratio is undefined.
    """
    prepared = prepare(benchmark, tokenizer, prompt, training=False)
    generation = GenerationOptions(
        int(tokenizer.eos_token_id),
        vocabulary_size,
        options.length,
        options.temperature,
    )
    along: dict[str, list[list[float]]] = {"student": [], "teacher": []}
    numbers = {example.example.example_id: number for number, example in enumerate(prepared.examples)}
    for batch in fill_batches(prepared.by_prefix(), options.questions_per_batch):
        trees = [prepared.tree(examples) for examples in batch]
        for repeat in range(options.samples_per_prompt):
            for use, (name, writer) in enumerate((("student", student), ("teacher", teacher))):
                streams = [
                    [
                        uniform_stream(options.seed, use, repeat, numbers[each.example.example_id])
                        for each in examples
                    ]
                    for examples in batch
                ]
                written = generate_trees(writer, trees, generation, streams=streams)
                for tree, completions in zip(trees, written, strict=True):
                    along[name] += _divergences(student, teacher, tree, completions, vocabulary_size)
        if on_progress is not None:
            on_progress(len(along["student"]), len(prepared.examples) * options.samples_per_prompt)
    return Exposure(
        benchmark.name,
        excess_accumulated_error(along["student"], along["teacher"], options.length),
        bootstrap_interval(along["student"], along["teacher"], options.length, seed=options.seed),
        len(prepared.examples),
        options,
    )


@torch.no_grad()
def _divergences(
    student: TreeModel, teacher: TreeModel, tree: PromptTree, written: list[Completion], vocabulary_size: int
) -> list[list[float]]:
    """KL(p_t‖q_t) in nats at every position of each completion."""
    branches = as_branches(written)
    teacher_NV = teacher.head().log_probs(teacher.completion_hidden(tree, branches), vocabulary_size)
    student_NV = student.head().log_probs(student.completion_hidden(tree, branches), vocabulary_size)
    values = forward_kl(teacher_NV, student_NV).tolist()
    parts, start = [], 0
    for completion in written:
        parts.append(values[start : start + len(completion)])
        start += len(completion)
    return parts
