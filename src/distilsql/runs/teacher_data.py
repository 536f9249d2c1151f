"""Completions that the teacher writes once, beforehand: stored with the run, reused, and checked.

f-distill trains partly on them. What share of them parses, runs, and gives gold's result is reported, because
a student cannot be better than what it is shown.
"""

import json
from collections.abc import Callable
from typing import TYPE_CHECKING

from distilsql.distill.methods import Source
from distilsql.models.generate import Completion, generate
from distilsql.runs.engines import Engines
from distilsql.runs.folder import RunFolder, write_text
from distilsql.runs.ledger import Phase
from distilsql.runs.prepare import Prepared, TokenizedExample
from distilsql.runs.recipe import Recipe
from distilsql.runs.sampling import Sampler
from distilsql.runs.window import WindowTrainer
from distilsql.runs.window_tree import Use, WindowTree

if TYPE_CHECKING:
    from distilsql.runs.train import Progress


def ensure_teacher_completions(
    recipe: Recipe,
    engines: Engines,
    prepared: Prepared,
    run: RunFolder,
    trainer: WindowTrainer,
    report: "Callable[[Progress], None]",
) -> None:
    """Fill `trainer.teacher_completions` from the run folder, generating what is not there yet.

    Lines are appended tree by tree, so an interrupted generation goes on where it stopped.
    """
    if recipe.row.source is not Source.TEACHER_AND_STUDENT:
        return
    known = _read(run)
    with trainer.ledger.phase(Phase.GENERATION):
        for item in _missing(recipe, prepared, known):
            for example, completion in zip(
                item.examples, _written(recipe, engines, trainer, item), strict=True
            ):
                known[example.example.example_id] = completion
            _append(run, engines, item.examples, known)
    trainer.teacher_completions = known


def _written(recipe: Recipe, engines: Engines, trainer: WindowTrainer, item: WindowTree) -> list[Completion]:
    assert engines.teacher is not None
    assert engines.teacher_prefixes is not None
    return generate(
        engines.teacher,
        item.tree,
        trainer.generation_options(),
        streams=[item.stream(recipe.seed, Use.TEACHER, row) for row in range(len(item.examples))],
        prefix=engines.teacher_prefixes.get(item.prefix_key, item.tree.prefix),
    )


def _missing(recipe: Recipe, prepared: Prepared, known: dict[str, Completion]) -> list[WindowTree]:
    """Trees of the examples that have no completion yet."""
    numbers = [n for n, example in enumerate(prepared.examples) if example.example.example_id not in known]
    keys = [prepared.examples[number].prefix_key for number in numbers]
    sampler = Sampler(keys, recipe.seed, 2 * recipe.train.questions_per_tree, 1)
    items = []
    for window in sampler.epoch(0):
        for tree in window:
            own = tuple(numbers[index] for index in tree.examples)
            examples = tuple(prepared.examples[number] for number in own)
            items.append(WindowTree(examples[0].prefix_key, prepared.tree(examples), examples, own, 0))
    return items


def _read(run: RunFolder) -> dict[str, Completion]:
    known: dict[str, Completion] = {}
    if run.teacher_completions.exists():
        for line in run.teacher_completions.read_text(encoding="utf-8").splitlines():
            try:
                record = json.loads(line)
            except json.JSONDecodeError:
                continue  # a kill cut this last line off; its completion is generated again
            known[record["example_id"]] = tuple(record["tokens"])
    return known


def _append(
    run: RunFolder, engines: Engines, examples: tuple[TokenizedExample, ...], known: dict[str, Completion]
) -> None:
    lines = []
    for example in examples:
        tokens = known[example.example.example_id]
        sql = engines.tokenizer.decode(tokens, skip_special_tokens=True)
        record = {"example_id": example.example.example_id, "sql": sql, "tokens": list(tokens)}
        lines.append(json.dumps(record, ensure_ascii=False))
    if not run.teacher_completions.exists():
        write_text(run.teacher_completions, "")
    with run.teacher_completions.open("a", encoding="utf-8") as file:
        file.write("".join(line + "\n" for line in lines))
