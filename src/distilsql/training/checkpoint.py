"""Checkpoints: everything a run needs to resume as if it had never stopped.

A kill at any moment leaves either the previous checkpoint or the new one, never a partial one (`new_folder`).
"""

import json
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from distilsql.errors import RunError
from distilsql.files import last_whole, new_folder


def save_checkpoint(folder: Path, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
    """Replace the checkpoint in `folder`.

    Raises:
        RunError: the disk is full or not writable; the previous checkpoint is kept.
    """
    try:
        with new_folder(folder, replacing=True) as new:
            save_file(
                {name: tensor.contiguous() for name, tensor in tensors.items()}, new / "state.safetensors"
            )
            (new / "state.json").write_text(json.dumps(state), encoding="utf-8")
    except Exception as error:  # safetensors reports a full disk as its own error type
        raise RunError(
            f"The checkpoint {folder} could not be written: {error}. The previous checkpoint is kept; free some "
            "disk space and start the same command again to resume from it."
        ) from error


def load_checkpoint(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Tensors and state of the last checkpoint, or None if there is none.

    Raises:
        RunError: there is a checkpoint, but it cannot be read.
    """
    whole = last_whole(folder)
    if whole is None:
        return None
    try:
        state = json.loads((whole / "state.json").read_text(encoding="utf-8"))
        return load_file(whole / "state.safetensors"), state
    except Exception as error:
        raise RunError(
            f"The checkpoint {whole} cannot be read: {error}. Delete it to start the run over."
        ) from error


def source_state(state: dict[str, Any], process: int, processes: int) -> dict[str, Any]:
    """A completion source's part of a checkpoint for this process: what it kept itself, or, where there are more or
    fewer processes than there were, what the first one kept."""
    everyones: list[dict[str, Any]] = state.get("sources") or [state.get("source", {})]
    return everyones[process if len(everyones) == processes else 0]
