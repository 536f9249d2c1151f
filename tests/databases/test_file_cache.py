import os
from pathlib import Path

import pytest

from distilsql.data.load import load_benchmark
from distilsql.databases.file_cache import DatabaseIdentity, derived_files
from distilsql.errors import DataError
from distilsql.files import default_cache_folder


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "d.sqlite"
    path.write_bytes(b"one")
    return path


def build(folder: Path) -> None:
    (folder / "made").write_text("made")


def test_a_state_is_built_once(file: Path, tmp_path: Path) -> None:
    kept = derived_files(DatabaseIdentity.of(file), build, "1", tmp_path / "cache")
    (kept / "made").write_text("kept")
    assert derived_files(DatabaseIdentity.of(file), build, "1", tmp_path / "cache") == kept
    assert (kept / "made").read_text() == "kept"


def test_an_old_state_goes_whatever_the_file_is_called(tmp_path: Path) -> None:
    file = tmp_path / "shop [2024]*?.sqlite"
    for content in (b"one", b"two and more"):
        file.write_bytes(content)
        kept = derived_files(DatabaseIdentity.of(file), build, "1", tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == [kept]


@pytest.mark.parametrize("change", ["content", "time", "log", "version"])
def test_another_state_is_built_anew_and_replaces_the_old_one(
    file: Path, tmp_path: Path, change: str
) -> None:
    old = derived_files(DatabaseIdentity.of(file), build, "1", tmp_path / "cache")
    if change == "content":
        file.write_bytes(b"two and more")
    elif change == "time":
        os.utime(file, ns=(1, 1))
    elif change == "log":
        file.with_name("d.sqlite-wal").write_bytes(b"written")
    new = derived_files(
        DatabaseIdentity.of(file), build, "2" if change == "version" else "1", tmp_path / "cache"
    )
    assert list((tmp_path / "cache").iterdir()) == [new]
    assert new != old


def test_files_of_the_same_name_do_not_meet(file: Path, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere" / "d.sqlite"
    other.parent.mkdir()
    other.write_bytes(b"one")
    folders = {
        derived_files(DatabaseIdentity.of(path), build, "1", tmp_path / "cache") for path in (file, other)
    }
    assert set((tmp_path / "cache").iterdir()) == folders
    assert len(folders) == 2


def test_a_failed_build_leaves_nothing(file: Path, tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        build(folder)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        derived_files(DatabaseIdentity.of(file), fail, "1", tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_another_process_that_finished_first_is_believed(file: Path, tmp_path: Path) -> None:
    identity = DatabaseIdentity.of(file)

    def build_late(folder: Path) -> None:
        first = derived_files(identity, build, "1", tmp_path / "cache")
        (first / "made").write_text("first")
        build(folder)

    kept = derived_files(identity, build_late, "1", tmp_path / "cache")
    assert (kept / "made").read_text() == "first"
    assert list((tmp_path / "cache").iterdir()) == [kept]


def test_a_cache_that_cannot_be_written_says_what_to_do(file: Path) -> None:
    with pytest.raises(DataError, match=r"cannot be written .* XDG_CACHE_HOME"):
        derived_files(DatabaseIdentity.of(file), build, "1", file / "below-a-file")


def test_without_a_home_it_is_said_what_to_set(monkeypatch, tmp_path):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    for unusable in (None, "", "relative/cache"):
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        if unusable is not None:
            monkeypatch.setenv("XDG_CACHE_HOME", unusable)
        with pytest.raises(DataError, match="XDG_CACHE_HOME"):
            default_cache_folder()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache_folder() == tmp_path / "distilsql"


def test_the_demo_says_where_it_cannot_be_written(monkeypatch, tmp_path):
    (tmp_path / "distilsql").write_text("a file where the cache should be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(DataError, match=r"distilsql/demo cannot be written.*XDG_CACHE_HOME"):
        load_benchmark("demo:test")
