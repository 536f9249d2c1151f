"""Models with random weights in the shapes of real ones, rows of random tokens, and what every program here records."""

import json
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, Qwen2Config

TOY = "toy"


@dataclass(frozen=True)
class Shape:
    """A Qwen2's size."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    key_heads: int
    vocabulary: int
    tied: bool

    @property
    def layer_weights(self) -> int:
        """Weights of all linear layers but the output layer."""
        head_size = self.hidden // self.heads
        attention = 2 * self.hidden * self.hidden + 2 * self.hidden * self.key_heads * head_size
        return self.layers * (attention + 3 * self.hidden * self.intermediate)

    def config(self) -> Any:
        return Qwen2Config(
            vocab_size=self.vocabulary,
            hidden_size=self.hidden,
            intermediate_size=self.intermediate,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.key_heads,
            max_position_embeddings=32768,
            rope_theta=1_000_000.0,
            tie_word_embeddings=self.tied,
            bos_token_id=0,
            eos_token_id=1,
        )


SHAPES = {
    TOY: Shape(2, 64, 128, 4, 2, 512, True),
    "0.5b": Shape(24, 896, 4864, 14, 2, 151_936, True),
    "1.5b": Shape(28, 1536, 8960, 12, 2, 151_936, True),
    "7b": Shape(28, 3584, 18_944, 28, 4, 151_936, False),
}


def random_model(name: str, device: torch.device, dtype: torch.dtype) -> Any:
    """Weights of standard deviation 0.02, made on the device."""
    torch.manual_seed(0)
    with device, default_dtype(dtype):
        return AutoModelForCausalLM.from_config(SHAPES[name].config(), dtype=dtype).eval()


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def the_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def machine(device: torch.device) -> dict[str, Any]:
    """What the figures were taken on, and the two rates that bound them: of matrix products and of copies."""
    described: dict[str, Any] = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    if device.type == "cuda":
        described["bfloat16_tflops"] = matrix_tflops(device)
    return described


def matrix_tflops(device: torch.device, size: int = 8192) -> float:
    """Of a product of two random bfloat16 matrices."""
    left, right = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    seconds = min(event_seconds(lambda: left @ right) for _ in range(10))
    return 2 * size**3 / seconds / 1e12


def event_seconds(work: Callable[[], object]) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    work()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / 1000


class Rows:
    """Rows of a result, in a JSON file that is whole after every one: a run that is cut short leaves what it has."""

    def __init__(self, path: Path, device: torch.device) -> None:
        self._path = path
        self._document: dict[str, Any] = {"machine": machine(device), "rows": []}

    def add(self, row: dict[str, Any]) -> None:
        self._document["rows"].append(row)
        self._path.write_text(json.dumps(self._document, indent=1) + "\n")
        print(json.dumps(row), flush=True)
