"""bm25s is there; JAX and its messages stay out."""

import logging
import subprocess
import sys
from pathlib import Path

import pytest

from distilsql.databases.bm25 import without

FAKE_JAX = "raise SystemExit('JAX takes the GPU')"


@pytest.mark.parametrize("module", ["distilsql.databases.values", "distilsql.databases.inner_values"])
def test_jax_is_not_imported(module, tmp_path):
    (tmp_path / "jax").mkdir()
    (tmp_path / "jax" / "__init__.py").write_text(FAKE_JAX)
    program = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import {module}; print('jax' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (0, "False\n"), result.stderr


def test_nothing_but_the_adapter_imports_bm25s():
    source = Path(__file__).parents[2] / "src" / "distilsql"
    importing = [path.name for path in source.rglob("*.py") if "import bm25s\n" in path.read_text()]
    assert importing == ["bm25.py"]


def test_a_module_that_was_there_is_there_again():
    import json

    with without("json"), pytest.raises(ModuleNotFoundError):
        import json.decoder
    assert sys.modules["json"] is json
    with without("no_such_package"):
        pass
    assert "no_such_package" not in sys.modules


def test_a_program_sees_of_its_messages_what_it_wants_to_see():
    assert logging.getLogger("bm25s").level == logging.NOTSET
