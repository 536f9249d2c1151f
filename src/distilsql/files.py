"""Whole files or none: the one place that writes, renames, and reads JSON and JSONL."""

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from distilsql.errors import DataError, RunError

# What a file is tried with before it is needed: a full disk has no room for it.
TRIAL_BYTES = 4096


def write_text(path: Path, text: str) -> None:
    """`write_bytes` of UTF-8."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a whole file or nothing: to a temporary name in the same folder, then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if _is_special(path):  # a pipe or /dev/stdout, which a file must not take the place of
        path.write_bytes(content)
        return
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")  # two processes may write the same file
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def _is_special(path: Path) -> bool:
    return path.exists() and not path.is_file() and not path.is_dir()


def refuse_unwritable(path: Path) -> None:
    """Raises RunError unless a file can be written at `path`: tried before the work whose result it is to hold."""
    try:
        if path.is_dir():
            raise RunError(f"{path} is a folder, and a file is to be written; name one in it.")
        if path.exists() and not os.access(path, os.W_OK):
            raise RunError(f"{path} is there and may not be written (its permissions); name another file.")
        if _is_special(path):
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        trial = path.with_name(f"{path.name}.{os.getpid()}.part")
        try:
            trial.write_bytes(b" " * TRIAL_BYTES)
        finally:
            trial.unlink(missing_ok=True)
    except OSError as error:
        is_through_a_file = isinstance(error, FileExistsError | NotADirectoryError)
        why = "a part of its path is a file" if is_through_a_file else error.strerror
        raise RunError(
            f"{path} cannot be written ({why}), so nothing was begun; name a file elsewhere, or make room."
        ) from error


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Raises RunError if the file is missing or broken."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise RunError(
            f"{path} cannot be read: {error}. Delete it and run the command that writes it again."
        ) from error


def lines_of(path: Path) -> list[str]:
    """The lines of a JSONL file. Only a line feed ends one: texts in it may hold what Python takes for a line's end."""
    return [line for line in path.read_text(encoding="utf-8").split("\n") if line]


def default_cache_folder() -> Path:
    """`$XDG_CACHE_HOME/distilsql`, by default `~/.cache/distilsql`. Raises DataError where there is no home."""
    named = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(named):  # a relative one is to be ignored, says the specification
        return Path(named) / "distilsql"
    try:
        return Path.home() / ".cache" / "distilsql"
    except RuntimeError as error:
        raise DataError(
            "There is no home folder to keep a cache in (HOME is not set, and this user has none); set XDG_CACHE_HOME "
            "to a folder that can be written."
        ) from error
