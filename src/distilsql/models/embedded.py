"""Models that come with the package, by name: wherever a recipe or command takes a model, `demo:teacher` is one.

A model's folder is an ordinary `transformers` folder with two files more: `recipe.toml`, which trained it, and
`record.json`, which says what it scored and the checksums of its files. Imports no torch.
"""

import hashlib
import json
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from distilsql.errors import ModelError
from distilsql.in_memory import in_memory_message, is_in_memory

DEMO_TEACHER = "demo:teacher"
RECORD = "record.json"
_FOLDERS = {DEMO_TEACHER: "demo_teacher"}


def resolve(path: str | Path) -> str:
    """The folder of an embedded model, its files checked; any other path or hub name as it is.

    Raises:
        ModelError: there is no embedded model of that name, or its files are not those that were shipped; or the model
            was in memory when its run was made, and no folder holds it.
    """
    name = str(path)
    if is_in_memory(name):
        raise ModelError(
            in_memory_message(name, "model", "student=model, tokenizer=tokenizer, teacher=teacher")
        )
    if name in _FOLDERS:
        return str(_checked_folder(name))
    if name.startswith("demo:"):
        raise ModelError(f"There is no model {name}. The package contains: {', '.join(_FOLDERS)}.")
    return name


def embedded_folder(name: str) -> Path:
    """Where the embedded model `name` lies; nothing is checked."""
    return Path(str(resources.files("distilsql.models"))) / _FOLDERS[name]


def read_record(folder: Path) -> dict[str, Any]:
    """What is known of an embedded model. Raises ModelError if its folder is damaged."""
    try:
        record: dict[str, Any] = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise _damaged(folder, f"{RECORD} cannot be read ({error})") from error
    return record


def checksums(folder: Path) -> dict[str, str]:
    """SHA-256 (hex) of every file of a model folder but its record."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.name != RECORD)
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def check_files(folder: Path) -> None:
    """Raises ModelError unless the folder's files are those of its record, to the bit."""
    expected: dict[str, str] = read_record(folder)["sha256"]
    found = checksums(folder)
    for name in sorted(expected):
        if name not in found:
            raise _damaged(folder, f"{name} is missing")
        if found[name] != expected[name]:
            raise _damaged(folder, f"{name} has the checksum {found[name][:12]}…, not {expected[name][:12]}…")


@cache
def _checked_folder(name: str) -> Path:
    folder = embedded_folder(name)
    check_files(folder)
    return folder


def _damaged(folder: Path, what: str) -> ModelError:
    return ModelError(
        f"The model in {folder} is not as it was shipped: {what}. Install distilsql again, or train the model again "
        "with `distilsql demo --train-teacher`."
    )
