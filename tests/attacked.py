"""What hostile statements are sent to, and the statements: those of bench/attacks.py."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from attacks import ATTACKS, SECRET, make_folder

__all__ = ["ATTACKS", "SECRET", "folder", "snapshot"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("attacked")
    make_folder(folder)
    return folder


def snapshot(folder: Path) -> Mapping[str, tuple[int, bytes]]:
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir()}
