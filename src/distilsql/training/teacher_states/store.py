"""Hidden states on disk, by key: a folder that any number of processes may read and write at the same time.

    ROOT/IDENTITY/manifest.json             what the folder's entries were computed with, readably
    ROOT/IDENTITY/ab/abcd….safetensors      one entry: hidden states (N, E), its key, checksum and cost in seconds

An entry is written under a name of its own and renamed, so nobody sees half of one and a kill loses only the entry
being written. What a full disk, a power cut or a bad sector leaves behind is found by length or checksum, reported,
and treated as missing. An entry's value depends on its key and the folder's identity alone, so deleting or recomputing
one changes what a run costs, never what it learns.
"""

import hashlib
import json
import logging
import os
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from distilsql.errors import RunError
from distilsql.files import write_bytes
from distilsql.models.fingerprint import tensor_bytes

log = logging.getLogger(__name__)

_ABOUT = (
    "Final hidden states of one teacher at the positions of gold queries, one file per tree of questions. "
    "They hold for the identity below and for nothing else. Safe to delete: they are computed again."
)
_LEFTOVER_AGE_S = 3600.0  # an unfinished file older than this belongs to a process that was killed


@dataclass(frozen=True)
class HiddenStore:
    """The entries of one identity."""

    folder: Path

    def path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.safetensors"

    def read(self, key: str) -> Tensor | None:
        """The hidden states of an entry; None if it is missing or broken."""
        try:
            with safe_open(self.path(key), "pt") as file:
                metadata, hidden_NE = file.metadata() or {}, file.get_tensor("hidden")
        except FileNotFoundError:
            return None
        except (SafetensorError, OSError, ValueError) as error:
            self._warn(key, str(error))
            return None
        if metadata.get("key") != key or metadata.get("identity") != self.folder.name:
            self._warn(key, "it is another entry under this name")
            return None
        if metadata.get("sha256") != _checksum(hidden_NE):
            self._warn(key, "its checksum does not agree")
            return None
        return hidden_NE

    def seconds(self, key: str) -> float | None:
        """Seconds that an entry took to compute; None if it is missing or its header cannot be read."""
        try:
            with safe_open(self.path(key), "pt") as file:
                return float((file.metadata() or {})["seconds"])
        except (SafetensorError, OSError, ValueError, KeyError):
            return None

    def write(self, key: str, hidden_NE: Tensor, seconds: float) -> None:
        """Add or replace an entry. Raises OSError if the disk is full or the folder is not writable."""
        hidden_NE = hidden_NE.detach().cpu().contiguous()
        metadata = {
            "key": key,
            "identity": self.folder.name,
            "sha256": _checksum(hidden_NE),
            "seconds": repr(seconds),
        }
        # Not flushed to the disk: what a power cut leaves is found by its checksum.
        write_bytes(self.path(key), save({"hidden": hidden_NE}, metadata), is_flushed=False)

    def make_room(self, needed: Collection[str], new_bytes: int, budget_bytes: int) -> None:
        """Delete what was used least recently, of all identities under the root, until `new_bytes` more fit into
        the budget. Entries in `needed` stay, and count as used now."""
        kept = {self.path(key) for key in needed}
        used_bytes, others = 0, []
        for path in self.folder.parent.rglob("*.safetensors*"):
            with suppress(OSError):  # another process may have removed it
                state = path.stat()
                if path.suffix == ".part":
                    if time.time() - state.st_mtime > _LEFTOVER_AGE_S:
                        path.unlink()
                    continue
                used_bytes += state.st_size
                if path in kept:
                    os.utime(path)
                else:
                    others.append((state.st_mtime, state.st_size, path))
        for _, size, path in sorted(others):
            if used_bytes + new_bytes <= budget_bytes:
                break
            path.unlink(missing_ok=True)
            used_bytes -= size

    def _warn(self, key: str, why: str) -> None:
        log.warning(f"{self.path(key)} cannot be used ({why}); it is computed again.")


def open_store(root: Path, identity: Mapping[str, str], made_from: str) -> HiddenStore:
    """The store of one identity under `root`; `made_from` is for people only.

    Raises:
        RunError: the folder's manifest is missing, broken or says that it belongs to something else.
        OSError: the folder cannot be written.
    """
    folder = root / hashlib.sha256(json.dumps(dict(identity), sort_keys=True).encode()).hexdigest()[:32]
    manifest = folder / "manifest.json"
    if not manifest.exists() and not any(folder.glob("*/*.safetensors")):
        content = {"about": _ABOUT, "made_from": made_from, "identity": dict(identity)}
        write_bytes(manifest, json.dumps(content, indent=2, ensure_ascii=False).encode())
    try:
        found = dict(json.loads(manifest.read_text(encoding="utf-8"))["identity"])
    except (FileNotFoundError, ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"{manifest} cannot be read ({error!r}), so it is not known which teacher the hidden states beside it "
            f"are from. Delete {folder}; they will be computed again."
        ) from error
    if found != identity:
        differing = ", ".join(
            sorted(name for name in {*found, *identity} if found.get(name) != identity.get(name))
        )
        raise RunError(
            f"{folder} holds hidden states of other inputs than this run's (its manifest differs in {differing}). "
            "Delete it, or set train.teacher_hidden_folder to another place."
        )
    return HiddenStore(folder)


def _checksum(hidden_NE: Tensor) -> str:
    digest = hashlib.sha256(f"{hidden_NE.dtype} {tuple(hidden_NE.shape)}\n".encode())
    digest.update(tensor_bytes(hidden_NE))
    return digest.hexdigest()
