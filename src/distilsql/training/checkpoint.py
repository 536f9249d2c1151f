"""Checkpoints: everything a run needs to resume as if it had never stopped.

A kill at any moment leaves either the previous checkpoint or the new one, never a partial one (`new_folder`). One
process writes one file; of several each writes its part of every tensor, by torch's distributed checkpoints, and any
number of processes reads either.
"""

import json
import warnings
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as distributed
from accelerate import Accelerator
from accelerate.utils import gather_object
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.tensor import DTensor, distribute_tensor

from distilsql.errors import RunError
from distilsql.files import last_whole, new_folder, unfinished

_STATE, _TENSORS, _PARTS = "state.json", "state.safetensors", "parts"


def save_checkpoint(
    folder: Path, tensors: Mapping[str, Tensor], state: dict[str, Any], accelerator: Accelerator
) -> None:
    """Replace the checkpoint in `folder`. With several processes all call it; `state` is the first one's.

    Raises:
        RunError: the disk is full or not writable, in any process: all raise it; the previous checkpoint is kept.
    """
    try:
        with ExitStack() as new:
            if accelerator.num_processes == 1:
                part = new.enter_context(new_folder(folder, replacing=True))
                save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, part / _TENSORS)
                _write_state(part, state)
            else:
                _save_together(folder, tensors, state, accelerator.is_main_process, new)
    except Exception as error:  # safetensors reports a full disk as its own error type
        raise RunError(
            f"The checkpoint {folder} could not be written: {error}. The previous checkpoint is kept; free some "
            "disk space and start the same command again to resume from it."
        ) from error


def _save_together(
    folder: Path, tensors: Mapping[str, Tensor], state: dict[str, Any], is_first: bool, new: ExitStack
) -> None:
    part, parts = unfinished(folder), dict[str, Any](tensors)

    def write() -> None:
        distributed.save(parts, storage_writer=distributed.FileSystemWriter(part / _PARTS))
        if is_first:
            _write_state(part, state)

    _in_all(lambda: new.enter_context(new_folder(folder, replacing=True)) if is_first else None)
    _in_all(write)
    _in_all(new.close)


def _in_all(work: Callable[[], Any]) -> None:
    """Do this process's part. Raises OSError in all processes if it fails in one."""
    problem = ""
    try:
        work()
    except CheckpointException as error:
        problem = "; ".join(str(cause) for cause, _ in error.failures.values())
    except Exception as error:
        problem = str(error)
    problems: list[str] = gather_object([problem])  # type: ignore[assignment]
    for found in filter(None, problems):
        raise OSError(found)


def _write_state(folder: Path, state: dict[str, Any]) -> None:
    (folder / _STATE).write_text(json.dumps(state), encoding="utf-8")


def load_checkpoint(
    folder: Path, room: Callable[[], Mapping[str, Tensor]]
) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Tensors and state of the last checkpoint, or None if there is none. `room` makes tensors to read into, which say
    by name how they are spread over processes.

    Raises:
        RunError: there is a checkpoint, but it cannot be read.
    """
    whole = last_whole(folder)
    if whole is None:
        return None
    try:
        state = json.loads((whole / _STATE).read_text(encoding="utf-8"))
        if (whole / _PARTS).exists():
            return _parts(whole / _PARTS, room()), state
        tensors = load_file(whole / _TENSORS)
        like = room() if torch.distributed.is_initialized() else {}
        return {name: _spread_as(tensor, like.get(name)) for name, tensor in tensors.items()}, state
    except (Exception, CheckpointException) as error:
        raise RunError(
            f"The checkpoint {whole} cannot be read: {error}. Delete it to start the run over."
        ) from error


def _parts(folder: Path, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    reader = distributed.FileSystemReader(folder)
    known = reader.read_metadata().state_dict_metadata
    tensors: dict[str, Any] = {name: tensor for name, tensor in like.items() if name in known}
    is_alone = not any(isinstance(tensor, DTensor) for tensor in like.values())
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")  # that is meant
        distributed.load(tensors, storage_reader=reader, no_dist=is_alone)
    return tensors


def _spread_as(whole: Tensor, like: Tensor | None) -> Tensor:
    if not isinstance(like, DTensor):
        return whole
    return distribute_tensor(whole.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def source_state(state: dict[str, Any], process: int, processes: int) -> dict[str, Any]:
    """A completion source's part of a checkpoint for this process: what it kept itself, or, where there are more or
    fewer processes than there were, what the first one kept."""
    everyones: list[dict[str, Any]] = state.get("sources") or [state.get("source", {})]
    return everyones[process if len(everyones) == processes else 0]
