"""A model's passes, and a model whose weights are spread over the processes of a training (PyTorch's FSDP2).

A sharded model is gathered layer by layer while it runs, by all processes at once, so all of them must run the same
number of passes. They seldom would by themselves: one has fewer branches, or finds a prefix in its cache. So before
each pass processes ask each other whether any of them has one left (`in_step`), and those that have none run an empty
pass beside the others. Where each process runs many passes of its own, as in generation, the weights are gathered
once for all of them (`whole`).
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import (
    FSDPModule,
    MixedPrecisionPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.distributed.tensor import DTensor

from distilsql.models.load import decoder_layers


class Unsharded:
    """The passes of a model that lies whole in this process. The interface is that of `Sharded`."""

    is_sharded = False
    parts = 1  # into which each layer is cut, each computed by another process

    def __init__(self, causal_lm: Any) -> None:
        self._causal_lm = causal_lm

    @property
    def dtype(self) -> torch.dtype:
        """What the model computes in."""
        return self._causal_lm.get_input_embeddings().weight.dtype

    def run(self, **inputs: Any) -> Any:
        """The decoder's forward."""
        return self._causal_lm.base_model(**inputs)

    def in_step(self) -> AbstractContextManager[None]:
        """All processes run the same number of passes in here."""
        return nullcontext()

    def joined(self, hidden_ND: Tensor) -> Tensor:
        """The same hidden states, with the empty passes that were run for others in their graph."""
        return hidden_ND

    def whole(self) -> AbstractContextManager[None]:
        """The process holds all weights in here."""
        return nullcontext()

    def gather_head(self) -> None:
        """The output layer's weights lie whole in this process until the next backward pass has ended."""

    def agreed(self, own: bool) -> bool:
        """Whether it is so in every process."""
        return own


class Sharded(Unsharded):
    """The passes of a causal LM whose weights are spread over the processes of `mesh`, a part of every matrix in each.

    Trained weights become float32: they are their own masters, and are gathered in `dtype`. Their gradients are
    summed, not averaged, over the processes, in float32. A frozen output layer stays whole in every process.
    """

    is_sharded = True

    def __init__(self, causal_lm: Any, mesh: DeviceMesh, dtype: torch.dtype, device: torch.device) -> None:
        super().__init__(causal_lm)
        self._dtype = dtype
        self._is_whole = self._is_in_step = False
        self._is_trained = any(parameter.requires_grad for parameter in causal_lm.parameters())
        self._idle: list[Tensor] = []
        # Of the CPU: who has a pass left must not wait for what a GPU computes.
        self._asking = torch.distributed.new_group(backend="gloo")
        for parameter in causal_lm.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
        head = causal_lm.get_output_embeddings()
        self._trains_head = any(parameter.requires_grad for parameter in head.parameters())
        kept_whole = set() if self._trains_head else set(head.to(device).parameters())
        policy = MixedPrecisionPolicy(
            param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False
        )
        for layer in decoder_layers(causal_lm):
            fully_shard(layer, mesh=mesh, mp_policy=policy)
        # The loss reads the output layer outside of any forward pass, so it belongs to the root, which stays gathered
        # until the backward pass has ended.
        causal_lm.run_decoder = lambda **inputs: causal_lm.base_model(**inputs)
        fully_shard(causal_lm, mesh=mesh, mp_policy=policy, ignored_params=kept_whole)
        register_fsdp_forward_method(causal_lm, "run_decoder")
        self._modules = [module for module in causal_lm.modules() if isinstance(module, FSDPModule)]
        for module in self._modules:
            # The loss is normalised over all processes already.
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)  # gloo cannot multiply while it sums

    @property
    def dtype(self) -> torch.dtype:
        return self._dtype

    def run(self, **inputs: Any) -> Any:
        if not self._is_whole:
            self._any(True)
        return self._causal_lm.run_decoder(**inputs)

    @contextmanager
    def in_step(self) -> Iterator[None]:
        """All processes enter and leave this block together, with any number of passes in it. Blocks inside it, which
        not all processes may reach, do nothing."""
        if self._is_whole or self._is_in_step:
            yield
            return
        self._is_in_step = True
        try:
            yield
            while self._any(False):
                self._run_empty()
        finally:
            self._is_in_step = False
            # FSDP notes every pass for a backward pass, which a frozen model never has. Older versions cannot forget.
            if not self._is_trained and hasattr(self._causal_lm, "reset_iter_state"):
                self._causal_lm.reset_iter_state()

    def joined(self, hidden_ND: Tensor) -> Tensor:
        idle, self._idle = self._idle, []
        return hidden_ND + 0 * torch.stack(idle).sum() if idle else hidden_ND

    @contextmanager
    def whole(self) -> Iterator[None]:
        """For passes without gradient: all processes enter this block together."""
        if self._is_whole:
            yield
            return
        for module in self._modules:
            module.set_reshard_after_forward(False, recurse=False)
            module.unshard()
        self._is_whole = True
        try:
            yield
        finally:
            self._is_whole = False
            for module in self._modules:
                module.set_reshard_after_forward(module is not self._causal_lm, recurse=False)
            reshard(self._causal_lm)

    def gather_head(self) -> None:
        if self._trains_head:
            self._causal_lm.unshard()

    def agreed(self, own: bool) -> bool:
        return not self._any(not own)

    def _any(self, own: bool) -> bool:
        """Whether it is so in any process."""
        count = torch.tensor([int(own)])
        torch.distributed.all_reduce(count, group=self._asking)
        return bool(count)

    def _run_empty(self) -> None:
        """A pass over one token that nobody needs; its gradient is zero."""
        device = next(self._causal_lm.parameters()).device
        token_ids_11 = torch.zeros(1, 1, dtype=torch.int64, device=device)
        output = self._causal_lm.run_decoder(input_ids=token_ids_11, use_cache=False)
        if output.last_hidden_state.requires_grad:
            self._idle.append(output.last_hidden_state.sum())


def reshard(model: nn.Module) -> None:
    """This process holds its own part of a sharded model alone. Does nothing to another one."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def whole_tensor(tensor: Tensor) -> Tensor:
    """A sharded tensor, gathered by all processes; another one as it is."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
