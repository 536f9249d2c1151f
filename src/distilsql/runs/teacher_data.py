"""Completions that the teacher writes once, beforehand: stored with the run and reused.

f-distill trains partly on them; `teacher_check.py` says what they are worth.
"""

import json
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from accelerate.utils import gather_object

from distilsql.distill.methods import Source
from distilsql.models.generate import Completion, GenerationOptions
from distilsql.models.vllm_source import VllmSource
from distilsql.progress import progress
from distilsql.runs.decode_batches import decode_batches
from distilsql.runs.engines import Engines, vllm_source
from distilsql.runs.folder import RunFolder, lines_of, write_text
from distilsql.runs.prepare import Prepared
from distilsql.runs.recipe import Recipe
from distilsql.runs.sampling import TreeOfExamples
from distilsql.runs.window_tree import Use, WindowTree, as_window_trees
from distilsql.runs.writing import write_completions

# An engine that forms its own batches wants many questions at a time; a kill loses what one call wrote.
_BATCHES_PER_VLLM_CALL = 16


@dataclass(frozen=True)
class TeacherCompletions:
    """Completions and their texts by example id, and the seconds that writing them took, whenever that was."""

    tokens: dict[str, Completion]
    texts: dict[str, str]
    seconds: float


def ensure_teacher_completions(
    recipe: Recipe,
    engines: Engines,
    prepared: Prepared,
    examples: Collection[int],
    run: RunFolder,
    options: GenerationOptions,
    *,
    process: int = 0,
    processes: int = 1,
) -> TeacherCompletions | None:
    """The teacher's completion of the training examples with these numbers, from the run folder where it is there
    already; None where the method trains on none.

    Lines are appended batch by batch, so an interrupted generation goes on where it stopped. Which questions share a
    batch depends on the data alone, so it goes on to the same bits. Each process writes its part of the batches; the
    first one keeps the file.
    """
    if recipe.row.source is not Source.TEACHER_AND_STUDENT:
        return None
    known = _read(run, repair=process == 0)
    batches = [batch for batch in _batches(recipe, prepared, examples) if not _ids(batch) <= known.keys()]
    writer = _vllm_teacher(recipe, engines) if batches and recipe.generation.engine == "vllm" else None
    at_once = _BATCHES_PER_VLLM_CALL if writer else processes
    with progress("completions of the teacher", len(examples), done=len(known)) as advance:
        for start in range(0, len(batches), at_once):
            own = batches[start + process : start + at_once : processes]
            everyones: list[dict[str, Any]] = gather_object(  # type: ignore[assignment]
                _written(recipe, engines, writer, options, own)
            )
            if process == 0:
                _append(run, everyones)
            before = len(known)
            known |= {record["example_id"]: record for record in everyones}
            advance(len(known) - before)
    if writer is not None:
        writer.close()
    return TeacherCompletions(
        {example_id: tuple(record["tokens"]) for example_id, record in known.items()},
        {example_id: record["text"] for example_id, record in known.items()},
        sum(record["seconds"] for record in known.values()),
    )


def _ids(batch: Sequence[WindowTree]) -> set[str]:
    return {example.example.example_id for item in batch for example in item.examples}


def _batches(recipe: Recipe, prepared: Prepared, examples: Collection[int]) -> list[list[WindowTree]]:
    """Every example once; trees may be larger than in training, since nothing is differentiated."""
    trees = [
        TreeOfExamples(own, epoch=0)
        for numbers in prepared.numbers_by_prefix()
        if (own := tuple(number for number in numbers if number in examples))
    ]
    items = as_window_trees(prepared, trees)
    places = [(tree, row) for tree, item in enumerate(items) for row in range(len(item.examples))]
    batches = decode_batches(items, places, recipe.generation.max_batch_rows)
    return [[part.item for part in batch] for batch in batches]


def _vllm_teacher(recipe: Recipe, engines: Engines) -> VllmSource:
    assert engines.teacher is not None
    return vllm_source(recipe, engines.teacher, engines.tokenizer)


def _written(
    recipe: Recipe,
    engines: Engines,
    writer: VllmSource | None,
    options: GenerationOptions,
    batches: Sequence[Sequence[WindowTree]],
) -> list[dict[str, Any]]:
    """Records of what the teacher writes for some batches."""
    start = time.perf_counter()
    assert engines.teacher is not None
    everything = write_completions(
        engines.teacher,
        writer,
        batches,
        options,
        seed=recipe.seed,
        use=Use.TEACHER,
        prefixes=engines.teacher_prefixes,
    )
    written = [tokens for batch in everything for tree in batch for tokens in tree]
    seconds = (time.perf_counter() - start) / max(len(written), 1)
    examples = [example for batch in batches for item in batch for example in item.examples]
    return [
        {
            "example_id": example.example.example_id,
            "text": engines.tokenizer.decode(tokens, skip_special_tokens=True),
            "tokens": list(tokens),
            "seconds": seconds,
        }
        for example, tokens in zip(examples, written, strict=True)
    ]


def _read(run: RunFolder, *, repair: bool) -> dict[str, dict[str, Any]]:
    """Records by example id. A line that a kill cut off counts as never written, and `repair` removes it."""
    if not run.teacher_completions.exists():
        return {}
    known, whole = {}, []
    lines = lines_of(run.teacher_completions)
    for line in lines:
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue
        known[record["example_id"]] = record
        whole.append(line + "\n")
    if repair and len(whole) < len(lines):
        write_text(run.teacher_completions, "".join(whole))
    return known


def _append(run: RunFolder, records: Sequence[dict[str, Any]]) -> None:
    with run.teacher_completions.open("a", encoding="utf-8") as file:
        file.write("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))
