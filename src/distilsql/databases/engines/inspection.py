"""PostgreSQL's catalogue, read by SQLAlchemy's inspector over a connection that is open already."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Enum, create_engine, inspect
from sqlalchemy.engine.reflection import Inspector, ObjectKind
from sqlalchemy.exc import CompileError
from sqlalchemy.pool import StaticPool

MOST_LABELS = 10  # of an enum that a prompt has room for


def inspected(
    driver_name: str,
    connection: Any,
    schemas: Sequence[str],
    readable: Iterable[tuple[str, str, str, bool]],
) -> dict[str, Any]:
    """Tables and views of `schemas`, by name; of two of one name that of the earlier schema, which the bare name means:
    the other is `hidden`, even if the first may not be read.

    `readable` are all (schema, table, column) with whether this user may read it: what is not listed is not shown.
    """
    may_read: dict[tuple[str, str], set[str]] = {}
    for schema, table_name, column, is_allowed in readable:
        may_read.setdefault((schema, table_name), set()).update([column] if is_allowed else [])
    meant: dict[str, str] = {}
    for schema in schemas:
        meant |= {name: schema for owner, name in may_read if owner == schema and name not in meant}
    hidden = [
        f"{schema}.{name}"
        for (schema, name), columns in may_read.items()
        if schema in schemas and columns and meant[name] != schema
    ]
    engine = create_engine(f"{driver_name}://", creator=lambda: connection, poolclass=StaticPool)
    inspector = inspect(engine)
    found: dict[str, dict[str, Any]] = {}
    keys: list[dict[str, Any]] = []
    for schema in schemas:
        described = _Described.of(inspector, schema)
        for name in sorted(name for name, owner in meant.items() if owner == schema):
            if not may_read[schema, name] or (schema, name) not in described.columns:  # dropped meanwhile
                continue
            table, foreign = described.table(name, engine.dialect)
            table["columns"] = [c for c in table["columns"] if c["name"] in may_read[schema, name]]
            found[name] = table
            # The server leaves the schema out where the bare name means the table.
            keys += [key for key in foreign if key.pop("schema") in (None, meant.get(key["referred_table"]))]
    tables = sorted(found.values(), key=lambda table: table["is_view"])
    denied = sorted(name for name, schema in meant.items() if not may_read[schema, name])
    return {"tables": tables, "foreign_keys": keys, "denied": denied, "hidden": sorted(hidden)}


@dataclass(frozen=True)
class _Described:
    """What the catalogue says of a schema's tables and views, each read by one query for all of them."""

    schema: str
    views: frozenset[str]
    columns: Mapping[Any, Sequence[Any]]
    primary: Mapping[Any, Any]
    comments: Mapping[Any, Any]
    foreign: Mapping[Any, Sequence[Any]]

    @classmethod
    def of(cls, inspector: Inspector, schema: str) -> "_Described":
        views = {*inspector.get_view_names(schema), *inspector.get_materialized_view_names(schema)}
        return cls(
            schema,
            frozenset(views),
            inspector.get_multi_columns(schema, kind=ObjectKind.ANY),
            inspector.get_multi_pk_constraint(schema),
            inspector.get_multi_table_comment(schema, kind=ObjectKind.ANY),
            inspector.get_multi_foreign_keys(schema),
        )

    def table(self, name: str, dialect: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        key = (self.schema, name)
        constraint = self.primary.get(key) or {}
        primary = set(constraint.get("constrained_columns") or [])
        columns = [
            {
                "name": column["name"],
                "type": _type(column["type"], dialect),
                "comment": column.get("comment") or "",
                "is_primary_key": column["name"] in primary,
            }
            for column in self.columns[key]
        ]
        comment = (self.comments.get(key) or {}).get("text") or ""
        places = [column["name"] for column in columns]
        foreign = [
            {
                "table": name,
                "columns": declared["constrained_columns"],
                "schema": declared["referred_schema"],
                "referred_table": declared["referred_table"],
                "referred_columns": declared["referred_columns"],
            }
            for declared in self.foreign.get(key, ())
        ]
        # The last declared first, as SQLite lists them, where keys are declared in the order of their columns.
        foreign.sort(key=lambda key: places.index(key["columns"][0]), reverse=True)
        return {"name": name, "comment": comment, "is_view": name in self.views, "columns": columns}, foreign


def _type(kind: Any, dialect: Any) -> str:
    if isinstance(kind, Enum):
        labels = ", ".join(f"'{label}'" for label in kind.enums)
        return f"enum({labels})" if len(kind.enums) <= MOST_LABELS else "enum"
    if getattr(kind, "collation", None):
        kind.collation = None
    try:
        return str(kind.compile(dialect=dialect))
    except CompileError:  # of an extension
        return ""
