"""A model that can be asked, and how it is asked."""

import hashlib
from dataclasses import dataclass

from distilsql.inference.decoder import Decoder
from distilsql.runs.sections import PromptSettings


@dataclass(frozen=True)
class Model:
    """A model that can be asked: a finished run's student, or any `transformers` folder with prompt settings.

    `origin` identifies the weights.
    """

    decoder: Decoder
    prompt: PromptSettings
    origin: str = ""

    def fingerprint(self) -> str:
        """A hash of everything that determines an answer except the question."""
        decoder = self.decoder
        parts = (self.origin, self.prompt, decoder.beams, decoder.temperature, decoder.seed)
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
