"""Scoring on validation questions while a training runs."""

from distilsql.data.benchmark import Benchmark
from distilsql.inference.decoder import Decoder, answer_all
from distilsql.inference.loading import Engines
from distilsql.inference.prepare import prepare
from distilsql.metrics.golds import GoldResults
from distilsql.runs.evaluate import judge
from distilsql.runs.recipe import Recipe


def score_during_training(
    recipe: Recipe, engines: Engines, benchmark: Benchmark, golds: GoldResults
) -> float:
    """The current student's score with greedy decoding: execution accuracy or mean ROUGE-L, 0 to 1."""
    prepared = prepare(benchmark, engines.tokenizer, recipe.prompt, training=False)
    decoder = Decoder(
        engines.student, engines.tokenizer, engines.vocabulary_size, recipe.prompt.max_completion_tokens
    )
    answers = {example.example.example_id: answer.text for example, answer in answer_all(decoder, prepared)}
    return judge([answers[example.example_id] for example in benchmark.examples], benchmark, golds)
