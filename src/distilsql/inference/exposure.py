"""ExAccErr of a student: how much more it errs along its own samples than along the teacher's (Arora et al. 2022)."""

from collections.abc import Sequence
from typing import Any

import torch

from distilsql.data.benchmark import Benchmark
from distilsql.distill.divergences import forward_kl
from distilsql.distill.exposure import ExposureOptions, bootstrap_interval, excess_accumulated_error
from distilsql.errors import RunError
from distilsql.files import write_json
from distilsql.inference.loading import check_asked_model, load_teacher
from distilsql.inference.predict import load_student, recipe_of
from distilsql.inference.prepare import TokenizedExample, prepare
from distilsql.models.batches import fill_batches
from distilsql.models.generate import GenerationOptions, generate_trees, uniform_stream
from distilsql.models.load import shared_vocabulary_size
from distilsql.models.tree import Completion, PromptTree, as_branches
from distilsql.models.tree_model import TreeModel
from distilsql.progress import progress
from distilsql.runs.folder import RunFolder
from distilsql.runs.records import Exposure
from distilsql.runs.sections import PromptSettings, TeacherOptions
from distilsql.threads import fit_threads


def expose_run(
    run: RunFolder,
    benchmark: Benchmark,
    options: ExposureOptions,
    *,
    teacher: str | None = None,
) -> Exposure:
    """ExAccErr of a finished run's student, also written into the run: exposure.json.

    `teacher` is a folder or hub name; without it, the run's own, loaded as in training.

    Raises:
        RunError: the run has no teacher that can be loaded and none is given, or it agrees with the student
            everywhere.
        ModelError: the teacher reads other tokens than the student.
    """
    recipe = recipe_of(run)
    source = recipe.teacher if teacher is None else TeacherOptions(path=teacher)
    if source is None:
        raise RunError(
            f"{run.path} has no teacher in its recipe to compare its student with: name one with --teacher."
        )
    if source.endpoint:
        raise RunError(
            f"{run.path} learned from {source.path} behind an endpoint, which gives text and no probabilities: name a "
            "teacher that can be loaded with --teacher."
        )
    student = load_student(run).decoder
    with progress(f"loading {source.path}"):
        other = load_teacher(source, student.model.precision, student.model.device)
        fit_threads(student.model.model, other.model)
        vocabulary_size = shared_vocabulary_size(
            student.model.causal_lm, other.causal_lm, student.tokenizer, source.path
        )
        check_asked_model(other, vocabulary_size, recipe.prompt.longest_tokens, source.path)
    measured = measure_exposure(
        student.model,
        other,
        student.tokenizer,
        vocabulary_size,
        benchmark,
        recipe.prompt,
        options,
    )
    result = measured.model_copy(update={"teacher": teacher})
    write_json(run.exposure, result.to_json())
    return result


def measure_exposure(
    student: TreeModel,
    teacher: TreeModel,
    tokenizer: Any,
    vocabulary_size: int,
    benchmark: Benchmark,
    prompt: PromptSettings,
    options: ExposureOptions,
) -> Exposure:
    """Sample from both models on every example of `benchmark` and compare the errors along the samples.

    Raises:
        RunError: student and teacher agree everywhere, so that the ratio is undefined.
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

    def sampled(batch: Sequence[Sequence[TokenizedExample]], use: int, repeat: int) -> list[list[float]]:
        trees = [prepared.tree(examples) for examples in batch]
        streams = [
            [uniform_stream(options.seed, use, repeat, numbers[each.example.example_id]) for each in examples]
            for examples in batch
        ]
        written = generate_trees((student, teacher)[use], trees, generation, streams=streams)
        return [
            values
            for tree, completions in zip(trees, written, strict=True)
            for values in _divergences(student, teacher, tree, completions, vocabulary_size)
        ]

    with progress(f"ExAccErr on {benchmark.name}", len(prepared.examples)) as advance:
        for batch in fill_batches(prepared.by_prefix(), options.questions_per_batch):
            for use, name in enumerate(along):
                repeats = [sampled(batch, use, repeat) for repeat in range(options.samples_per_prompt)]
                along[name] += [values for of_prompt in zip(*repeats, strict=True) for values in of_prompt]
            advance(sum(len(examples) for examples in batch))
    return _exposure(benchmark.name, len(prepared.examples), along["student"], along["teacher"], options)


def _exposure(
    benchmark: str,
    prompts: int,
    along_student: list[list[float]],
    along_teacher: list[list[float]],
    options: ExposureOptions,
) -> Exposure:
    """From the divergence at every position of each sample, the samples of a prompt following one another."""
    try:
        error = excess_accumulated_error(along_student, along_teacher, options.length)
    except ValueError as undefined:
        raise RunError(str(undefined)) from undefined
    interval = bootstrap_interval(
        along_student,
        along_teacher,
        options.length,
        samples_per_prompt=options.samples_per_prompt,
        seed=options.seed,
    )
    return Exposure(
        benchmark=benchmark,
        excess_accumulated_error=error,
        interval=interval,
        prompts=prompts,
        options=options,
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
