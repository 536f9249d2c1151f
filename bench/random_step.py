"""A training step on random weights and random token ids, which costs what one on real ones costs."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from distilsql.data.example import Example
from distilsql.inference.loading import Engines
from distilsql.inference.prepare import TokenizedExample
from distilsql.models.load import freeze
from distilsql.models.prefix_cache import PrefixCache
from distilsql.models.tree import PromptTree
from distilsql.models.tree_model import TreeModel
from distilsql.runs.recipe import Recipe, make_recipe
from distilsql.training.optimizer import MasterAdamW
from distilsql.training.window import WindowLoss, WindowTrainer
from distilsql.training.window_tree import WindowTree

# What a method asks of a tokenizer, where there is no text: KID's mask token and the end.
TOKENIZER = SimpleNamespace(bos_token_id=0, unk_token_id=None, pad_token_id=None, eos_token_id=1)


def recipe_of(method: str, completion_tokens: int = 128) -> Recipe:
    """The method with its defaults; a student that writes stops after `completion_tokens`. The models are made by the
    caller: the recipe's paths are never read."""
    return make_recipe(
        {
            "method": method,
            "student": {"path": "random", "tuning": "full"},
            "teacher": {"path": "random"},
            "data": {"train": "spider:train"},
            "prompt": {"max_completion_tokens": completion_tokens},
            "train": {"steps": 1},
        }
    )


def random_tree(
    vocabulary: int, *, prompt_tokens: int, questions: int, question_tokens: int, completion_tokens: int
) -> WindowTree:
    """`questions` of one database with random token ids; the same for the same size."""
    rng = np.random.default_rng([prompt_tokens, questions])

    def tokens(count: int) -> tuple[int, ...]:
        return tuple(rng.integers(1, vocabulary, count).tolist())

    key, prefix = f"{prompt_tokens}, {questions}", tokens(prompt_tokens)
    examples = tuple(
        TokenizedExample(
            Example(str(number), key, "", ""), key, tokens(question_tokens), tokens(completion_tokens)
        )
        for number in range(questions)
    )
    tree = PromptTree(prefix, tuple(example.question for example in examples))
    return WindowTree(key, tree, examples, tuple(range(questions)), epoch=0)


def make_engines(student: TreeModel, teacher: Any, cache_bytes: int = 2**30) -> Engines:
    """Of models in memory that share a vocabulary. `teacher` is a causal LM, which is frozen, or None."""
    frozen = None if teacher is None else TreeModel(freeze(teacher))
    return Engines(
        student=student,
        tokenizer=TOKENIZER,
        vocabulary_size=student.causal_lm.config.vocab_size,
        teacher=frozen,
        teacher_prefixes=None if frozen is None else PrefixCache(frozen, cache_bytes),
    )


def loss_and_gradients(trainer: WindowTrainer, items: Sequence[WindowTree]) -> WindowLoss:
    """What the source writes for a window, the teacher, the loss, and its gradients."""
    trained = trainer.source.write(items)
    return trainer.accumulate(items, trained, trainer.denominators(items, trained))


def whole_step(trainer: WindowTrainer, optimizer: MasterAdamW, items: Sequence[WindowTree]) -> None:
    """Loss, gradients, clipping and AdamW. A learning rate of 0 keeps the weights, and with them what is generated,
    alike for all steps."""
    loss_and_gradients(trainer, items)
    optimizer.clip(1.0)
    optimizer.step(0.0)
