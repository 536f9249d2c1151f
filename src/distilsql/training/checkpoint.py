"""Checkpoints: everything a run needs to go on as if it had never stopped.

A checkpoint is written to a temporary folder and renamed, so that a kill at any moment leaves either the
previous checkpoint or the new one, never half of one.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from distilsql.errors import RunError


def save_checkpoint(folder: Path, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
    """Replace the checkpoint in `folder`.

    Raises:
        RunError: the disk is full or not writable; the previous checkpoint is kept.
    """
    new, old = folder.with_name(folder.name + ".new"), folder.with_name(folder.name + ".old")
    try:
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, new / "state.safetensors")
        (new / "state.json").write_text(json.dumps(state), encoding="utf-8")
        _flush(new / "state.safetensors")
        _flush(new / "state.json")
        shutil.rmtree(old, ignore_errors=True)
        if folder.exists():
            folder.rename(old)
        new.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    except Exception as error:  # safetensors reports a full disk as its own error type
        shutil.rmtree(new, ignore_errors=True)
        raise RunError(
            f"The checkpoint {folder} could not be written: {error}. The previous checkpoint is kept; free some "
            "disk space and start the same command again to resume from it."
        ) from error


def load_checkpoint(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Tensors and state of the last checkpoint, or None if there is none.

    A kill between the two renames leaves the previous checkpoint under its `.old` name; it is used then.

    Raises:
        RunError: a checkpoint is there but cannot be read.
    """
    for candidate in (folder, folder.with_name(folder.name + ".old")):
        if candidate.exists():
            try:
                state = json.loads((candidate / "state.json").read_text(encoding="utf-8"))
                return load_file(candidate / "state.safetensors"), state
            except Exception as error:
                raise RunError(
                    f"The checkpoint {candidate} cannot be read: {error}. Delete it to start the run anew."
                ) from error
    return None


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
