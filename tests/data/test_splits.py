from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distilsql.data.example import Example
from distilsql.data.layout import read_layout
from distilsql.data.load import load_benchmark
from distilsql.data.spider import spider_layout
from distilsql.data.splits import IN_DOMAIN_PARTS, IN_DOMAIN_SEED, in_domain_split, query_key

SHARED_DATA = Path(__file__).parents[3] / "shared" / "data"
needs_shared = pytest.mark.skipif(
    not SHARED_DATA.is_dir(), reason="needs the real benchmarks in ../shared/data"
)

# A few queries asked several times, of several databases, in several spellings.
spellings = st.sampled_from(["SELECT a FROM t{0} WHERE x = '{0}'", 'select  A from T{0} where X = "{0}" ;'])
asked = st.tuples(st.integers(0, 30), st.sampled_from("pqr"), spellings)


def examples_of(queries: list[tuple[int, str, str]]) -> list[Example]:
    return [
        Example(f"x/{index}", db_id, "?", spelling.format(number))
        for index, (number, db_id, spelling) in enumerate(queries)
    ]


@given(st.lists(asked, max_size=120), st.integers(0, 3))
def test_parts_are_disjoint_in_queries_and_together_everything(
    queries: list[tuple[int, str, str]], seed: int
) -> None:
    examples = examples_of(queries)
    parts = in_domain_split(examples, seed)
    assert sorted(e.example_id for part in parts.values() for e in part) == sorted(
        e.example_id for e in examples
    )
    keys = {name: {query_key(example.gold_sql) for example in part} for name, part in parts.items()}
    for name in IN_DOMAIN_PARTS:
        for other in set(IN_DOMAIN_PARTS) - {name}:
            assert not keys[name] & keys[other]


@given(st.lists(asked, max_size=120), st.randoms())
def test_the_split_hangs_on_the_seed_and_not_on_the_order(
    queries: list[tuple[int, str, str]], rng: object
) -> None:
    examples = examples_of(queries)
    shuffled = list(examples)
    rng.shuffle(shuffled)  # type: ignore[attr-defined]
    first, second = in_domain_split(examples, 1), in_domain_split(shuffled, 1)
    assert {name: set(part) for name, part in first.items()} == {
        name: set(part) for name, part in second.items()
    }


def test_another_seed_gives_another_split() -> None:
    examples = examples_of([(number, "p", "SELECT {0}") for number in range(100)])
    tests = {in_domain_split(examples, seed)["test"] for seed in range(5)}
    assert len(tests) == 5
    assert all(len(test) == 10 for test in tests)


def test_a_database_that_shares_queries_with_another_has_its_own_tenth() -> None:
    shared = [(number, db_id, "SELECT {0}") for number in range(50) for db_id in "pq"]
    own = [(number, "p" if number < 100 else "q", "SELECT {0}") for number in range(50, 150)]
    for part in ("valid", "test"):
        held_out = in_domain_split(examples_of(shared + own), seed=0)[part]
        assert Counter(example.db_id for example in held_out) == {"p": 10, "q": 10}


def test_aliases_and_spacing_do_not_make_another_query() -> None:
    assert query_key("SELECT T1.a FROM x AS T1 WHERE T1.b = 'V'") == query_key(
        "select x.a\nfrom x where x.b='v';"
    )
    assert query_key("SELECT a FROM x WHERE b = 1") != query_key("SELECT a FROM x WHERE b = 11")


@pytest.mark.slow
@needs_shared
def test_spider_is_divided_about_80_10_10_within_each_database() -> None:
    examples = read_layout(spider_layout("spider:train_spider", SHARED_DATA)).examples
    parts = in_domain_split(examples, IN_DOMAIN_SEED)
    keys = {part: {query_key(example.gold_sql) for example in own} for part, own in parts.items()}
    assert sum(map(len, keys.values())) == len(set().union(*keys.values()))
    sizes = {part: Counter(example.db_id for example in own) for part, own in parts.items()}
    assert sum(size.total() for size in sizes.values()) == 7000
    for db_id in sizes["train"]:
        whole = sum(size[db_id] for size in sizes.values())
        for part in ("valid", "test"):
            assert abs(sizes[part][db_id] - whole / 10) <= 4, (db_id, part)
    test = load_benchmark("spider:indomain-test", root=SHARED_DATA, missing_databases="skip")
    assert set(test.examples) <= set(parts["test"])
    assert len(test.examples) + len(test.skipped) == len(parts["test"])
