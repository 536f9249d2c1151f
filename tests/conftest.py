"""Shared by all tests: shape annotations of `distilsql.distill` are checked, and tiny real models are built once."""

import os
import sys
from pathlib import Path

import hypothesis
import pytest
from jaxtyping import install_import_hook

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
_hook = install_import_hook("distilsql.distill", "beartype.beartype")
_hook.__enter__()

# Tests are never timed: a busy machine is not a failure.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

SHARED = Path(__file__).parents[2] / "shared"


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory) -> dict[str, Path]:
    """A tokenizer and two random Llamas that share it: `student` (2 layers) and `teacher` (4 layers)."""
    from distilsql.models.tiny import save_tiny_llama, train_tokenizer

    folder = tmp_path_factory.mktemp("models")
    texts = [
        "database schema :\ntable singer , columns = [ singer.name ( text ) , singer.age ( integer ) ]\n",
        "foreign keys :\nmatched contents :\nNone\nHow many singers are older than 30?\n",
        "SELECT count(*) FROM singer WHERE age > 30 ORDER BY name DESC LIMIT 1",
    ]
    tokenizer = train_tokenizer(texts, 330)
    save_tiny_llama(folder / "student", tokenizer, hidden_size=32, layers=2, heads=4, seed=1)
    save_tiny_llama(folder / "teacher", tokenizer, hidden_size=48, layers=4, heads=4, seed=2)
    return {"student": folder / "student", "teacher": folder / "teacher"}


@pytest.fixture
def vllm(monkeypatch):
    """`import vllm` finds a stand-in (see vllm_stand_in.py)."""
    import vllm_stand_in

    monkeypatch.setitem(sys.modules, "vllm", vllm_stand_in)
    monkeypatch.setattr(vllm_stand_in.LLM, "started", [], raising=False)
    return vllm_stand_in
