"""A local causal language model that answers requests: the teacher of `distilsql synth --teacher`."""

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from distilsql.errors import ModelError
from distilsql.synthesis.teacher.asker import Message, Reply

MAX_ANSWER_TOKENS = 200


class LocalWriter:
    """A transformers folder, or a hub name. Instruction-tuned models are asked by their chat template."""

    is_remote = False

    def __init__(self, path: str) -> None:
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(path)
            self._model = AutoModelForCausalLM.from_pretrained(path)
        except (OSError, ValueError) as error:
            raise ModelError(
                f"The teacher {path} cannot be loaded ({error}); give a transformers folder."
            ) from error
        self.name = str(Path(path).resolve()) if Path(path).exists() else path
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._model.eval().to(self._device)

    def ask(self, messages: Sequence[Message], *, samples: int, temperature: float) -> Reply:
        """Samples from a seed that follows from the request: the same request, the same answers."""
        prompt = self._prompt(messages)
        ids = prompt["input_ids"].to(self._device)
        torch.manual_seed(zlib.crc32(repr([samples, *map(dict, messages)]).encode()))
        sampling = {"do_sample": True, "temperature": temperature} if temperature else {"do_sample": False}
        with torch.inference_mode():
            written = self._model.generate(  # type: ignore[misc]
                ids,
                attention_mask=prompt["attention_mask"].to(self._device),
                max_new_tokens=MAX_ANSWER_TOKENS,
                num_return_sequences=samples if temperature else 1,
                pad_token_id=self._tokenizer.eos_token_id,
                **sampling,
            )
        new = written[:, ids.shape[1] :]
        texts = tuple(self._tokenizer.batch_decode(new, skip_special_tokens=True))
        return Reply(texts if temperature else texts * samples, int(ids.numel() + new.numel()))

    def _prompt(self, messages: Sequence[Message]) -> Any:
        if self._tokenizer.chat_template:
            return self._tokenizer.apply_chat_template(
                [dict(message) for message in messages],
                add_generation_prompt=True,
                return_tensors="pt",
                return_dict=True,
            )
        return self._tokenizer(
            "\n\n".join(message["content"] for message in messages) + "\n", return_tensors="pt"
        )
