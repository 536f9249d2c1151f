"""Threads: how many a model is worth, how they wait, and that what the user set is left alone."""

import json
import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from distilsql.threads import (
    SMALL_MODEL_PARAMETERS,
    THREAD_VARIABLES,
    WAIT_VARIABLES,
    fit_threads,
    one_thread,
    threads_for,
)

# Which of the settings are there when torch begins to load, and how many threads there are then and after fitting.
PROGRAM = """
import json, os, sys
from importlib.abc import MetaPathFinder

class Watch(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            seen.update({key: os.environ[key] for key in NAMES if key in os.environ})
            sys.meta_path.remove(self)
            if LOOKS_ONLY:
                print(json.dumps([seen, 0, 0]), flush=True)
                os._exit(0)

NAMES, LOOKS_ONLY, seen = sys.argv.pop(1).split(","), sys.argv.pop(1) == "True", {}
from distilsql import cli
assert "torch" not in sys.modules
@cli.app.command()
def look():
    sys.meta_path.insert(0, Watch())
    import torch
    from distilsql.threads import fit_threads
    before = torch.get_num_threads()
    print(json.dumps([seen, before, fit_threads(torch.nn.Linear(2, 2))]))
sys.argv = ["distilsql", "look"]
cli.main()
"""


def without_thread_settings() -> dict[str, str]:
    """The environment without what users, or this run of tests, have set of any library's threads."""
    return {
        name: value
        for name, value in os.environ.items()
        if name not in THREAD_VARIABLES and not name.endswith("_NUM_THREADS")
    }


def seen_by_torch(looks_only=False, **settings):
    """What PROGRAM prints; with `looks_only` it ends before torch is loaded, and has counted no threads."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.endswith("_NUM_THREADS") and name not in THREAD_VARIABLES
    }
    command = [sys.executable, "-c", PROGRAM, ",".join(THREAD_VARIABLES), str(looks_only)]
    result = subprocess.run(command, env=kept | settings, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


@pytest.mark.slow
def test_the_command_line_sets_how_threads_wait_before_torch_is_loaded():
    seen, _, fitted = seen_by_torch()
    assert seen == {"GOMP_SPINCOUNT": "2000"}
    assert fitted == 1


@pytest.mark.parametrize("name", WAIT_VARIABLES)
def test_how_users_have_threads_wait_is_kept(name):
    value = {"OMP_WAIT_POLICY": "ACTIVE", "GOMP_SPINCOUNT": "77"}[name]
    assert seen_by_torch(looks_only=True, **{name: value})[0] == {name: value}


@pytest.mark.slow
def test_the_users_number_of_threads_is_kept():
    _, before, fitted = seen_by_torch(OMP_NUM_THREADS="2")
    assert (before, fitted) == (2, 2), "even for a model of six parameters"


@pytest.mark.slow
def test_how_threads_wait_is_not_said_to_be_set_once_torch_has_read_it():
    code = (
        "import os, torch\nfrom distilsql.threads import wait_briefly\n"
        "assert not wait_briefly()\nassert 'GOMP_SPINCOUNT' not in os.environ"
    )
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.endswith("_NUM_THREADS") and name not in THREAD_VARIABLES
    }
    subprocess.run([sys.executable, "-c", code], env=kept, check=True)


@pytest.mark.parametrize("cores", [1, 2, 64])
def test_small_models_get_one_thread_and_larger_ones_every_core(cores):
    assert threads_for(1_000_000, cores) == threads_for(SMALL_MODEL_PARAMETERS - 1, cores) == 1
    assert threads_for(SMALL_MODEL_PARAMETERS, cores) == threads_for(10**10, cores) == cores


@pytest.fixture
def three_cores(monkeypatch):
    monkeypatch.setattr("joblib.cpu_count", lambda only_physical_cores: 3)
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


class Counted(nn.Module):
    """A model that says it has so many parameters."""

    def __init__(self, parameters: int, device: str = "cpu") -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(1, device=device).expand(parameters))


@pytest.mark.usefixtures("three_cores")
def test_the_largest_model_decides_and_a_change_is_said_once(caplog):
    caplog.set_level("INFO", "distilsql")
    torch.set_num_threads(2)
    for _ in range(2):
        assert fit_threads(Counted(1000), environment={}) == 1
        assert torch.get_num_threads() == 1
    assert len(caplog.messages) == 1
    assert "1 of 3 cores" in caplog.messages[0]
    assert fit_threads(Counted(1000), Counted(10**9), environment={}) == 3
    assert torch.get_num_threads() == 3
    assert len(caplog.messages) == 2


@pytest.mark.usefixtures("three_cores")
def test_threads_are_left_alone_where_users_set_them_and_off_the_cpu():
    torch.set_num_threads(2)
    for models, environment in (([Counted(9)], {"OMP_NUM_THREADS": "2"}), ([Counted(9, "meta")], {})):
        assert fit_threads(*models, environment=environment) == 2
        assert torch.get_num_threads() == 2


@pytest.mark.usefixtures("three_cores")
def test_one_thread_is_for_the_time_being():
    def fails():
        with one_thread():
            assert torch.get_num_threads() == 1
            raise KeyError

    torch.set_num_threads(2)
    with pytest.raises(KeyError):
        fails()
    assert torch.get_num_threads() == 2
