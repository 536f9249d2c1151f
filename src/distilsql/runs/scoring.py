"""Generate predictions for a benchmark and judge them by execution."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from distilsql.data.benchmark import Benchmark
from distilsql.metrics.evaluate import evaluate
from distilsql.models.generate import Completion, GenerationOptions, beam_search, generate
from distilsql.models.tree_model import TreeModel
from distilsql.runs.engines import Engines
from distilsql.runs.prepare import Prepared, TokenizedExample, prepare
from distilsql.runs.recipe import Recipe


@dataclass(frozen=True)
class Decoder:
    """A model ready to answer. `beams` 1 is greedy."""

    model: TreeModel
    tokenizer: Any
    vocabulary_size: int
    max_new_tokens: int
    beams: int = 1
    questions_per_batch: int = 32

    def options(self) -> GenerationOptions:
        return GenerationOptions(int(self.tokenizer.eos_token_id), self.vocabulary_size, self.max_new_tokens)

    def text(self, completion: Completion) -> str:
        """SQL on one line, as evaluators read it."""
        return " ".join(self.tokenizer.decode(completion, skip_special_tokens=True).split())


def answer_all(
    decoder: Decoder, prepared: Prepared, on_batch: Callable[[int], None] | None = None
) -> Iterator[tuple[TokenizedExample, str]]:
    """Each example with its predicted SQL, grouped by prefix and by length of the question."""
    for examples in prepared.by_prefix():
        examples = sorted(examples, key=lambda example: len(example.question))
        for start in range(0, len(examples), decoder.questions_per_batch):
            batch = examples[start : start + decoder.questions_per_batch]
            tree = prepared.tree(batch)
            if decoder.beams > 1:
                written = beam_search(decoder.model, tree, decoder.options(), beams=decoder.beams)
            else:
                written = generate(decoder.model, tree, decoder.options())
            for example, completion in zip(batch, written, strict=True):
                yield example, decoder.text(completion)
            if on_batch is not None:
                on_batch(len(batch))


def score_during_training(recipe: Recipe, engines: Engines, benchmark: Benchmark) -> float:
    """Execution accuracy (0 to 1) of the student as it stands, greedy."""
    prepared = prepare(benchmark, engines.tokenizer, recipe.prompt, training=False)
    decoder = Decoder(
        engines.student, engines.tokenizer, engines.vocabulary_size, recipe.prompt.max_completion_tokens
    )
    answers = {example.example.example_id: sql for example, sql in answer_all(decoder, prepared)}
    predictions = [answers[example.example_id] for example in benchmark.examples]
    return float(evaluate(predictions, benchmark).accuracy)
