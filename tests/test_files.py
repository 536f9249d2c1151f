"""Files and folders appear whole or not at all, whatever ends the writing, and one file of the package sees to it."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from distilsql import files
from distilsql.files import last_whole, new_folder, set_aside, write_bytes, write_text
from test_rooms import modules

# Writes version 2 over version 1 and is killed by the `at`-th rename, before it is made.
KILLED = """
import os, pathlib, signal, sys
from distilsql.files import new_folder, write_text
path, kind, at = pathlib.Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
renames = 0
def killed(event, arguments):
    global renames
    if event == "os.rename":
        renames += 1
        if renames == at:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(killed)
if kind == "file":
    write_text(path, "2" * 10000)
else:
    with new_folder(path, replacing=True) as folder:
        for name in "ab":
            (folder / name).write_text("2" * 10000)
"""


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text()[:1] for path in folder.iterdir()}


def write_folder(path: Path, version: str, **options: bool) -> None:
    with new_folder(path, **options) as folder:
        for name in "ab":
            (folder / name).write_text(version)


def killed(path: Path, kind: str, at: int) -> int:
    return subprocess.run([sys.executable, "-c", KILLED, str(path), kind, str(at)], check=False).returncode


def test_a_file_is_whole_after_a_kill(tmp_path):
    path = tmp_path / "file"
    write_text(path, "1")
    assert killed(path, "file", 1) == -9
    assert path.read_text() == "1"
    assert killed(path, "file", 2) == 0
    assert path.read_text()[:1] == "2"


@pytest.mark.parametrize("is_flushed", [True, False])
def test_a_file_is_whole_after_a_raise(tmp_path, monkeypatch, is_flushed):
    path = tmp_path / "file"
    write_text(path, "1")

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.Path, "replace", full)
    with pytest.raises(OSError, match="No space"):
        write_bytes(path, b"2", is_flushed=is_flushed)
    assert contents(tmp_path) == {"file": "1"}


@pytest.mark.parametrize(("at", "version"), [(1, "1"), (2, "1"), (3, "2")])
def test_a_replaced_folder_is_the_old_or_the_new_one_after_a_kill(tmp_path, at, version):
    path = tmp_path / "folder"
    write_folder(path, "1", replacing=True)
    assert killed(path, "folder", at) == (-9 if at < 3 else 0)
    whole = last_whole(path)
    assert whole is not None
    assert contents(whole) == {"a": version, "b": version}
    for _ in range(2):  # what the kill left is no part of the next, and is cleared
        write_folder(path, "3", replacing=True)
        assert contents(path) == {"a": "3", "b": "3"}
        assert os.listdir(tmp_path) == ["folder"]


def test_a_folder_that_is_only_there_as_the_old_one_stays_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "folder"
    write_folder(path, "1", replacing=True)
    assert [killed(path, "folder", at) for at in (2, 1)] == [-9, -9]
    whole = last_whole(path)
    assert whole is not None
    assert contents(whole) == {"a": "1", "b": "1"}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("replacing", [True, False])
def test_a_folder_that_raises_leaves_nothing(tmp_path, replacing, error):
    path = tmp_path / "folder"

    def write() -> None:
        with new_folder(path, replacing=replacing) as folder:
            (folder / "a").write_text("2")
            raise error

    with pytest.raises(error):
        write()
    assert os.listdir(tmp_path) == []
    assert last_whole(path) is None


def test_of_two_that_make_one_folder_the_first_keeps_it(tmp_path):
    path = tmp_path / "folder"
    with new_folder(path) as folder:
        (folder / "a").write_text("1")
        write_folder(path, "2")
    assert contents(path) == {"a": "2", "b": "2"}
    assert os.listdir(tmp_path) == ["folder"]


def test_set_aside(tmp_path):
    write_text(tmp_path / "file.jsonl", "1")
    set_aside(tmp_path / "file.jsonl", ".unfinished")
    assert contents(tmp_path) == {"file.jsonl.unfinished": "1"}


def is_renaming(call: ast.Call) -> bool:
    """`path.rename(new)`, `path.replace(new)`, `os.replace(a, b)`, a temporary folder: not a text's `replace`."""
    if not isinstance(call.func, ast.Attribute):
        return isinstance(call.func, ast.Name) and call.func.id in ("mkdtemp", "mkstemp")
    of_module = isinstance(call.func.value, ast.Name) and call.func.value.id in ("os", "shutil", "tempfile")
    if of_module:
        return call.func.attr in ("replace", "rename", "renames", "move", "mkdtemp", "mkstemp")
    return call.func.attr == "rename" or (
        call.func.attr == "replace" and len(call.args) == 1 and not call.keywords
    )


def test_one_file_alone_renames():
    renaming = {
        module
        for module, path in modules().items()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and is_renaming(node)
    }
    assert renaming == {"distilsql.files"}
