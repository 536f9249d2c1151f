"""In how many bits a GGUF file holds a weight. K-quants need rows of a multiple of 256, which small models have not."""

from typing import Literal, get_args

Quantization = Literal["f16", "bf16", "q8_0", "q5_1", "q4_0"]
QUANTIZATIONS: tuple[Quantization, ...] = get_args(Quantization)
