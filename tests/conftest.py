"""Shared by all tests: one thread a process, a cache folder of their own, shape annotations of `distilsql.distill`
checked, and tiny real models built once."""

import os
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from jaxtyping import install_import_hook

# Before torch and numpy are loaded. Tests run in parallel, one process a core (`make test`), and what they compute is
# too small for threads. The processes that tests start inherit this.
for library in ("OMP", "MKL", "OPENBLAS"):
    os.environ.setdefault(f"{library}_NUM_THREADS", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Hundreds of processes import the library and these files: they are compiled once, whatever the user has set.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# matplotlib's list of fonts is slow to make: it is kept from run to run, beside what pytest keeps.
os.environ.setdefault("MPLCONFIGDIR", str(Path(__file__).parents[1] / ".pytest_cache" / "matplotlib"))
_hook = install_import_hook("distilsql.distill", "beartype.beartype")
_hook.__enter__()

# Properties are tried on the same examples every time, so that what fails is what was changed. `-m slow` tries all of
# them again, on more examples and on others: those of --hypothesis-seed. Tests are never timed: a busy machine is not a
# failure.
hypothesis.settings.register_profile("same", deadline=None, derandomize=True, max_examples=15)
hypothesis.settings.register_profile("others", deadline=None, max_examples=150, print_blob=True)
hypothesis.settings.load_profile("same")

SHARED = Path(__file__).parents[2] / "shared"
MOST_WORKERS = 8  # each holds torch and the tiny models, about 600 MB


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--rounding", type=int, metavar="SEED", help="compute as another processor: other_rounding.py"
    )
    parser.addoption("--part", default="1/1", metavar="2/3", help="run the second third of the tests")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("markexpr") == "slow":
        hypothesis.settings.load_profile("others")


@pytest.hookimpl(tryfirst=True)  # before what has no mark is left out
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("markexpr") == "slow":
        for item in items:
            if getattr(getattr(item, "obj", None), "is_hypothesis_test", False):
                item.add_marker("slow")
    part, parts = map(int, config.getoption("--part").split("/"))
    chosen = [item for item in items if zlib.crc32(item.nodeid.encode()) % parts == part % parts]
    if len(chosen) < len(items):
        config.hook.pytest_deselected(items=list(set(items) - set(chosen)))
        items[:] = chosen
    # At the end, a worker without work takes tests of another's: with half a file it would launch all that serves it.
    items.sort(key=lambda item: item.get_closest_marker("launch") is None)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """`-n auto`: a process for each core that this one may use, which are not always all that there are."""
    return min(len(os.sched_getaffinity(0)), MOST_WORKERS)


@pytest.fixture(scope="session", autouse=True)
def cache_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing is read from the user's cache folder or left there; the processes of one run share one."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        yield


@pytest.fixture(scope="session")
def fork_server() -> Iterator[Any]:
    """A `forked.ForkServer`, one for each process of a run; it begins with the first command."""
    from forked import ForkServer

    with ForkServer() as server:
        yield server


@pytest.fixture
def commands(fork_server: Any) -> Iterator[Any]:
    """`commands.run("train", "recipe.toml", cwd=folder)`. What still runs at the end of the test is killed."""
    yield fork_server
    fork_server.kill_all()


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[Any]:
    """A `servers.Server`, one for each process of a run."""
    from servers import running_postgresql

    with running_postgresql() as server:
        yield server


@pytest.fixture(scope="session")
def mariadb_server() -> Iterator[Any]:
    from servers import running_mariadb

    with running_mariadb() as server:
        yield server


@pytest.fixture(autouse=True)
def seeded() -> None:
    """A test draws the same numbers alone, and after any other in its process."""
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)


@pytest.fixture(autouse=True)
def rounding(request: pytest.FixtureRequest) -> Iterator[None]:
    seed = request.config.getoption("--rounding")
    if seed is None or request.node.get_closest_marker(
        "compiled"
    ):  # dynamo compiles nothing under such a mode
        yield
        return
    from other_rounding import OtherRounding

    with OtherRounding(seed):
        yield


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory) -> dict[str, Path]:
    """A tokenizer and two random Llamas that share it: `student` (2 layers) and `teacher` (3 layers)."""
    from distilsql.models.tiny import save_tiny_llama, train_tokenizer

    folder = tmp_path_factory.mktemp("models")
    texts = [
        "database schema :\ntable singer , columns = [ singer.name ( text ) , singer.age ( integer ) ]\n",
        "foreign keys :\nmatched contents :\nNone\nHow many singers are older than 30?\n",
        "SELECT count(*) FROM singer WHERE age > 30 ORDER BY name DESC LIMIT 1",
    ]
    tokenizer = train_tokenizer(texts, 330)
    save_tiny_llama(folder / "student", tokenizer, hidden_size=32, layers=2, heads=4, seed=1)
    save_tiny_llama(folder / "teacher", tokenizer, hidden_size=48, layers=3, heads=4, seed=2)
    return {"student": folder / "student", "teacher": folder / "teacher"}


@pytest.fixture
def vllm(monkeypatch):
    """`import vllm` finds a stand-in (see vllm_stand_in.py)."""
    import vllm_stand_in

    monkeypatch.setitem(sys.modules, "vllm", vllm_stand_in)
    monkeypatch.setattr(vllm_stand_in.LLM, "started", [], raising=False)
    return vllm_stand_in
