"""Run a causal language model on PromptTrees: one pass or several, hidden states at completion positions only.

`TreeModel` wraps any `transformers` causal LM (with or without LoRA). Its layouts give the same hidden states:

- `tree`: one row of tokens. Models that take an attention implementation run attention by parts (`attention.py`)
  on a CPU and a block mask (`flex_attention.py`) on a GPU; the others a dense 4-D mask through the stock forward;
- `padded`: every prompt and completion as a sequence of its own, right-padded, through the stock forward with the
  model's own attention. The reference in tests, and the fall-back for models that cannot run a tree exactly.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor, nn
from transformers import DynamicCache

from distilsql.distill.head import Head, log_probs
from distilsql.errors import ModelError
from distilsql.models.attention import IMPLEMENTATION, TreeContext, additive, attend_on_tree
from distilsql.models.flex_attention import fits_flex_attention, flex_pass
from distilsql.models.half_linear import HalfWeight, fits_half
from distilsql.models.int8_linear import Int8Weight, fits_int8
from distilsql.models.layer_pass import KeyValue
from distilsql.models.lean_decoder import LeanDecoder, fits_lean
from distilsql.models.load import Precision
from distilsql.models.packed_linear import PackedLinears, PackedWeight, packs
from distilsql.models.padded_rows import padded_hidden
from distilsql.models.sharding import Unsharded
from distilsql.models.tree import (
    Branch,
    Nodes,
    PassLayout,
    PromptTree,
    branch_inputs,
    branch_nodes,
    flatten_prompt,
    predicting_rows,
    prefix_nodes,
    question_nodes,
)

Layout = Literal["tree", "padded"]
AttentionKind = Literal["parts", "flex", "dense"]
DecodingWeights = Literal["float16", "int8"]

# How they are packed, which weights can be, and where.
_DECODING_KINDS: dict[DecodingWeights, tuple[type[PackedWeight], Callable[[Tensor], bool], str]] = {
    "float16": (HalfWeight, fits_half, "an x86 CPU, in float32"),
    "int8": (Int8Weight, fits_int8, "a CPU, in float32 or bfloat16"),
}


@dataclass(frozen=True)
class PrefixState:
    """Keys and values of a database prefix, per layer, each (1, K, P, D)."""

    nodes: Nodes
    layers: list[KeyValue]

    def bytes(self) -> int:
        return sum(key.nbytes + value.nbytes for key, value in self.layers)


@dataclass(frozen=True)
class PromptState:
    """Everything a branch pass continues from: the prefix, the questions, and what predicts a first token.

    `question_end_GD` is the hidden state of each question's last token.
    """

    tree: PromptTree
    prefix: PrefixState
    rest_nodes: Nodes
    rest: list[KeyValue]
    question_end_GD: Tensor

    def detached(self) -> "PromptState":
        """The same state without gradient: for passes that rewrite or generate."""
        return PromptState(
            self.tree,
            PrefixState(self.prefix.nodes, [(k.detach(), v.detach()) for k, v in self.prefix.layers]),
            self.rest_nodes,
            [(k.detach(), v.detach()) for k, v in self.rest],
            self.question_end_GD.detach(),
        )


class _TreePass(TreeContext):
    """TreeContext with the method that the attention function calls."""

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        return attend_on_tree(self, layer, query, key, value, scale)


class TreeModel:
    """A causal LM that can run PromptTrees. `model` may be a PEFT model; it is kept in eval mode (no dropout).
    `sharding` runs its passes where its weights are spread over processes."""

    def __init__(
        self,
        model: nn.Module,
        *,
        layout: Layout = "tree",
        attention: AttentionKind | None = None,
        sharding: Unsharded | None = None,
    ) -> None:
        self.model = model.eval()
        self.causal_lm: Any = base_model(model)
        self.sharding = sharding or Unsharded(self.causal_lm)
        self.decoder: Any = self.causal_lm.base_model
        self.layout: Layout = layout
        self.attention: AttentionKind = attention or default_attention(self.causal_lm)
        self._own_attention: str = self.causal_lm.config._attn_implementation
        if self.attention != "dense":
            self.causal_lm.set_attn_implementation(IMPLEMENTATION)
        self._packed: tuple[PackedLinears, PackedWeight | None] | None = None
        self.lean: LeanDecoder | None = None

    @property
    def device(self) -> torch.device:
        return next(self.causal_lm.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return self.sharding.dtype

    @property
    def runs_dense_trees(self) -> bool:
        """Whether trees run through the stock forward, with a dense mask and the model's own cache."""
        return self.layout == "tree" and self.attention == "dense"

    @property
    def precision(self) -> Precision:
        """What it computes in, as recipes name it."""
        return cast(Precision, str(self.dtype).removeprefix("torch."))

    @contextmanager
    def own_attention(self) -> Iterator[None]:
        """The model attends as it was loaded in here: its stock forward is what `transformers` makes of it."""
        used = self.causal_lm.config._attn_implementation
        if used == self._own_attention:
            yield
            return
        self.causal_lm.set_attn_implementation(self._own_attention)
        try:
            yield
        finally:
            self.causal_lm.set_attn_implementation(used)

    def head(self) -> Head:
        """The output layer; its weight carries gradient only where it is trained."""
        self.sharding.gather_head()
        layer, config = self.causal_lm.get_output_embeddings(), self.causal_lm.config
        # Granite divides its logits, Cohere multiplies them.
        scale = (getattr(config, "logit_scale", None) or 1.0) / (
            getattr(config, "logits_scaling", None) or 1.0
        )
        cap = getattr(config, "final_logit_softcapping", None)
        return Head(layer.weight, getattr(layer, "bias", None), scale, cap)

    def decoding_weights(self) -> tuple[PackedLinears, Callable[[Tensor, int], Tensor]]:
        """For many small passes without gradient: the decoder's weights as they are now, packed where that is
        faster, and the head, from hidden states (N, D) and V to log-probabilities (N, V)."""
        if self._packed is None:
            layer = self.causal_lm.get_output_embeddings()
            # Weights that are gathered anew each time do not say that they have changed.
            is_own = not self.sharding.is_sharded
            is_plain = is_own and type(layer) is nn.Linear and packs(layer.weight)
            linears = PackedLinears(self.decoder if is_own else nn.Module())
            self._packed = linears, PackedWeight(layer) if is_plain else None
        linears, packed_head = self._packed
        linears.renew()
        head = self.head()
        if packed_head is None:
            return linears, head.log_probs
        packed_head.renew()
        return linears, lambda hidden_ND, size: log_probs(head.shaped(packed_head(hidden_ND)[:, :size]))

    def can_decode_in(self, weights: DecodingWeights) -> bool:
        layer = self.causal_lm.get_output_embeddings()
        _, fits, _ = _DECODING_KINDS[weights]
        return self.layout == "tree" and type(layer) is nn.Linear and fits(layer.weight)

    def decode_in(self, weights: DecodingWeights) -> None:
        """Decode with copies of the weights in fewer bits from now on; prompts are run as before. The model's weights
        must not change any more. Raises ModelError where that cannot be computed."""
        kind, fits, where = _DECODING_KINDS[weights]
        if not self.can_decode_in(weights):
            raise ModelError(
                f"Weights in {weights} are for decoding on {where}, with a plain output layer, by a model that runs "
                f"trees exactly: leave out --weights {weights}."
            )
        is_lean = self.attention == "parts" and fits_lean(self.causal_lm, fits)
        self.lean = LeanDecoder(self.decoder, kind) if is_lean else None
        linears = PackedLinears(nn.Module() if is_lean else self.decoder, kind, fits)
        self._packed = linears, kind(self.causal_lm.get_output_embeddings())

    # ---- one pass over everything ------------------------------------------------------------------------

    def completion_hidden(
        self, tree: PromptTree, branches: Sequence[Branch], prefix: PrefixState | None = None
    ) -> Tensor:
        """Hidden states (N, D) that predict the completion tokens of `branches`, branch after branch.

        Questions without a branch are run all the same. With `prefix`, its keys and values are reused.
        """
        if self.layout == "padded":
            with self.sharding.in_step():
                rows = padded_hidden(self._run_padded, tree, branches)
                hidden_ND = torch.cat(rows) if rows else self._no_rows()
            return self.sharding.joined(hidden_ND)
        new_prefix = prefix_nodes(0 if prefix else len(tree.prefix))
        rest = Nodes.joined([question_nodes(tree), branch_nodes(tree, branches)])
        tokens = [flatten_prompt(tree), branch_inputs(branches)]
        if not prefix:
            tokens.insert(0, np.array(tree.prefix, dtype=np.int64))
        layout = PassLayout(
            np.concatenate(tokens),
            Nodes.joined([new_prefix, rest]),
            past_prefix=prefix.nodes if prefix else Nodes.empty(),
        )
        hidden_TD, _ = self._run(layout, prefix.layers if prefix else None, None)
        prompt_length = len(new_prefix) + sum(map(len, tree.questions))
        hidden_rows = torch.cat([hidden_TD[_question_ends(tree, len(new_prefix))], hidden_TD[prompt_length:]])
        return hidden_rows[predicting_rows(branches, len(tree.questions)).to(hidden_TD.device)]

    # ---- several passes ----------------------------------------------------------------------------------

    def run_prefix(self, tokens: Sequence[int]) -> PrefixState:
        """Keys and values of a database prefix alone."""
        nodes = prefix_nodes(len(tokens))
        _, context = self._run(PassLayout(np.array(tokens, dtype=np.int64), nodes), None, None)
        return PrefixState(nodes, context.new_prefix)

    def run_prompts(self, tree: PromptTree, prefix: PrefixState | None = None) -> PromptState:
        """Run prefix (unless given) and questions; branches can then be run from the result any number of times."""
        new_prefix = prefix_nodes(0 if prefix else len(tree.prefix))
        questions = question_nodes(tree)
        tokens = (
            [flatten_prompt(tree)]
            if prefix
            else [np.array(tree.prefix, dtype=np.int64), flatten_prompt(tree)]
        )
        layout = PassLayout(
            np.concatenate(tokens),
            Nodes.joined([new_prefix, questions]),
            past_prefix=prefix.nodes if prefix else Nodes.empty(),
        )
        hidden_TD, context = self._run(layout, prefix.layers if prefix else None, None)
        ends_GD = hidden_TD[_question_ends(tree, len(new_prefix))]
        state = prefix or PrefixState(new_prefix, context.new_prefix)
        return PromptState(tree, state, questions, context.new_rest, ends_GD)

    def run_branches(self, state: PromptState, branches: Sequence[Branch]) -> Tensor:
        """Hidden states (N, D) of branches that continue from a prompt state. Gradient flows into the state."""
        layout = PassLayout(
            branch_inputs(branches),
            branch_nodes(state.tree, branches),
            past_prefix=state.prefix.nodes,
            past=state.rest_nodes,
        )
        rows = predicting_rows(branches, len(state.tree.questions)).to(state.question_end_GD.device)
        hidden_ND = state.question_end_GD
        with self.sharding.in_step():
            if len(layout.token_ids_T):
                hidden_TD, _ = self._run(layout, state.prefix.layers, state.rest)
                hidden_ND = torch.cat([hidden_ND, hidden_TD])
        return self.sharding.joined(hidden_ND[rows])

    # ---- the forward pass itself -------------------------------------------------------------------------

    def _run(
        self, layout: PassLayout, past_prefix: list[KeyValue] | None, past_rest: list[KeyValue] | None
    ) -> tuple[Tensor, TreeContext]:
        """Hidden states (T, D) of the new tokens, and their keys and values."""
        if self.attention == "dense":
            return self._run_dense(layout, past_prefix, past_rest)
        token_count = len(layout.token_ids_T)
        context: TreeContext
        if self.attention == "flex":
            layout, context = flex_pass(layout, past_prefix, past_rest, self.device)
        else:
            groups = layout.groups() if len(layout.rest_nodes()) else None
            context = _TreePass(layout.new_prefix_length, groups, past_prefix, past_rest)
        token_ids_1T, position_ids_1T = self._inputs(layout)
        # A 4-D mask is passed on as it is; attention on a tree does not read it.
        unread_mask = torch.zeros(1, 1, 1, 1, dtype=self.dtype, device=self.device)
        output = self.sharding.run(
            input_ids=token_ids_1T,
            position_ids=position_ids_1T,
            attention_mask=unread_mask,
            use_cache=False,
            tree=context,
        )
        return output.last_hidden_state[0, :token_count], context

    def _inputs(self, layout: PassLayout) -> tuple[Tensor, Tensor]:
        """Token ids and position ids (1, T); a padding token, whose depth is −1, is given position 0."""
        position_ids_T = np.maximum(layout.nodes.depth_T, 0)
        return (
            torch.from_numpy(layout.token_ids_T).to(self.device).unsqueeze(0),
            torch.from_numpy(position_ids_T).to(self.device).unsqueeze(0),
        )

    def _run_dense(
        self, layout: PassLayout, past_prefix: list[KeyValue] | None, past_rest: list[KeyValue] | None
    ) -> tuple[Tensor, TreeContext]:
        token_ids_1T, position_ids_1T = self._inputs(layout)
        allowed = layout.dense_mask().to(self.device)
        mask = additive(~allowed, self.dtype, torch.finfo(self.dtype).min)
        cache: Any = DynamicCache()
        for layer, (key, value) in enumerate(_joined_layers(past_prefix, past_rest)):
            cache.update(key, value, layer)
        past_length = allowed.shape[1] - allowed.shape[0]
        with self.own_attention():
            output = self.sharding.run(
                input_ids=token_ids_1T,
                position_ids=position_ids_1T,
                attention_mask=mask[None, None],
                past_key_values=cache,
                use_cache=True,
            )
        context = TreeContext(layout.new_prefix_length, None, past_prefix, past_rest)
        split = past_length + layout.new_prefix_length
        for cached in cache.layers:
            if layout.new_prefix_length:
                context.new_prefix.append(
                    (cached.keys[:, :, past_length:split], cached.values[:, :, past_length:split])
                )
            context.new_rest.append((cached.keys[:, :, split:], cached.values[:, :, split:]))
        return output.last_hidden_state[0], context

    def _run_padded(self, token_ids_BT: Tensor, attention_mask_BT: Tensor) -> Tensor:
        """Hidden states (B, T, D) of right-padded rows, through the stock forward."""
        width = token_ids_BT.shape[1]
        with self.own_attention():
            output = self.sharding.run(
                input_ids=token_ids_BT.to(self.device),
                attention_mask=attention_mask_BT.to(self.device),
                position_ids=torch.arange(width, device=self.device).expand(len(token_ids_BT), -1),
                use_cache=False,
            )
        return output.last_hidden_state

    def _no_rows(self) -> Tensor:
        return torch.zeros(0, self.causal_lm.config.hidden_size, dtype=self.dtype, device=self.device)


def base_model(model: Any) -> Any:
    """The causal LM itself: of a PEFT model the wrapped one, its LoRA layers in place."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def default_attention(causal_lm: Any) -> AttentionKind:
    """By parts on a CPU, by blocks on a GPU that fits, for models whose layers take `tree=`; dense elsewhere."""
    if not getattr(causal_lm, "_supports_attention_backend", False):
        return "dense"
    device = next(causal_lm.parameters()).device
    if device.type == "cpu":
        return "parts"
    return "flex" if fits_flex_attention(causal_lm.config, device) else "dense"


def _question_ends(tree: PromptTree, new_prefix_length: int) -> Tensor:
    """Row of each question's last token; an empty question ends where the prefix does."""
    lengths = np.array([len(question) for question in tree.questions], dtype=np.int64)
    ends = new_prefix_length + np.cumsum(lengths) - 1
    if (lengths == 0).any():
        if not new_prefix_length:
            raise ValueError(
                "an empty question cannot follow a cached prefix: its last hidden state is not kept"
            )
        ends = np.where(lengths == 0, new_prefix_length - 1, ends)
    return torch.from_numpy(ends)


def _joined_layers(past_prefix: list[KeyValue] | None, past_rest: list[KeyValue] | None) -> list[KeyValue]:
    if not past_prefix:
        return past_rest or []
    if not past_rest:
        return past_prefix
    return [
        (torch.cat([prefix[0], rest[0]], dim=2), torch.cat([prefix[1], rest[1]], dim=2))
        for prefix, rest in zip(past_prefix, past_rest, strict=True)
    ]


def student_hidden(
    student: TreeModel, tree: PromptTree, branches: Sequence[Branch], state: PromptState | None
) -> Tensor:
    """Hidden states (N, D) of branches, continued from a prompt state where there is one."""
    if state is not None:
        return student.run_branches(state, branches)
    return student.completion_hidden(tree, branches)
