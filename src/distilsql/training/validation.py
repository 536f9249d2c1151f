"""Scoring on validation questions while a training runs, and the loss there, for a source that goes by it."""

import torch

from distilsql.data.benchmark import Benchmark
from distilsql.distill.loss import Likelihood, completion_loss
from distilsql.distill.reduction import Reduction, position_weights, window_denominator
from distilsql.inference.decoder import Decoder, answer_all
from distilsql.inference.loading import Engines
from distilsql.inference.prepare import prepare
from distilsql.metrics.golds import GoldResults
from distilsql.models.tree import as_branches, targets
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


def own_validation_loss(recipe: Recipe, engines: Engines, benchmark: Benchmark | None, process: int) -> float:
    """This process's addend of the validation loss: the first one takes all of it."""
    return validation_loss(recipe, engines, benchmark) if benchmark is not None and process == 0 else 0.0


@torch.no_grad()
def validation_loss(recipe: Recipe, engines: Engines, benchmark: Benchmark) -> float:
    """The student's mean negative log-likelihood of gold, by the recipe's reduction, on the examples that fit."""
    prepared = prepare(benchmark, engines.tokenizer, recipe.prompt, training=True, filter_seed=recipe.seed)
    reduction, student = Reduction(recipe.distill.reduction), engines.student
    denominator = window_denominator([len(example.gold) for example in prepared.examples], reduction)
    total = 0.0
    for examples in prepared.by_prefix():
        for start in range(0, len(examples), recipe.train.largest_tree):
            part = examples[start : start + recipe.train.largest_tree]
            golds = as_branches([example.gold for example in part])
            weights = position_weights([len(gold.tokens) for gold in golds], reduction, denominator)
            parts = completion_loss(
                student.completion_hidden(prepared.tree(part), golds),
                student.head(),
                vocabulary_size=engines.vocabulary_size,
                likelihood=Likelihood(targets(golds).to(student.device), weights.to(student.device)),
                chunk_rows=recipe.train.loss_chunk_rows,
            )
            total += float(parts.total)
    return total
