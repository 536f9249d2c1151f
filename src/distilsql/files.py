"""Atomic writes of files and folders: the only place that writes, renames, and reads JSON and JSONL."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from distilsql.errors import DataError, RunError

# Size of the trial file that shows in advance whether a file can be written: a full disk has no room for it.
TRIAL_BYTES = 4096


def write_text(path: Path, text: str, *, is_flushed: bool = True) -> None:
    """`write_bytes` of UTF-8."""
    write_bytes(path, text.encode(), is_flushed=is_flushed)


def write_bytes(path: Path, content: bytes, *, is_flushed: bool = True) -> None:
    """Write a file atomically: under a temporary name in the same folder, then renamed.

    Without `is_flushed`, a power cut may leave an empty file (a kill does not): use it for what can be made again.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if _is_special(path):  # a pipe or /dev/stdout, which must not be replaced by a file
        path.write_bytes(content)
        return
    temporary = path.with_name(f"{path.name}.{uuid4().hex}.part")  # others may write the same file
    try:
        with temporary.open("wb") as file:
            file.write(content)
            if is_flushed:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


@contextmanager
def new_folder(path: Path, *, replacing: bool = False) -> Iterator[Path]:
    """An empty folder beside `path`, which takes its name when the block ends, and is removed if the block raises.

    Several processes may make the same folder: the first to finish keeps its own, and the others are dropped. With
    `replacing` there is only one process; the files are flushed to disk, and an existing folder is replaced. A kill
    between the two renames leaves the old folder as PATH.old, where `last_whole` finds it; a kill before them leaves
    PATH.part, which the next call removes.
    """
    new = unfinished(path) if replacing else path.with_name(f".{uuid4().hex}.{path.name}.part")
    try:
        if replacing:
            shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        yield new
        if replacing:
            for file in new.rglob("*"):
                _flush(file)
            _replace_folder(path, new)
        else:
            try:
                new.rename(path)
            except OSError:
                if not path.is_dir():
                    raise
    finally:
        shutil.rmtree(new, ignore_errors=True)


def unfinished(path: Path) -> Path:
    """Where the `new_folder` that replaces `path` lies until its block ends."""
    return path.with_name(f"{path.name}.part")


def _replace_folder(path: Path, new: Path) -> None:
    old = _old(path)
    if path.exists():
        shutil.rmtree(old, ignore_errors=True)
        path.rename(old)
    new.rename(path)
    shutil.rmtree(old, ignore_errors=True)


def last_whole(path: Path) -> Path | None:
    """The last complete folder that `new_folder` made at `path`, which may have been renamed; None if there is none."""
    return next((folder for folder in (path, _old(path)) if folder.exists()), None)


def _old(path: Path) -> Path:
    return path.with_name(path.name + ".old")


def _flush(path: Path) -> None:
    if path.is_file():
        with path.open("rb") as file:
            os.fsync(file.fileno())


def set_aside(path: Path, ending: str) -> None:
    """Append `ending` to a file's name, so that a new file can be written in its place."""
    path.replace(path.with_name(path.name + ending))


def _is_special(path: Path) -> bool:
    return path.exists() and not path.is_file() and not path.is_dir()


def check_writable(path: Path) -> None:
    """Raises RunError unless a file can be written at `path`. Call it before the work whose result goes there."""
    try:
        if path.is_dir():
            raise RunError(f"{path} is a folder; give the name of a file.")
        if path.exists() and not os.access(path, os.W_OK):
            raise RunError(f"{path} exists and its permissions do not allow writing; name another file.")
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
            f"{path} cannot be written ({why}), so nothing was started; name another file, or free some disk space."
        ) from error


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_text(path: Path) -> str:
    """Raises RunError if the file is missing or is not UTF-8."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f"{path} cannot be read ({error}). Check the file and its permissions.") from error


def read_json(path: Path) -> Any:
    """Raises RunError if the file of a run is missing or broken."""
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise RunError(
            f"{path} is not JSON ({error}). It was cut off or edited; write it again with "
            "`distilsql train` (summary) or `distilsql evaluate` (scores)."
        ) from error


def lines_of(path: Path) -> list[str]:
    """The lines of a JSONL file, split only at line feeds: its strings may hold other line breaks known to Python."""
    return [line for line in path.read_text(encoding="utf-8").split("\n") if line]


def default_cache_folder() -> Path:
    """`$XDG_CACHE_HOME/distilsql`, by default `~/.cache/distilsql`. Raises DataError if there is no home folder."""
    named = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(named):  # the specification says to ignore a relative path
        return Path(named) / "distilsql"
    try:
        return Path.home() / ".cache" / "distilsql"
    except RuntimeError as error:
        raise DataError(
            "There is no home folder for the cache (HOME is not set, and this user has none); set XDG_CACHE_HOME to a "
            "writable folder."
        ) from error
