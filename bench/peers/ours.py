"""Our own methods behind the contenders' interface: trees, or the padded layout that they are proved against."""

from collections.abc import Sequence
from typing import Any

import torch

from distilsql.data.example import Example
from distilsql.inference.loading import Engines
from distilsql.inference.prepare import TokenizedExample
from distilsql.models.load import freeze
from distilsql.models.prefix_cache import PrefixCache
from distilsql.models.tree import PromptTree
from distilsql.models.tree_model import Layout, TreeModel
from distilsql.runs.recipe import Recipe, make_recipe
from distilsql.training.ledger import Ledger, Phase
from distilsql.training.optimizer import MasterAdamW
from distilsql.training.window import WindowTrainer
from distilsql.training.window_tree import WindowTree
from peers.contender import Done, Models, Options, Row, Step, Stopwatch, groups_of
from random_step import loss_and_gradients


def make_step(models: Models, options: Options, *, method: str, layout: Layout) -> Step:
    recipe = _recipe(method, options)
    engines = _engines(models, recipe, layout)
    positions = _Positions(engines.student.decoder)
    optimizer = MasterAdamW(engines.student.model, learning_rate=options.learning_rate, weight_decay=0.0)

    def step(rows: Sequence[Row]) -> Done:
        ledger = Ledger(models.device)
        trainer = WindowTrainer(recipe, engines, ledger)
        items = _trees(rows)
        positions.count = 0
        watch = Stopwatch(models.device)
        loss = loss_and_gradients(trainer, items)
        with ledger.phase(Phase.OPTIMIZER):
            if options.max_norm is not None:
                optimizer.clip(options.max_norm)
            optimizer.step(options.learning_rate)
        seconds = watch.seconds()
        return Done(
            seconds=seconds,
            rows=loss.examples,
            trained_tokens=max(loss.divergence_positions, loss.likelihood_positions),
            positions=positions.count,
            loss=loss.total,
            phases={phase.value: round(value, 3) for phase, value in ledger.seconds.items() if value},
            counts={name: int(value) for name, value in ledger.counts.items()},
        )

    return step


class _Positions:
    """Counts what goes through a decoder with gradient, padding included."""

    def __init__(self, decoder: torch.nn.Module) -> None:
        self.count = 0
        decoder.register_forward_pre_hook(self._add, with_kwargs=True)

    def _add(self, _: torch.nn.Module, __: tuple[Any, ...], inputs: dict[str, Any]) -> None:
        if torch.is_grad_enabled():
            self.count += inputs["input_ids"].numel()


def _recipe(method: str, options: Options) -> Recipe:
    """The method with its defaults. The models are in memory: the recipe's paths are never read."""
    return make_recipe(
        {
            "method": method,
            "student": {"path": "memory", "tuning": "full"},
            "teacher": {"path": "memory"},
            "data": {"train": "spider:train"},
            "distill": {
                "reduction": "per_token"
            },  # the mean over the step's tokens, as everybody else takes it
            "prompt": {"max_completion_tokens": options.max_new_tokens},
            "train": {"steps": 1},
        }
    )


def _engines(models: Models, recipe: Recipe, layout: Layout) -> Engines:
    teacher = None
    if recipe.row.needs_teacher:
        if models.teacher is None:
            raise ValueError(f"{recipe.method} distils, and was given no teacher")
        teacher = TreeModel(freeze(models.teacher), layout=layout)
    size = models.vocabulary_size
    return Engines(
        student=TreeModel(models.student, layout=layout),
        tokenizer=models.tokenizer,
        vocabulary_size=size if teacher is None else min(size, models.teacher.config.vocab_size),
        teacher=teacher,
        teacher_prefixes=None
        if teacher is None
        else PrefixCache(teacher, recipe.train.teacher_cache_mb * 2**20),
    )


def _trees(rows: Sequence[Row]) -> list[WindowTree]:
    items, number = [], 0
    for group in groups_of(rows):
        key = str(hash(group[0].prefix))
        examples = tuple(
            TokenizedExample(Example(str(number + n), key, "", ""), key, row.question, tuple(row.completion))
            for n, row in enumerate(group)
        )
        tree = PromptTree(group[0].prefix, tuple(example.question for example in examples))
        items.append(WindowTree(key, tree, examples, tuple(range(number, number + len(group))), epoch=0))
        number += len(group)
    return items
