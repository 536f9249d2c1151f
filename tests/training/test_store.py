"""Hidden states on disk: whole or not there, theirs or refused, within a budget, under any number of processes."""

import json
import os
import subprocess
import sys
import time

import pytest
import torch

from distilsql.errors import RunError
from distilsql.training.teacher_states.store import open_store

IDENTITY = {"weights": "abc", "precision": "bfloat16"}
KEYS = [f"{number:02d}" + "f" * 62 for number in range(6)]


@pytest.fixture
def store(tmp_path):
    return open_store(tmp_path, IDENTITY, "models/big")


def states(seed: int = 0, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    return torch.randn(7, 16, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_what_was_written_is_read_to_the_bit(store, caplog, dtype):
    assert store.read(KEYS[0]) is None
    store.write(KEYS[0], states(dtype=dtype)[:, ::2], 1.25)
    found = store.read(KEYS[0])
    assert found.dtype == dtype
    assert torch.equal(found, states(dtype=dtype)[:, ::2])
    assert store.seconds(KEYS[0]) == 1.25
    assert store.seconds(KEYS[1]) is None
    assert caplog.messages == []


def cut(path, content):
    path.write_bytes(content[:-3])


def empty(path, content):
    path.write_bytes(b"")


def flip_a_bit(path, content):
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def another_entry(path, content):
    path.write_bytes(path.with_name(f"{KEYS[1]}.safetensors").read_bytes())


@pytest.mark.parametrize("damage", [cut, empty, flip_a_bit, another_entry])
def test_a_damaged_entry_is_reported_and_not_used(store, caplog, damage):
    for key in KEYS[:2]:
        store.write(key, states(), 1.0)
    path = store.path(KEYS[0])
    store.path(KEYS[1]).rename(path.with_name(f"{KEYS[1]}.safetensors"))
    damage(path, path.read_bytes())
    assert store.read(KEYS[0]) is None
    assert len(caplog.messages) == 1
    assert str(path) in caplog.messages[0]
    assert "computed again" in caplog.messages[0]
    store.write(KEYS[0], states(), 1.0)
    assert torch.equal(store.read(KEYS[0]), states())


def test_an_identity_has_a_folder_of_its_own(store, tmp_path, caplog):
    store.write(KEYS[0], states(), 1.0)
    other = open_store(tmp_path, IDENTITY | {"weights": "abd"}, "models/big")
    assert other.read(KEYS[0]) is None
    again = open_store(tmp_path, dict(reversed(IDENTITY.items())), "moved/big")
    assert torch.equal(again.read(KEYS[0]), states())
    # An entry that was copied over from the other teacher's folder still says whose it is.
    other.path(KEYS[0]).parent.mkdir()
    other.path(KEYS[0]).write_bytes(store.path(KEYS[0]).read_bytes())
    assert other.read(KEYS[0]) is None
    assert "another entry" in caplog.messages[0]


def test_a_folder_whose_manifest_disagrees_or_is_gone_is_refused(store, tmp_path, caplog):
    store.write(KEYS[0], states(), 1.0)
    manifest = store.folder / "manifest.json"
    content = json.loads(manifest.read_text())
    assert content["made_from"] == "models/big"
    manifest.write_text(json.dumps(content | {"identity": IDENTITY | {"weights": "other"}}))
    with pytest.raises(RunError, match=r"other inputs .*differs in weights\).* Delete it"):
        open_store(tmp_path, IDENTITY, "models/big")
    for broken in (b"{", b"[]", b'{"identity": 3}'):
        manifest.write_bytes(broken)
        with pytest.raises(RunError, match="Delete"):
            open_store(tmp_path, IDENTITY, "models/big")
    manifest.unlink()
    with pytest.raises(RunError, match="Delete"):
        open_store(tmp_path, IDENTITY, "models/big")


def test_room_is_made_by_what_was_used_least_recently(store, tmp_path, caplog):
    other = open_store(tmp_path, {"weights": "older teacher"}, "models/old")
    for age, (place, key) in enumerate(
        [(store, KEYS[0]), (other, KEYS[1]), (store, KEYS[2]), (other, KEYS[3])]
    ):
        place.write(key, states(), 1.0)
        os.utime(place.path(key), (1000 + age, 1000 + age))
    size = store.path(KEYS[0]).stat().st_size
    leftover = store.path(KEYS[0]).with_name("x.safetensors.1.part")
    growing = store.path(KEYS[0]).with_name("x.safetensors.2.part")
    for path, seconds_ago in ((leftover, 7200), (growing, 5)):
        path.write_bytes(b"half")
        os.utime(path, (time.time() - seconds_ago,) * 2)
    store.make_room([KEYS[0]], new_bytes=size, budget_bytes=3 * size)
    assert store.path(KEYS[0]).exists(), "the oldest, but needed"
    assert store.path(KEYS[0]).stat().st_mtime > time.time() - 3600, "needed counts as used"
    assert not other.path(KEYS[1]).exists()
    assert not store.path(KEYS[2]).exists()
    assert other.path(KEYS[3]).exists(), "nothing more than necessary"
    assert not leftover.exists()
    assert growing.exists(), "another process may be writing it"


@pytest.mark.slow
def test_two_processes_that_write_and_read_never_meet_half_an_entry(store, tmp_path):
    """Both write the same entries over and over and check every read; neither may ever find a broken one."""
    code = f"""
import json, sys, torch
from pathlib import Path
from distilsql.training.teacher_states.store import open_store
store = open_store(Path({str(tmp_path)!r}), json.loads({json.dumps(IDENTITY)!r}), "m")
key, misses = {KEYS[0]!r}, 0
for turn in range(150):
    store.write(key, torch.full((4000, 16), 3.0), 1.0)
    found = store.read(key)
    assert found is not None and bool((found == 3).all())
"""
    processes = [subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE) for _ in range(2)]
    for process in processes:
        _, errors = process.communicate(timeout=600)
        assert process.returncode == 0, errors.decode()[-2000:]
    assert [path.suffix for path in store.path(KEYS[0]).parent.iterdir()] == [".safetensors"]


@pytest.mark.slow
def test_kill_minus_nine_loses_only_the_entry_being_written(store, tmp_path, caplog):
    code = f"""
import json, torch
from pathlib import Path
from distilsql.training.teacher_states.store import open_store
store = open_store(Path({str(tmp_path)!r}), json.loads({json.dumps(IDENTITY)!r}), "m")
print("ready", flush=True)
for turn in range(10**6):
    key = f"{{turn % 50:02d}}" + "f" * 62
    store.write(key, torch.full((20000, 64), float(turn % 50)), 1.0)
"""
    for delay_s in (0.03, 0.1, 0.3, 3.0):
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(delay_s)
        process.kill()
        process.communicate()
        found = [store.read(f"{number:02d}" + "f" * 62) for number in range(50)]
        assert caplog.messages == []
        for number, states in enumerate(found):
            assert states is None or bool((states == number).all())
    assert all(states is not None for states in found), "the last process had time for every entry"
