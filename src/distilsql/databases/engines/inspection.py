"""PostgreSQL's catalogue, read by SQLAlchemy's inspector over a connection that is open already."""

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Enum, create_engine, inspect
from sqlalchemy.engine.reflection import Inspector
from sqlalchemy.exc import CompileError, NoSuchTableError, UnreflectableTableError
from sqlalchemy.pool import StaticPool

MOST_LABELS = 10  # of an enum that a prompt has room for


def inspected(
    driver_name: str,
    connection: Any,
    schemas: Sequence[str],
    readable: Iterable[tuple[str, str, str, bool]],
) -> dict[str, Any]:
    """Tables and views of `schemas`, by name; of two of one name that of the earlier schema, which the bare name means.

    `readable` are all (schema, table, column) with whether this user may read it: what is not listed is not shown.
    """
    may_read: dict[tuple[str, str], set[str]] = {}
    denied: set[str] = set()
    for schema, table_name, column, is_allowed in readable:
        may_read.setdefault((schema, table_name), set()).update([column] if is_allowed else [])
    engine = create_engine(f"{driver_name}://", creator=lambda: connection, poolclass=StaticPool)
    inspector = inspect(engine)
    found: dict[str, dict[str, Any]] = {}
    keys: list[dict[str, Any]] = []
    for schema in schemas:
        views = {*inspector.get_view_names(schema), *inspector.get_materialized_view_names(schema)}
        names = sorted(name for owner, name in may_read if owner == schema)
        for name in [name for name in names if name not in found]:
            if not may_read[schema, name]:
                denied.add(name)
                continue
            try:
                table, foreign = _table(inspector, engine.dialect, schema, name, name in views)
            except (NoSuchTableError, UnreflectableTableError):  # a view of what is not there any more
                continue
            table["columns"] = [c for c in table["columns"] if c["name"] in may_read[schema, name]]
            found[name] = table
            keys += foreign
    tables = sorted(found.values(), key=lambda table: table["is_view"])
    return {"tables": tables, "foreign_keys": keys, "denied": sorted(denied - found.keys())}


def _table(
    inspector: Inspector, dialect: Any, schema: str, name: str, is_view: bool
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    primary = set(inspector.get_pk_constraint(name, schema)["constrained_columns"] or [])
    columns = [
        {
            "name": column["name"],
            "type": _type(column["type"], dialect),
            "comment": column.get("comment") or "",
            "is_primary_key": column["name"] in primary,
        }
        for column in inspector.get_columns(name, schema)
    ]
    comment = inspector.get_table_comment(name, schema).get("text") or ""
    places = [column["name"] for column in columns]
    foreign = [
        {
            "table": name,
            "columns": key["constrained_columns"],
            "referred_table": key["referred_table"],
            "referred_columns": key["referred_columns"],
        }
        for key in ([] if is_view else inspector.get_foreign_keys(name, schema))
    ]
    # The last declared first, as SQLite lists them, where keys are declared in the order of their columns.
    foreign.sort(key=lambda key: places.index(key["columns"][0]), reverse=True)
    return {"name": name, "comment": comment, "is_view": is_view, "columns": columns}, foreign


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
