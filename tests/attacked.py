"""What hostile statements are sent to, and the statements."""

import json
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

SECRET = "the secret word"
ATTACKS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parent / "databases" / "attacks_sqlite.json").read_text()
)
for _attack in ATTACKS:  # a statement of megabytes is written as its beginning and what is repeated
    _attack["sql"] += _attack.get("then", "") * _attack.get("times", 0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two databases of people, and a file that no statement may read."""
    folder = tmp_path_factory.mktemp("attacked")
    (folder / "secret.txt").write_text(SECRET)
    for name in ("people.sqlite", "other.sqlite"):
        with closing(sqlite3.connect(folder / name)) as connection:
            connection.execute("CREATE TABLE people (id INTEGER PRIMARY KEY, name TEXT, age INTEGER)")
            rows = [(i, f"person number {i} of many", i % 90) for i in range(1, 201)]
            connection.executemany("INSERT INTO people VALUES (?, ?, ?)", rows)
            connection.commit()
    return folder


def snapshot(folder: Path) -> Mapping[str, tuple[int, bytes]]:
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir()}
