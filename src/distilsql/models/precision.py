"""Which precision a model computes in where the recipe leaves it open: `auto`.

A GPU with bfloat16 computes in it. A CPU does where it multiplies bfloat16 faster than float32, which takes
instructions that most do not have (AVX512-BF16, AMX): without them bfloat16 is several times slower. What the
processor says it can do is not the whole answer, as it may be emulated or switched off; so a product is timed, too.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from transformers import AutoConfig, PretrainedConfig

from distilsql.models.embedded import resolve
from distilsql.models.load import DTYPES, Precision
from distilsql.threads import one_thread

log = logging.getLogger(__name__)

AskedPrecision = Literal["auto", "bfloat16", "float32"]

# bfloat16 has to be this many times as fast. Processors are far above (with its instructions) or below; where both were
# alike, two starts could decide differently, and float32 rounds less.
WORTH_IT = 1.25

Shape = tuple[int, int, int]  # rows, inputs, outputs of a product
ProductSeconds = Callable[[Precision, Shape], float]

# Few enough operations for milliseconds on any processor: 64 rows, and no more than these inputs and outputs.
_ROWS, _MOST_INPUTS, _MOST_OUTPUTS = 64, 1024, 2048
_REPEATS = 4


@dataclass(frozen=True)
class PrecisionChoice:
    """A precision, and in words what it was chosen by."""

    precision: Precision
    reason: str

    def __str__(self) -> str:
        return f"Computes in {self.precision}: {self.reason}."


def choose_precision(model: str | PretrainedConfig, device: torch.device) -> PrecisionChoice:
    """The precision on `device` for a model, given by its path or its configuration. A path that holds no model is no
    error here: loading is."""
    if device.type == "cuda":
        # Older GPUs emulate bfloat16, slower than float32.
        has_it = torch.cuda.is_bf16_supported(including_emulation=False)
        name = torch.cuda.get_device_name(device)
        return PrecisionChoice(
            "bfloat16" if has_it else "float32", f"{name} has {'' if has_it else 'no '}bfloat16"
        )
    if device.type != "cpu":
        return PrecisionChoice("float32", f"bfloat16 was not tried on {device.type}")
    return choose_on_cpu(product_shape(model))


def choose_on_cpu(
    shape: Shape, *, has_instructions: bool | None = None, seconds: ProductSeconds | None = None
) -> PrecisionChoice:
    """The precision for products of `shape`; what this processor has, and how long a product takes, unless given."""
    if not (cpu_has_bfloat16() if has_instructions is None else has_instructions):
        return PrecisionChoice("float32", "this processor has no instructions for bfloat16")
    timed = seconds or product_seconds
    times_as_fast = timed("float32", shape) / timed("bfloat16", shape)
    compared = f"this processor multiplies bfloat16 {times_as_fast:.2g} times as fast as float32"
    return PrecisionChoice("bfloat16" if times_as_fast >= WORTH_IT else "float32", compared)


def settled_precision(
    asked: AskedPrecision, model: str | PretrainedConfig, device: torch.device
) -> Precision:
    """What was asked for; for `auto` what suits the model on `device` (see `choose_precision`), logged."""
    if asked != "auto":
        return asked
    choice = choose_precision(model, device)
    log.info(str(choice))
    return choice.precision


def product_shape(model: str | PretrainedConfig) -> Shape:
    """The product that a feed-forward layer of the model begins with, cut to what takes milliseconds."""
    try:
        whole = AutoConfig.from_pretrained(resolve(model)) if isinstance(model, str) else model
        config = whole.get_text_config()
    except (OSError, ValueError):
        return _ROWS, _MOST_INPUTS, _MOST_OUTPUTS
    inputs = int(config.hidden_size)
    outputs = int(getattr(config, "intermediate_size", None) or 4 * inputs)
    return _ROWS, min(inputs, _MOST_INPUTS), min(outputs, _MOST_OUTPUTS)


def product_seconds(precision: Precision, shape: Shape) -> float:
    """Seconds of a product on one thread of the CPU: the least of several, since another process may interrupt."""
    rows, inputs, outputs = shape
    generator = torch.Generator().manual_seed(0)
    input_XI, weight_OI = (
        torch.randn(count, inputs, generator=generator).to(DTYPES[precision]) for count in (rows, outputs)
    )
    seconds = []
    with one_thread():
        for _ in range(_REPEATS):
            start = time.perf_counter()
            torch.nn.functional.linear(input_XI, weight_OI)
            seconds.append(time.perf_counter() - start)
    return min(seconds)


def cpu_has_bfloat16() -> bool:
    """Whether oneDNN, which multiplies bfloat16 for torch, may use instructions for it (AVX-512 at least, or Arm's)."""
    return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
