"""The embedded teacher answers about a database of the demo: a real model, a real file, a real socket where needed."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest

pytest.importorskip("fastapi")

from starlette.testclient import TestClient

from distilsql.data.load import load_sql_benchmark
from distilsql.inference.predict import load_named
from distilsql.serve.app import make_app
from distilsql.serve.browse import suggested_questions
from distilsql.serve.feedback import Feedback
from distilsql.serve.guard import names_of
from distilsql.serve.service import Service
from serving import running

NAME = "teacher"


@pytest.fixture(scope="session")
def benchmark(cache_of_the_tests):
    return load_sql_benchmark("demo:test-seen")


@pytest.fixture(scope="session")
def model():
    return load_named("demo:teacher")[0]


@pytest.fixture(scope="session")
def examples(benchmark):
    """Questions about one database, whose gold is known."""
    return [example for example in benchmark.examples if example.db_id == "shop"]


@pytest.fixture(scope="session")
def database(benchmark):
    return benchmark.databases["shop"]


@pytest.fixture(scope="session")
def service(model, database) -> Iterator[Service]:
    with Service(model, database, name=NAME) as service:
        service.warm()
        yield service


@pytest.fixture
def app_of(tmp_path) -> Callable[..., object]:
    def make(service: Service, *, api_key: str = "", host: str = "127.0.0.1") -> object:
        return make_app(
            service,
            feedback=Feedback(tmp_path / "feedback.jsonl"),
            suggestions=suggested_questions(service.database),
            names=names_of(host),
            api_key=api_key,
        )

    return make


@pytest.fixture
def client(service, app_of) -> Iterator[TestClient]:
    with TestClient(app_of(service), base_url="http://localhost", raise_server_exceptions=True) as client:
        yield client


@pytest.fixture
def served(service, app_of) -> Callable[..., AbstractContextManager[str]]:
    """`with served(api_key="…") as url:`"""
    return lambda **options: running(app_of(service, **options))
