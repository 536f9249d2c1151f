"""What tests of methods compute losses from: every completion alone, through the stock forward, in float64."""

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from distilsql.inference.loading import Engines, load_engines
from distilsql.inference.model import Model
from distilsql.inference.prepare import Prepared, TokenizedExample, load_data, prepare
from distilsql.models.tree_model import TreeModel


class Alone(NamedTuple):
    """Both models in float64, as training begins, and the examples that are trained on."""

    engines: Engines
    prepared: Prepared

    def log_probs(
        self, role: str, example: TokenizedExample, completion: Sequence[int], temperature: float = 1.0
    ) -> Tensor:
        """(T, V) log-probabilities of the completion's tokens and all others, from the student or the teacher."""
        model: TreeModel = getattr(self.engines, role)
        prompt = self.prepared.prefixes[example.prefix_key] + example.question
        with torch.no_grad(), model.own_attention():
            logits = model.causal_lm(torch.tensor([prompt + tuple(completion)])).logits[0]
        logits = logits[len(prompt) - 1 : -1, : self.engines.vocabulary_size]
        return torch.log_softmax(logits / temperature, -1)


def alone(settings: Any) -> Alone:
    engines = load_engines(settings, torch.device("cpu"))
    for model in (engines.student, engines.teacher):
        if model is not None:
            model.model.double()
    prepared = prepare(load_data(settings)[0], engines.tokenizer, settings.prompt, training=True)
    return Alone(engines, prepared)


def in_float64(model: Model) -> Model:
    """A copy that computes in float64, for tests that compare tokens: rounding chooses none there."""
    causal_lm = copy.deepcopy(model.decoder.model.causal_lm).double()
    return replace(model, decoder=replace(model.decoder, model=TreeModel(causal_lm)))
