"""What differs between dialects of SQL, as sqlglot knows it: how names are quoted, and what types are called."""

import re
from functools import lru_cache

from distilsql.databases.url import DIALECTS, Engine

_WIDTH_OF_INTEGER = re.compile(r"\b((?:tiny|small|medium|big)?int(?:eger)?)\(\d+\)")
# What an engine reads bare, as it stands in the catalogue. PostgreSQL folds bare names to lower case; the others
# compare them whatever their case, or spell them as they are.
_BARE: dict[Engine, re.Pattern[str]] = {
    "sqlite": re.compile(r"[^\W\d]\w*"),
    "postgresql": re.compile(r"[a-z_][a-z0-9_]*"),
    "duckdb": re.compile(r"[A-Za-z_][A-Za-z0-9_]*"),
    "mysql": re.compile(r"[A-Za-z_][A-Za-z0-9_]*"),
}


@lru_cache(maxsize=100_000)
def quoted_in(name: str, engine: Engine) -> str:
    """A table's or column's name in the quotes of the engine."""
    from sqlglot import exp  # slow to load, and not needed for most commands

    return exp.to_identifier(name, quoted=True).sql(dialect=DIALECTS[engine])


@lru_cache(maxsize=100_000)
def name_in(name: str, engine: Engine) -> str:
    """A table's or column's name as a query has it: bare where the engine reads it so, else in quotes."""
    if _BARE[engine].fullmatch(name) and name.lower() not in _reserved(engine):
        return name
    return quoted_in(name, engine)


def common_type(declared: str, engine: Engine) -> str:
    """The shortest words of the dialect for a type, in lower case: `int` for INTEGER(11), `text` for DuckDB's VARCHAR.

    One that sqlglot does not know, such as an extension's, stays as it is; `text` where there is none."""
    from sqlglot import exp  # as above
    from sqlglot.errors import SqlglotError

    plain = _WIDTH_OF_INTEGER.sub(r"\1", " ".join(declared.lower().split()).replace("tinyint(1)", "boolean"))
    try:
        return exp.DataType.build(plain, dialect=DIALECTS[engine]).sql(dialect=DIALECTS[engine]).lower()
    except (SqlglotError, ValueError):
        return plain or "text"


@lru_cache
def _reserved(engine: Engine) -> frozenset[str]:
    """Words that cannot be bare names, as the engine's own driver or SQLAlchemy lists them."""
    if engine == "duckdb":
        import duckdb

        with duckdb.connect() as connection:
            words = connection.execute(
                "SELECT keyword_name FROM duckdb_keywords() WHERE keyword_category <> 'unreserved'"
            )
            return frozenset(word for (word,) in words.fetchall())
    if engine == "mysql":
        from sqlalchemy.dialects.mysql.reserved_words import RESERVED_WORDS_MARIADB, RESERVED_WORDS_MYSQL

        return frozenset(RESERVED_WORDS_MARIADB | RESERVED_WORDS_MYSQL)
    from sqlalchemy.dialects.postgresql.base import RESERVED_WORDS

    return frozenset(RESERVED_WORDS)
