"""docs/security.md shows every attack, with the outcome that the bench last saw and that the tests allow."""

import json
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = (ROOT / "docs" / "security.md").read_text()


def test_every_sqlite_attack_is_shown_as_it_was_seen():
    attacks = json.loads((ROOT / "tests/databases/attacks_sqlite.json").read_text())
    seen = {
        row["name"]: row for row in json.loads((ROOT / "bench/results/attacks.json").read_text())["attacks"]
    }
    for attack in attacks:
        row = seen[attack["name"]]
        for mode in ("serving", "evaluation"):
            assert row[mode]["outcome"].upper().replace(" ", "_") in attack[mode], attack["name"]
            assert not row[mode]["files_changed"]
        start = f"| {attack['kind']} | {attack['name']} | {row['evaluation']['outcome']}, "
        assert start in DOCUMENT
        assert f" | {row['serving']['outcome']}, " in DOCUMENT.split(start)[1].split("\n")[0]


def test_every_attack_on_a_server_is_shown():
    for attack in json.loads((ROOT / "tests/databases/attacks_servers.json").read_text()):
        assert f"| {attack['database']} | {attack['name']} | " in DOCUMENT
