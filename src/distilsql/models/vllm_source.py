"""vLLM as the writer of completions: token ids in, token ids out, behind the arguments of `generate.generate_trees`.

vLLM loads models from folders, so that is how weights reach it: `refresh` saves the model as it stands (an adapter
merged into a copy) and has a running engine read the new folder. Written against vLLM's documented interface
(`LLM.generate`, `TokensPrompt`, `SamplingParams`, `collective_rpc("reload_weights")`, `reset_prefix_cache`) and tested
against a stand-in of it; it has not been run on a GPU.
"""

import gc
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from distilsql.errors import ModelError
from distilsql.models.generate import GenerationOptions, Stream
from distilsql.models.load import Precision
from distilsql.models.tree import Completion, PromptTree

# vLLM bounds biases to ±100; e^-100 is no probability worth drawing.
_NEVER = -100.0


class VllmSource:
    """One model and the vLLM engine that writes for it. `memory_share` is the part of the GPU that the engine takes;
    `max_tokens` bounds prompt and completion together."""

    def __init__(
        self,
        model: Any,
        tokenizer: PreTrainedTokenizerBase,
        *,
        precision: Precision,
        memory_share: float,
        max_tokens: int,
    ) -> None:
        self._vllm = _import_vllm()
        self._model, self._tokenizer = model, tokenizer
        self._options = {
            "dtype": precision,
            "gpu_memory_utilization": memory_share,
            "max_model_len": max_tokens,
            "enable_prefix_caching": True,
        }
        self._llm: Any = None

    def refresh(self) -> None:
        """Make the engine write as the model stands now; the first call starts it.

        Every call saves to a folder of a new name, because some versions of vLLM keep what they once read from a
        path (vLLM issue 32718), and forgets the prefixes that the old weights computed.
        """
        with tempfile.TemporaryDirectory(prefix="distilsql-vllm-") as name:
            save_weights(self._model, Path(name))
            if self._llm is None:
                self._tokenizer.save_pretrained(name)
                self._llm = self._vllm.LLM(model=name, **self._options)
                return
            self._llm.collective_rpc("reload_weights", kwargs={"weights_path": name})
        if self._llm.reset_prefix_cache() is False:
            raise ModelError(
                "vLLM did not empty its prefix cache, so it would generate with keys and values of older weights. "
                "Use generation.engine = built-in."
            )

    def generate_all(
        self,
        trees: Sequence[PromptTree],
        options: GenerationOptions,
        *,
        streams: Sequence[Stream] | None = None,
    ) -> list[Completion]:
        """One completion per question of every tree, tree after tree, from one call: the engine forms its own batches.

        `streams` hold one stream per question; its first number seeds the question's own generator.

        Raises:
            ValueError: sampling without a stream per question.
        """
        if self._llm is None:
            self.refresh()
        prompts = [
            self._vllm.TokensPrompt(prompt_token_ids=[*tree.prefix, *question])
            for tree in trees
            for question in tree.questions
        ]
        if options.temperature and (streams is None or len(streams) != len(prompts)):
            raise ValueError(f"sampling {len(prompts)} completions needs a random stream for each")
        seeds = [int(stream(1)[0] * 2**63) for stream in streams or ()] if options.temperature else None
        parameters = [
            self._parameters(options, None if seeds is None else seeds[row]) for row in range(len(prompts))
        ]
        outputs = self._llm.generate(prompts, parameters, use_tqdm=False)
        return [_completion(output.outputs[0], options) for output in outputs]

    def _parameters(self, options: GenerationOptions, seed: int | None) -> Any:
        """Only the tokenizer's EOS ends a completion, whatever the model's own configuration names beside it."""
        outputs = self._model.get_output_embeddings().weight.shape[0]
        padding = range(options.vocabulary_size, outputs)
        return self._vllm.SamplingParams(
            temperature=options.temperature,
            seed=seed,
            max_tokens=options.max_new_tokens,
            stop_token_ids=[options.eos_token_id],
            ignore_eos=True,
            logit_bias=dict.fromkeys(padding, _NEVER) or None,
            detokenize=False,
        )

    def close(self) -> None:
        """Give the engine's memory back."""
        self._llm = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _completion(output: Any, options: GenerationOptions) -> Completion:
    """Token ids, EOS included where it ended the completion: not every version of vLLM returns the stop token."""
    tokens = tuple(int(token) for token in output.token_ids)
    if output.finish_reason == "stop" and tokens[-1:] != (options.eos_token_id,):
        tokens += (options.eos_token_id,)
    return tokens[: options.max_new_tokens]


@torch.no_grad()
def save_weights(model: Any, folder: Path) -> None:
    """Configuration and weights as an ordinary folder; a LoRA adapter is added to a copy, so the model stays as it is
    to the bit."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    weights: dict[str, Tensor] = {}
    stored: set[int] = set()
    for name, tensor in base.state_dict().items():
        if "lora_" in name or tensor.data_ptr() in stored:  # a tied output layer is the input layer
            continue
        stored.add(tensor.data_ptr())
        owner, separator, rest = name.partition(".base_layer.")
        if separator and rest == "weight":
            layer = base.get_submodule(owner)
            tensor = tensor + sum(layer.get_delta_weight(name) for name in layer.active_adapters)
        weights[f"{owner}.{rest}" if separator else name] = tensor.contiguous()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    base.config.save_pretrained(folder)


def _import_vllm() -> Any:
    try:
        import vllm
    except ImportError as error:
        raise ModelError(
            "generation.engine = vllm needs the package vllm, which is not installed or does not start here "
            f"({error}): `pip install 'distilsql[vllm]'` on a machine with a GPU, or set generation.engine to built-in."
        ) from error
    return vllm
