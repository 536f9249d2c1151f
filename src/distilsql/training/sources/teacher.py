"""Completions that the teacher writes once, before training; they are stored with the run (seqkd; half of f-distill's).

`metrics/query_check.py` measures their quality.
"""

import json
import logging
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from accelerate.utils import gather_object

from distilsql.data.benchmark import SqlBenchmark
from distilsql.files import lines_of, write_text
from distilsql.inference.loading import Engines
from distilsql.inference.prepare import Prepared, TokenizedExample
from distilsql.metrics.query_check import TeacherCheck, check_teacher_queries
from distilsql.models.generate import GenerationOptions
from distilsql.models.tree import Completion
from distilsql.models.vllm_source import VllmSource
from distilsql.progress import progress
from distilsql.runs.folder import RunFolder, append_line
from distilsql.runs.recipe import Recipe
from distilsql.training.ledger import Ledger, Phase
from distilsql.training.sampling import TreeOfExamples
from distilsql.training.sources.decode_batches import decode_batches
from distilsql.training.sources.endpoint import EndpointTeacher, open_endpoint
from distilsql.training.sources.source import Beforehand, CompletionSource, Trained
from distilsql.training.sources.student import Mixture
from distilsql.training.sources.writing import search_completions, vllm_source, write_completions
from distilsql.training.window_tree import Use, WindowTree, as_window_trees

log = logging.getLogger(__name__)

# An engine that forms its own batches wants many questions at a time; a kill loses what one call wrote.
_BATCHES_PER_VLLM_CALL = 16
_LOG_KEY = "teacher_completions"


@dataclass(frozen=True)
class TeacherCompletions:
    """Completions and their texts by example id, and the seconds that writing them took, whenever that was.

    `refused` are those of an endpoint that do not run; gold stands in their place.
    """

    tokens: dict[str, Completion]
    texts: dict[str, str]
    seconds: float
    refused: frozenset[str] = frozenset()


class TeacherWritten:
    """What the teacher has written, and what its queries are worth: what sources with such completions hold."""

    def __init__(self) -> None:
        self.completions = TeacherCompletions({}, {}, 0.0)
        self.check: TeacherCheck | None = None

    def prepare(self, source: CompletionSource, beforehand: Beforehand) -> None:
        """The teacher writes for `source`; its queries are run before the student is shown them."""
        with source.ledger.phase(Phase.GENERATION):
            self.completions = ensure_teacher_completions(
                source.recipe, source.engines, source.generation_options(), beforehand
            )
        if beforehand.process == 0 and isinstance(beforehand.benchmark, SqlBenchmark):
            with source.ledger.phase(Phase.EVALUATION):
                self.check = check_once(beforehand.run, self.completions.texts, beforehand.benchmark)
            self.check.say()
        if self.completions.refused:
            log.info(
                f"Gold stands for {len(self.completions.refused):,} of them, which do not run or are too long."
            )

    def of(self, example: TokenizedExample) -> Completion:
        name = example.example.example_id
        return example.gold if name in self.completions.refused else self.completions.tokens[name]

    def summary(self) -> dict[str, Any]:
        found = self.check.to_json() if self.check else None
        if found is not None and self.completions.refused:
            found["replaced_by_gold"] = len(self.completions.refused)
        return {"teacher_completions": found}


class Teacher(CompletionSource):
    """The teacher's completion, written once (sequence-level distillation, Kim and Rush 2016 §3.2).

    By beam search: the mode of the teacher's distribution over sequences stands for the distribution. A
    sample of it (`generation.teacher_beams` = 1) makes the likelihood an unbiased estimate of their L_SEQ-KD.
    """

    def __init__(self, recipe: Recipe, engines: Engines, ledger: Ledger) -> None:
        super().__init__(recipe, engines, ledger)
        self.written = TeacherWritten()

    def prepare(self, beforehand: Beforehand) -> None:
        self.written.prepare(self, beforehand)

    @property
    def seconds_beforehand(self) -> float:
        return self.written.completions.seconds

    def write(self, items: Sequence[WindowTree]) -> list[Trained]:
        return [Trained([self.written.of(example) for example in item.examples]) for item in items]

    def summary(self) -> dict[str, Any]:
        return self.written.summary()


class TeacherAndStudent(Mixture):
    """The teacher's completion, written once, or the student's own (f-distill, Wen et al. 2023)."""

    def __init__(self, recipe: Recipe, engines: Engines, ledger: Ledger) -> None:
        super().__init__(recipe, engines, ledger)
        self.written = TeacherWritten()

    def prepare(self, beforehand: Beforehand) -> None:
        self.written.prepare(self, beforehand)
        super().prepare(beforehand)

    @property
    def seconds_beforehand(self) -> float:
        return self.written.completions.seconds

    def fixed(self, example: TokenizedExample) -> Completion:
        return self.written.of(example)

    def summary(self) -> dict[str, Any]:
        return self.written.summary()


class TeacherBesideStudent(TeacherAndStudent):
    """The teacher's completion and the student's own of every question (DistiLLM-2, Ko et al. 2025).

    In the paper, the student writes before each epoch, in its code once before training; here it writes in each
    round, as in the other on-policy methods (ASSUMED).
    """

    has_both = True


def ensure_teacher_completions(
    recipe: Recipe, engines: Engines, options: GenerationOptions, beforehand: Beforehand
) -> TeacherCompletions:
    """The teacher's completions of the training examples, read from the run folder if they exist.

    Lines are appended batch by batch, so an interrupted generation resumes where it stopped. Which questions share a
    batch depends on the data alone, so it goes on to the same bits. Each process writes its part of the batches; the
    first one keeps the file.
    """
    run, process, processes = beforehand.run, beforehand.process, beforehand.processes
    known = _read(run, repair=process == 0)
    batches = [
        batch
        for batch in _batches(
            recipe, beforehand.prepared.for_teacher or beforehand.prepared, beforehand.examples
        )
        if not _ids(batch) <= known.keys()
    ]
    endpoint = _endpoint(recipe, engines, beforehand) if recipe.teacher and recipe.teacher.endpoint else None
    is_vllm = endpoint is None and recipe.generation.engine == "vllm"
    writer = _vllm_teacher(recipe, engines, processes) if batches and is_vllm else None
    at_once = _BATCHES_PER_VLLM_CALL if writer else processes
    with progress("completions of the teacher", len(beforehand.examples), done=len(known)) as advance:
        for start in range(0, len(batches), at_once):
            own = batches[start + process : start + at_once : processes]
            if endpoint is not None:  # the first process asks for all, and keeps the answers
                records = endpoint.written(batches[start : start + at_once]) if process == 0 else []
            else:
                assert engines.teacher is not None
                with engines.teacher.sharding.in_step():
                    records = _written(recipe, engines, writer, options, own)
            everyones: list[dict[str, Any]] = gather_object(records)  # type: ignore[assignment]
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
        frozenset(name for name, record in known.items() if not record.get("is_kept", True)),
    )


def _endpoint(recipe: Recipe, engines: Engines, beforehand: Beforehand) -> EndpointTeacher:
    asker = open_endpoint(recipe)
    return EndpointTeacher(recipe, engines.tokenizer, beforehand.benchmark, beforehand.prepared, asker)


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
    # Each beam of a question is a row of its own.
    batches = decode_batches(items, places, max(recipe.generation.max_batch_rows // recipe.teacher_beams, 1))
    return [[part.item for part in batch] for batch in batches]


def _vllm_teacher(recipe: Recipe, engines: Engines, processes: int) -> VllmSource:
    assert engines.teacher is not None
    return vllm_source(recipe, engines.teacher, engines.teacher_tokenizer, processes)


def _written(
    recipe: Recipe,
    engines: Engines,
    writer: VllmSource | None,
    options: GenerationOptions,
    batches: Sequence[Sequence[WindowTree]],
) -> list[dict[str, Any]]:
    """Records of what the teacher writes for some batches, in the student's tokens."""
    start = time.perf_counter()
    assert engines.teacher is not None
    options = replace(
        options,
        eos_token_id=int(engines.teacher_tokenizer.eos_token_id),
        vocabulary_size=engines.teacher_vocabulary_size,
    )
    if recipe.teacher_beams > 1:
        everything = search_completions(
            engines.teacher, batches, options, recipe.teacher_beams, engines.teacher_prefixes
        )
    else:
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
            "text": engines.teacher_tokenizer.decode(tokens, skip_special_tokens=True),
            "tokens": list(_as_student_reads(engines, tokens)[: options.max_new_tokens]),
            "seconds": seconds,
        }
        for example, tokens in zip(examples, written, strict=True)
    ]


def _as_student_reads(engines: Engines, tokens: Completion) -> Completion:
    return tokens if engines.translator is None else engines.translator.to_student(tokens)


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


def check_once(run: RunFolder, queries: Mapping[str, str], benchmark: SqlBenchmark) -> TeacherCheck:
    """The check of a run's queries: made at its first start and kept as line 0 of its log."""
    found = _logged(run)
    if found is None:
        found = check_teacher_queries(queries, benchmark)
        append_line(run, {"step": 0, _LOG_KEY: found.to_json()})
    return found


def _logged(run: RunFolder) -> TeacherCheck | None:
    if not run.log.exists():
        return None
    lines = map(json.loads, lines_of(run.log))
    found = next((line[_LOG_KEY] for line in lines if _LOG_KEY in line), None)
    return None if found is None else TeacherCheck(*(found[each.name] for each in fields(TeacherCheck)))
