"""The output layer: log-probabilities from hidden states, scaled and capped as the model does it."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor


@runtime_checkable
class LogProbsOf(Protocol):
    """Whatever makes log-probabilities of a model's rows: its output layer, or what stands for one."""

    def log_probs(self, hidden_ND: Tensor, vocabulary_size: int, temperature: float = 1.0) -> Tensor:
        """float32 (or float64) log-probabilities over the first `vocabulary_size` tokens."""
        ...


@dataclass(frozen=True)
class Head:
    """A model's output layer: `weight_VD` and an optional bias, possibly longer than the shared vocabulary.

    Some families make logits of its outputs: times `scale` (Granite, Cohere), or softly kept below `cap` in size,
    cap · tanh(x / cap) (Gemma).
    """

    weight_VD: Tensor
    bias_V: Tensor | None = None
    scale: float = 1.0
    cap: float | None = None

    def logits(self, hidden_ND: Tensor, vocabulary_size: int) -> Tensor:
        """float32 (or float64) logits of the first `vocabulary_size` tokens."""
        bias_V = None if self.bias_V is None else self.bias_V[:vocabulary_size]
        return self.shaped(F.linear(hidden_ND, self.weight_VD[:vocabulary_size], bias_V))

    def shaped(self, output_NV: Tensor) -> Tensor:
        """float32 (or float64) logits from the outputs of the linear layer."""
        logits_NV = output_NV.to(_wide(output_NV.dtype))
        if self.scale != 1.0:
            logits_NV = logits_NV * self.scale
        return logits_NV if self.cap is None else self.cap * torch.tanh(logits_NV / self.cap)

    def through_shape(self, grad_NV: Tensor, hidden_ND: Tensor) -> Tensor:
        """The gradient with respect to the linear layer's outputs, from that with respect to the logits."""
        if self.scale != 1.0:
            grad_NV = grad_NV * self.scale
        if self.cap is None:
            return grad_NV
        return grad_NV * (1 - (self.logits(hidden_ND, grad_NV.shape[-1]) / self.cap) ** 2)

    def log_probs(self, hidden_ND: Tensor, vocabulary_size: int, temperature: float = 1.0) -> Tensor:
        """float32 (or float64) log-probabilities over the first `vocabulary_size` tokens."""
        return log_probs(self.logits(hidden_ND, vocabulary_size), temperature)


def log_probs(logits_NV: Tensor, temperature: float = 1.0) -> Tensor:
    """float32 (or float64) log-probabilities of logits at a temperature."""
    logits_NV = logits_NV.to(_wide(logits_NV.dtype))
    if temperature != 1.0:
        logits_NV = logits_NV / temperature
    return torch.log_softmax(logits_NV, dim=-1)


@torch.no_grad()
def token_log_probs(
    head: LogProbsOf, hidden_ND: Tensor, token_N: Tensor, vocabulary_size: int, chunk_rows: int
) -> Tensor:
    """The log-probabilities (N) of the tokens, in float32 (or float64), `chunk_rows` rows of logits at a time."""
    token_N1 = token_N.to(hidden_ND.device).unsqueeze(-1)
    parts = [
        head.log_probs(hidden_RD, vocabulary_size).gather(-1, token_R1).squeeze(-1)
        for hidden_RD, token_R1 in zip(hidden_ND.split(chunk_rows), token_N1.split(chunk_rows), strict=True)
    ]
    return torch.cat(parts)


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32
