"""The next token from log-probabilities: the likeliest, or one drawn by a uniform number."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def choose_tokens(logp_BV: Tensor, temperature: float, uniform_B: np.ndarray | Tensor) -> Tensor:
    """Greedy, or one sample per row by inverting the cumulative distribution at the row's uniform number."""
    if temperature == 0:
        return logp_BV.argmax(-1)
    scaled_BV = logp_BV if temperature == 1 else logp_BV / temperature
    return sample(torch.softmax(scaled_BV, dim=-1), uniform_B)


def sample(probability_BV: Tensor, uniform_B: np.ndarray | Tensor, block: int = 256) -> Tensor:
    """Tokens (B,) at which the cumulative probability first exceeds each row's uniform number.

    Found in two steps, the block of tokens first and the token in it then, so that only one block is accumulated
    token by token. A token of probability zero is never chosen.
    """
    batch, size = probability_BV.shape
    blocks_BSK = F.pad(probability_BV, (0, -size % block)).unflatten(-1, (-1, block))
    mass_BS = blocks_BSK.sum(-1).double()
    uniform_B1 = torch.as_tensor(uniform_B).to(mass_BS)[:, None]
    chosen_B1, share_B1 = _invert(mass_BS, uniform_B1)
    inside_BK = blocks_BSK[torch.arange(batch, device=chosen_B1.device), chosen_B1[:, 0]].double()
    token_B1, _ = _invert(inside_BK, share_B1)
    return (chosen_B1 * block + token_B1).squeeze(-1)


def _invert(mass_BN: Tensor, uniform_B1: Tensor) -> tuple[Tensor, Tensor]:
    """The entry (B, 1) in which the uniform number falls, and where in it, as a share of its mass (B, 1)."""
    cumulative_BN = mass_BN.cumsum(-1)
    threshold_B1 = uniform_B1 * cumulative_BN[:, -1:]
    # right=True finds the first entry whose cumulative mass exceeds the threshold: one of mass zero is never found.
    # Should rounding lift a threshold to the whole mass, the last entry that has mass is taken.
    last_B1 = (cumulative_BN < cumulative_BN[:, -1:]).sum(-1, keepdim=True)
    entry_B1 = torch.minimum(torch.searchsorted(cumulative_BN, threshold_B1, right=True), last_B1)
    mass_B1 = mass_BN.gather(-1, entry_B1)
    before_B1 = cumulative_BN.gather(-1, entry_B1) - mass_B1
    return entry_B1, ((threshold_B1 - before_B1) / mass_B1).clamp(0.0, 1.0)
