"""A stand-in for the part of vLLM that is used: the same calls, answered by `transformers` from the same folders."""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


@dataclass
class SamplingParams:
    """Only arguments that vLLM's own class has: anything else is a TypeError, as it would be there."""

    temperature: float = 1.0
    seed: int | None = None
    max_tokens: int | None = 16
    stop_token_ids: list[int] | None = None
    ignore_eos: bool = False
    logit_bias: dict[int, float] | None = None
    detokenize: bool = True


class LLM:
    returns_stop_token = True
    empties_cache = True
    started: list["LLM"]

    def __init__(
        self,
        model: str,
        *,
        dtype: str,
        gpu_memory_utilization: float,
        max_model_len: int,
        enable_prefix_caching: bool,
    ) -> None:
        AutoTokenizer.from_pretrained(model)
        self.max_model_len = max_model_len
        self.paths = [model]
        self.dtype = dtype
        self.caches = enable_prefix_caching
        self.stale = False
        self.calls: list[list[SamplingParams]] = []
        self._load(model)
        LLM.started.append(self)

    def _load(self, path: str) -> None:
        self.model = AutoModelForCausalLM.from_pretrained(path, dtype=getattr(torch, self.dtype)).eval()

    def collective_rpc(self, method: str, kwargs: dict[str, Any]) -> None:
        assert method == "reload_weights"
        path = kwargs["weights_path"]
        assert path not in self.paths, "some versions keep what they read from a path"
        self.paths.append(path)
        self._load(path)
        self.stale = True

    def reset_prefix_cache(self) -> bool:
        self.stale = not self.empties_cache
        return self.empties_cache

    def generate(self, prompts, sampling_params, use_tqdm=True) -> list[Any]:
        assert not self.stale, "prefixes of older weights"
        self.calls.append(sampling_params)
        return [self._one(prompt, one) for prompt, one in zip(prompts, sampling_params, strict=True)]

    @torch.no_grad()
    def _one(self, prompt, parameters: SamplingParams) -> Any:
        tokens = list(prompt["prompt_token_ids"])
        assert len(tokens) + parameters.max_tokens <= self.max_model_len
        written, reason = [], "length"
        generator = torch.Generator().manual_seed(parameters.seed or 0)
        for _ in range(parameters.max_tokens):
            logits = self.model(input_ids=torch.tensor([tokens + written])).logits[0, -1].float()
            for token, bias in (parameters.logit_bias or {}).items():
                logits[token] += bias
            if parameters.temperature:
                probability = torch.softmax(logits / parameters.temperature, -1)
                token = int(torch.multinomial(probability, 1, generator=generator))
            else:
                token = int(logits.argmax())
            if token in parameters.stop_token_ids:
                reason = "stop"
                written += [token] * self.returns_stop_token
                break
            written.append(token)
        return SimpleNamespace(outputs=[SimpleNamespace(token_ids=written, finish_reason=reason)])


def TokensPrompt(*, prompt_token_ids: list[int]) -> dict[str, list[int]]:
    return {"prompt_token_ids": prompt_token_ids}
