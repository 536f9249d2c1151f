"""A frozen model cut within its layers (tensor parallelism): each process of a machine holds some heads and a part of
every matrix.

What is cut which way is the architecture's own plan, which `transformers` keeps with its configuration
(`base_model_tp_plan`); torch's `parallelize_module` cuts, and sums up within each layer. All processes must then
compute the same pass, while each trains on other trees. So what one of them asks for all compute, one request after
another (`CommonCache`): a process computes its part of every tree instead of every part of its own, which is as much.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch.distributed
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import Replicate
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    ParallelStyle,
    RowwiseParallel,
    parallelize_module,
)

from distilsql.errors import ModelError
from distilsql.models.prefix_cache import PrefixCache
from distilsql.models.sharding import Unsharded
from distilsql.models.tree import Branch, PromptTree
from distilsql.models.tree_model import TreeModel

_CURE = "Use teacher.across_processes = sharded, or whole"

# The styles of `transformers`, as torch has them. A replicated module is not cut; its style is about gradients.
_STYLES: dict[str, ParallelStyle | None] = {
    "colwise": ColwiseParallel(),
    "rowwise": RowwiseParallel(),
    "colwise_gather_output": ColwiseParallel(output_layouts=Replicate()),
    "colwise_rep": ColwiseParallel(output_layouts=Replicate()),
    "rowwise_split_input": RowwiseParallel(input_layouts=Replicate()),
    "rowwise_rep": RowwiseParallel(input_layouts=Replicate()),
    "replicated_with_grad_allreduce": None,
}


def mesh_of_machine(device_type: str) -> DeviceMesh:
    """The processes of this machine, as their launcher counts them: layers are summed up over its fast links.

    Raises:
        ModelError: other machines do not have as many.
    """
    processes = torch.distributed.get_world_size()
    here = int(os.environ.get("LOCAL_WORLD_SIZE", processes))
    if processes % here:
        raise ModelError(
            f"teacher.across_processes = tensor_parallel cuts the teacher on each machine alike, and there are "
            f"{processes} processes, {here} of them here. Start as many on every machine."
        )
    return init_device_mesh(device_type, (processes // here, here), mesh_dim_names=("machine", "process"))[
        "process"
    ]


class TensorParallel(Unsharded):
    """The passes of a model of which each process of `mesh` holds a part of every layer; embeddings, norms and output
    layer are whole. All processes run every pass, with the same input."""

    def __init__(self, causal_lm: Any, mesh: DeviceMesh, device: torch.device, path: str) -> None:
        super().__init__(causal_lm)
        self.parts, self.part = mesh.size(), mesh.get_local_rank()
        styles = {name: _STYLES[style] for name, style in checked_plan(causal_lm, self.parts, path).items()}
        # Each process has loaded the same weights, so that none has to be sent.
        parallelize_module(
            causal_lm.base_model,
            mesh,
            {name: style for name, style in styles.items() if style is not None},
            src_data_rank=None,
        )
        causal_lm.to(device)
        # Of the CPU: who asks for what must not wait for what a GPU computes.
        self._asking, _ = torch.distributed.new_subgroups(self.parts, backend="gloo")

    def everyones(self, own: Any) -> list[Any]:
        """What the processes pass here, in their order."""
        found: list[Any] = [None] * self.parts
        torch.distributed.all_gather_object(found, own, group=self._asking)
        return found


def checked_plan(causal_lm: Any, parts: int, path: str) -> dict[str, str]:
    """The architecture's plan: styles by the names of modules, with `*` for a layer's number.

    Raises:
        ModelError: there is none, it asks for more than this can do, or heads or matrices do not divide by `parts`.
    """
    config = causal_lm.config
    plan: dict[str, str] = getattr(config, "base_model_tp_plan", None) or {}
    found = f"{path} ({type(causal_lm).__name__})"
    unknown = sorted({style for style in plan.values() if style not in _STYLES})
    if not plan or unknown:
        has = f"a tensor parallel plan with {', '.join(unknown)}" if unknown else "no tensor parallel plan"
        raise ModelError(f"{found} has {has} in transformers, which this cannot follow. {_CURE}.")
    heads = config.num_attention_heads
    key_heads = getattr(config, "num_key_value_heads", None) or heads
    if any(style == "colwise" and "att" in name for name, style in plan.items()):
        _divides(found, "attention heads", heads, parts)
        _divides(found, "key and value heads", key_heads, parts)
    for pattern, style in plan.items():
        for module in _matching(causal_lm.base_model, pattern):
            if isinstance(module, nn.Linear) and style.startswith("colwise"):
                _divides(found, f"outputs of {pattern}", module.out_features, parts)
            if isinstance(module, nn.Linear) and style.startswith("rowwise"):
                _divides(found, f"inputs of {pattern}", module.in_features, parts)
    return plan


def _divides(found: str, what: str, count: int, parts: int) -> None:
    if count % parts:
        raise ModelError(
            f"{found} has {count} {what}, which {parts} processes cannot share equally. {_CURE}, or a number of "
            "processes by which they divide."
        )


def _matching(root: nn.Module, pattern: str) -> Iterator[nn.Module]:
    wanted = pattern.split(".")
    for name, module in root.named_modules():
        parts = name.split(".")
        if len(parts) == len(wanted) and all(
            want in ("*", part) for want, part in zip(wanted, parts, strict=True)
        ):
            yield module


def prefix_cache_of(model: TreeModel, budget_bytes: int) -> PrefixCache:
    """A cache for a frozen model, however its weights are spread."""
    if isinstance(model.sharding, TensorParallel):
        return CommonCache(model, budget_bytes, model.sharding)
    return PrefixCache(model, budget_bytes)


class CommonCache(PrefixCache):
    """The cache of a `TensorParallel` model, whose processes read together: it holds this process's heads of every
    prefix that any of them has asked for, and all caches hold the same ones."""

    def __init__(self, model: TreeModel, budget_bytes: int, sharding: TensorParallel) -> None:
        super().__init__(model, budget_bytes)
        self._sharding = sharding
        self._is_in_step = False

    @contextmanager
    def in_step(self) -> Iterator[None]:
        if self._is_in_step:
            yield
            return
        self._is_in_step = True
        try:
            yield
            while self._read_together(None)[0]:
                pass
        finally:
            self._is_in_step = False

    def hidden(self, key: Any, tree: PromptTree, branches: Sequence[Branch]) -> Tensor:
        _, own = self._read_together((key, tree, tuple(branches)))
        assert own is not None
        return own

    def _read_together(
        self, request: tuple[Any, PromptTree, Sequence[Branch]] | None
    ) -> tuple[bool, Tensor | None]:
        """Whether any process has asked, and the answer to what this one has."""
        own = None
        requests = self._sharding.everyones(request)
        for process, each in enumerate(requests):
            if each is None:
                continue
            hidden_ND = super().hidden(*each)
            if process == self._sharding.part:
                own = hidden_ND
        return any(each is not None for each in requests), own
