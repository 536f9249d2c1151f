import pytest

from distilsql.data.load import load_sql_benchmark
from distilsql.inference.predict import load_named


@pytest.fixture(scope="session")
def teacher():
    return load_named("demo:teacher")[0]


@pytest.fixture(scope="session")
def questions(cache_of_the_tests):
    return load_sql_benchmark("demo:test-seen").take(12, seed=0)
