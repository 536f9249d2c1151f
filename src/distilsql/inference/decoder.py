"""Generate answers to a benchmark's examples, and score a student with them while it trains."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from distilsql.data.benchmark import Task
from distilsql.databases.normalise import without_comments
from distilsql.databases.url import Engine
from distilsql.databases.written_sql import Wrapping, query_in
from distilsql.inference.prepare import Prepared, TokenizedExample
from distilsql.models.batches import fill_batches
from distilsql.models.generate import GenerationOptions, Stream, beam_search, generate_trees, uniform_stream
from distilsql.models.tree import Completion, PromptTree
from distilsql.models.tree_model import TreeModel


@dataclass(frozen=True)
class DecodedAnswer:
    """What a model answered: SQL or a response. `stripped` says what stood around the SQL in `written`."""

    text: str
    stripped: tuple[Wrapping, ...] = ()
    written: str = ""


@dataclass(frozen=True)
class Decoder:
    """A model ready to answer: greedily, with several `beams`, or by samples at a `temperature` above 0.

    A sample depends on `seed` and the example's id alone, not on what else is asked.
    """

    model: TreeModel
    tokenizer: Any
    vocabulary_size: int
    max_new_tokens: int
    beams: int = 1
    questions_per_batch: int = 64
    temperature: float = 0.0
    seed: int = 0

    def options(self) -> GenerationOptions:
        return GenerationOptions(
            int(self.tokenizer.eos_token_id), self.vocabulary_size, self.max_new_tokens, self.temperature
        )

    def stream(self, example_id: str, *number: int) -> Stream:
        """The random numbers of an example's sample; `number` tells several of one example apart."""
        digest = hashlib.sha256(example_id.encode()).digest()
        return uniform_stream(self.seed, int.from_bytes(digest[:8], "big"), *number)

    def answer(self, completion: Completion, task: Task, engine: Engine = "sqlite") -> DecodedAnswer:
        """SQL without what chat models put around it, comments and extra white space; a response as it was written."""
        text = str(self.tokenizer.decode(completion, skip_special_tokens=True))
        if task != "sql":
            return DecodedAnswer(text.strip())
        found = query_in(text)
        return DecodedAnswer(without_comments(found.sql, engine), found.stripped, text)


def answer_all(decoder: Decoder, prepared: Prepared) -> Iterator[tuple[TokenizedExample, DecodedAnswer]]:
    """Each example with the model's answer, grouped by prefix and by length of the question."""
    groups = [
        sorted(examples, key=lambda example: len(example.question)) for examples in prepared.by_prefix()
    ]
    for batch in fill_batches(groups, decoder.questions_per_batch):
        trees = [prepared.tree(examples) for examples in batch]
        written = _write(
            decoder, trees, [[each.example.example_id for each in examples] for examples in batch]
        )
        for examples, completions in zip(batch, written, strict=True):
            for example, completion in zip(examples, completions, strict=True):
                yield example, decoder.answer(completion, prepared.task, prepared.engine_of(example))


def write_answer(
    decoder: Decoder, tree: PromptTree, example_id: str, engine: Engine = "sqlite"
) -> DecodedAnswer:
    """The SQL for the one question of `tree`, about a database of this `engine`."""
    ((completion,),) = _write(decoder, [tree], [[example_id]])
    return decoder.answer(completion, "sql", engine)


def _write(
    decoder: Decoder, trees: Sequence[PromptTree], example_ids: Sequence[Sequence[str]]
) -> list[list[Completion]]:
    if decoder.beams > 1:
        return [beam_search(decoder.model, tree, decoder.options(), beams=decoder.beams) for tree in trees]
    streams = [[decoder.stream(example_id) for example_id in each] for each in example_ids]
    return generate_trees(decoder.model, trees, decoder.options(), streams=streams)
