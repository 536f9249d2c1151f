"""The decoder of a Llama or Qwen2 in few operations, for steps of few rows on a CPU.

`transformers` runs a layer as more than a hundred operations. At one row, starting them takes longer than computing
them. Here a layer is four products (query, key and value are one, and so are gate and up), two norms, a rotation,
attention. The weights are copies, packed as they were when this was made.

Shapes: N tokens of all rows side by side, D hidden size, H query heads, K key/value heads, S head size.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import LlamaForCausalLM, Qwen2ForCausalLM

from distilsql.models.packed_linear import PackedWeight
from distilsql.threads import one_thread

# Called with a layer's number, query (1, H, N, S), key and value (1, K, N, S), and the scale; returns (1, H, N, S).
Attend = Callable[[int, Tensor, Tensor, Tensor, float], Tensor]

# With fewer tokens, a layer's products take less time than a second thread takes to wake.
_FEW_TOKENS = 16
_LINEARS = (
    *(f"self_attn.{name}_proj" for name in ("q", "k", "v", "o")),
    *(f"mlp.{name}_proj" for name in ("gate", "up", "down")),
)


def fits_lean(causal_lm: Any, fits: Callable[[Tensor], bool] = lambda weight: True) -> bool:
    """Whether the model is computed as `LeanDecoder` does: of one of its classes, nothing in it replaced or hooked,
    with weights that `fits` says can be packed. In bfloat16 it is not: norms are in float32 there."""
    if type(causal_lm) not in (LlamaForCausalLM, Qwen2ForCausalLM) or causal_lm.dtype == torch.bfloat16:
        return False
    config = causal_lm.config
    is_full = all(kind == "full_attention" for kind in getattr(config, "layer_types", None) or ())
    modules = list(causal_lm.base_model.modules())
    is_untouched = not any(
        "forward" in vars(each) or each._forward_hooks or each._forward_pre_hooks for each in modules
    )
    linears = [layer.get_submodule(name) for layer in causal_lm.base_model.layers for name in _LINEARS]
    is_plain = all(type(each) is nn.Linear and fits(each.weight) for each in linears)
    return config.hidden_act == "silu" and is_full and is_untouched and is_plain


class LeanDecoder:
    """`kind` says how weights are packed. Hidden states are those of the model but for rounding; without gradient."""

    @torch.no_grad()
    def __init__(self, decoder: Any, kind: type[PackedWeight]) -> None:
        self._decoder = decoder
        self._layers = [_Layer(layer, kind) for layer in decoder.layers]

    @torch.no_grad()
    def __call__(self, token_ids_N: Tensor, position_ids_N: Tensor, attend: Attend) -> Tensor:
        """Hidden states (N, D) that predict the token after each."""
        with one_thread() if len(token_ids_N) < _FEW_TOKENS else nullcontext():
            return self._hidden(token_ids_N, position_ids_N, attend)

    def _hidden(self, token_ids_N: Tensor, position_ids_N: Tensor, attend: Attend) -> Tensor:
        hidden_ND = self._decoder.embed_tokens(token_ids_N)
        cos_1NS, sin_1NS = self._decoder.rotary_emb(hidden_ND, position_ids_N[None])
        cos_N1S, sin_N1S = cos_1NS[0, :, None], sin_1NS[0, :, None].clone()
        sin_N1S[..., : sin_N1S.shape[-1] // 2].neg_()  # the first half of a rotated head is minus the second
        for number, layer in enumerate(self._layers):
            hidden_ND = layer(hidden_ND, cos_N1S, sin_N1S, number, attend)
        return _normed(hidden_ND, self._decoder.norm)


class _Layer:
    def __init__(self, layer: Any, kind: type[PackedWeight]) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self._before_attention, self._before_mlp = layer.input_layernorm, layer.post_attention_layernorm
        self._scale, self._head_size = attention.scaling, attention.head_dim
        self._heads = attention.q_proj.out_features // self._head_size
        self._key_heads = attention.k_proj.out_features // self._head_size
        self._query_key_value = _packed(kind, (attention.q_proj, attention.k_proj, attention.v_proj))
        self._output = _packed(kind, (attention.o_proj,))
        self._gate_up = _packed(kind, (mlp.gate_proj, mlp.up_proj))
        self._down = _packed(kind, (mlp.down_proj,))

    def __call__(
        self, hidden_ND: Tensor, cos_N1S: Tensor, sin_N1S: Tensor, number: int, attend: Attend
    ) -> Tensor:
        joined_ND = self._query_key_value(_normed(hidden_ND, self._before_attention))
        heads_NHS = joined_ND.unflatten(-1, (-1, self._head_size))
        rotated_NHS, value_NKS = heads_NHS.split((self._heads + self._key_heads, self._key_heads), dim=1)
        other_half_NHS = rotated_NHS.roll(self._head_size // 2, -1)
        rotated_NHS = torch.addcmul(rotated_NHS * cos_N1S, other_half_NHS, sin_N1S)
        query, key = rotated_NHS.split((self._heads, self._key_heads), dim=1)
        query, key, value = (part.transpose(0, 1)[None] for part in (query, key, value_NKS))
        attended = attend(number, query, key, value, self._scale)
        hidden_ND = hidden_ND + self._output(attended[0].transpose(0, 1).flatten(1))
        gate, up = self._gate_up(_normed(hidden_ND, self._before_mlp)).chunk(2, dim=-1)
        return hidden_ND + self._down(F.silu(gate) * up)


def _packed(kind: type[PackedWeight], layers: Sequence[nn.Linear]) -> PackedWeight:
    """The weights of `layers` below one another, packed; only the packed copy is kept."""
    first = layers[0]
    joined = nn.Linear(first.in_features, 1, bias=first.bias is not None, device="meta")
    joined.weight = nn.Parameter(torch.cat([layer.weight for layer in layers]))
    if first.bias is not None:
        joined.bias = nn.Parameter(torch.cat([layer.bias for layer in layers]))
    packed = kind(joined)
    packed.renew()
    joined.weight = nn.Parameter(first.weight.new_empty(0))
    return packed


def _normed(hidden_ND: Tensor, norm: Any) -> Tensor:
    """In few operations; those of `torch.nn.functional.rms_norm` are twice as many on a CPU."""
    length_N1 = torch.linalg.vector_norm(hidden_ND, dim=-1, keepdim=True)
    size = hidden_ND.shape[-1]
    shrink_N1 = length_N1.square_().div_(size).add_(norm.variance_epsilon).rsqrt_()
    return hidden_ND * shrink_N1 * norm.weight
