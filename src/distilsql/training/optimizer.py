"""AdamW on float32 master copies of the trained weights, whatever precision the model computes in.

A float32 model is its own master, and so is one that is sharded over processes (`models/sharding.py`): its weights are
float32, and gathered in the precision of the computation. Each process then updates its part alone.

Gradients are moved into the masters as soon as backward has accumulated them, so micro-batches add up in
float32 and no second set of gradients stays in memory.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from distilsql.models.sharding import reshard, whole_tensor


class MasterAdamW:
    """Float32 masters of the trainable parameters of `model` and an AdamW over them."""

    def __init__(self, model: nn.Module, *, learning_rate: float, weight_decay: float) -> None:
        named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
        self._model = model
        self.names = [name for name, _ in named]
        self.parameters = [parameter for _, parameter in named]
        self.masters = [
            p if p.dtype == torch.float32 else nn.Parameter(p.detach().float()) for p in self.parameters
        ]
        self.optimizer = torch.optim.AdamW(
            self.masters, lr=learning_rate, weight_decay=weight_decay, betas=(0.9, 0.999), fused=True
        )
        for parameter, master in zip(self.parameters, self.masters, strict=True):
            if parameter is not master:
                parameter.register_post_accumulate_grad_hook(_moving_into(master))

    def gradients(self) -> list[Tensor]:
        """Float32 gradients, one per trained parameter (zeros where nothing flowed)."""
        for master in self.masters:
            if master.grad is None:
                master.grad = torch.zeros_like(master)
        return [master.grad for master in self.masters if master.grad is not None]

    def clip(self, max_norm: float) -> float:
        """Clip the gradient to a norm, of all processes together; returns the norm before."""
        self.gradients()
        return float(whole_tensor(torch.nn.utils.clip_grad_norm_(self.masters, max_norm)))

    def step(self, learning_rate: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.step()
        self.zero_grad()
        self.publish()

    @torch.no_grad()
    def publish(self) -> None:
        """Copy the masters into the model, and let go of what was gathered of a sharded one."""
        reshard(self._model)
        for parameter, master in zip(self.parameters, self.masters, strict=True):
            if parameter is not master:
                parameter.copy_(master)

    def zero_grad(self) -> None:
        for master in self.masters:
            master.grad = None

    def state(self) -> dict[str, Tensor]:
        """Masters and moments as named tensors; `load` restores them to the bit."""
        tensors: dict[str, Tensor] = {}
        for name, master in zip(self.names, self.masters, strict=True):
            tensors[f"master.{name}"] = master.detach()
            for key, value in self.optimizer.state.get(master, {}).items():
                tensors[f"{key}.{name}"] = value
        return tensors

    def room(self) -> dict[str, Tensor]:
        """Tensors of the names, sizes and places of `state`, for a checkpoint to be read into."""
        tensors: dict[str, Tensor] = {}
        for name, master in zip(self.names, self.masters, strict=True):
            tensors |= {
                f"{key}.{name}": torch.empty_like(master) for key in ("master", "exp_avg", "exp_avg_sq")
            }
            tensors[f"step.{name}"] = torch.zeros((), device=master.device)
        return tensors

    @torch.no_grad()
    def load(self, tensors: dict[str, Tensor]) -> None:
        for name, master in zip(self.names, self.masters, strict=True):
            master.copy_(tensors[f"master.{name}"])
            keys = ("step", "exp_avg", "exp_avg_sq")
            moments = {key: tensors[f"{key}.{name}"] for key in keys if f"{key}.{name}" in tensors}
            if moments:
                device = master.device
                self.optimizer.state[master] = {key: value.to(device) for key, value in moments.items()}
        self.publish()


def _moving_into(master: nn.Parameter) -> Callable[[Tensor], None]:
    def move(parameter: Tensor) -> None:
        if parameter.grad is None:
            return
        if master.grad is None:
            master.grad = parameter.grad.float()
        else:
            master.grad += parameter.grad
        parameter.grad = None

    return move


def learning_rate_at(step: int, steps: int, peak: float, warmup_share: float, final_share: float) -> float:
    """Linear warm-up to `peak`, then a cosine down to `final_share` of it. `step` counts from 0."""
    warmup = math.ceil(warmup_share * steps)
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / max(steps - warmup, 1)
    return peak * (final_share + (1 - final_share) * 0.5 * (1 + math.cos(math.pi * progress)))
