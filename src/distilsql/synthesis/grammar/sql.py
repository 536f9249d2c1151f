"""Sql: how names, values and dates are written in one dialect; everything else is sqlglot's.

Trees are built with every column qualified; `finished` takes the qualifiers out where one table is read.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlglot import exp
from sqlglot.dialects.dialect import Dialect

from distilsql.databases.dialect import name_in
from distilsql.databases.job import Cell
from distilsql.databases.url import DIALECTS, Engine
from distilsql.synthesis.identifiers import is_bare
from distilsql.synthesis.world import Attribute, Entity, Relation


@dataclass(frozen=True)
class Sql:
    engine: Engine

    @property
    def dialect(self) -> str:
        """sqlglot's name of it."""
        return DIALECTS[self.engine]

    def identifier(self, name: str) -> exp.Identifier:
        """In quotes where any dialect, or this one, needs them."""
        is_read_bare = self.engine == "sqlite" or name_in(name, self.engine) == name
        return exp.to_identifier(name, quoted=not (is_bare(name) and is_read_bare))

    def column(self, attribute: Attribute) -> exp.Column:
        return self.named(attribute.table, attribute.name)

    def named(self, table: str, column: str) -> exp.Column:
        return exp.Column(this=self.identifier(column), table=self.identifier(table))

    def table(self, entity: Entity | str) -> exp.Table:
        return exp.Table(this=self.identifier(entity if isinstance(entity, str) else entity.name))

    def select(self, *columns: exp.Expr) -> exp.Select:
        return exp.select(*columns, copy=False)

    def joined(self, select: exp.Select, relation: Relation, *, to: str, kind: str = "") -> exp.Select:
        """`select` with the table `to`, one of the relation's two, joined."""
        on = exp.and_(*self.matching(relation), copy=False)
        return select.join(self.table(to), on=on, join_type=kind, copy=False)

    def matching(self, relation: Relation) -> list[exp.Expr]:
        return [
            exp.EQ(this=self.named(relation.child, mine), expression=self.named(relation.parent, other))
            for mine, other in zip(relation.columns, relation.parent_columns, strict=True)
        ]

    def literal(self, value: Cell) -> exp.Expr:
        if isinstance(value, str):
            return exp.Literal.string(value)
        if isinstance(value, bool):
            return exp.Boolean(this=value)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        number = exp.Literal.number(str(abs(value)))  # type: ignore[arg-type]
        return exp.Neg(this=number) if value < 0 else number  # type: ignore[operator]

    def year_of(self, attribute: Attribute) -> exp.Expr:
        """The year of a date, or of a text that is one, as a number."""
        column: exp.Expr = self.column(attribute)
        if self.engine == "sqlite":
            return year_by_strftime(column)
        if not attribute.profile.type.startswith(("date", "timestamp")):
            column = exp.Cast(this=column, to=exp.DataType.build("date"))
        return exp.Extract(this=exp.var("YEAR"), expression=column)

    def ordered(self, key: exp.Expr, *, descending: bool) -> exp.Ordered:
        """A key of ORDER BY that leaves NULLs where the engine puts them."""
        first = {
            "nulls_are_small": not descending,
            "nulls_are_large": descending,
            "nulls_are_last": False,
        }[Dialect.get_or_raise(self.dialect).NULL_ORDERING]
        return exp.Ordered(this=key, desc=descending, nulls_first=first)

    def count(self, column: exp.Expr | None = None, *, distinct: bool = False) -> exp.Count:
        if column is None:
            return exp.Count(this=exp.Star())
        return exp.Count(this=exp.Distinct(expressions=[column]) if distinct else column)

    def percentage(self, condition: exp.Expr) -> exp.Expr:
        """The share of rows that meet a condition, in percent."""
        case = exp.Case(
            ifs=[exp.If(this=condition, true=exp.Literal.number(1))], default=exp.Literal.number(0)
        )
        whole = exp.Mul(this=exp.Literal.number("100.0"), expression=exp.Sum(this=case))
        own = Dialect.get_or_raise(self.dialect)  # no cast is needed
        return exp.Div(this=whole, expression=self.count(), typed=own.TYPED_DIVISION, safe=own.SAFE_DIVISION)

    def written(self, query: exp.Expr) -> str:
        return _finished(query).sql(self.dialect, normalize_functions="lower", comments=False)


AGGREGATES: dict[str, type[exp.AggFunc]] = {"avg": exp.Avg, "max": exp.Max, "min": exp.Min, "sum": exp.Sum}


def year_by_strftime(column: exp.Expr) -> exp.Expr:
    written = exp.Anonymous(this="strftime", expressions=[exp.Literal.string("%Y"), column])
    return exp.Cast(this=written, to=exp.DataType.build("int"))


def _finished(query: exp.Expr) -> exp.Expr:
    """The same query, columns bare in every SELECT that reads one table and speaks of no other."""
    for select in query.find_all(exp.Select):
        read = _tables_read(select)
        own = [column for column in select.find_all(exp.Column) if column.find_ancestor(exp.Select) is select]
        if len(read) == 1 and all(column.table in ("", read[0]) for column in own):
            for column in own:
                column.set("table", None)
    return query


def _tables_read(select: exp.Select) -> Sequence[str]:
    """The tables of FROM and JOIN; two names for anything else that is read, such as a subquery."""
    sources = [
        node.this
        for node in (*select.find_all(exp.From), *select.find_all(exp.Join))
        if node.find_ancestor(exp.Select) is select
    ]
    return [source.name if isinstance(source, exp.Table) else "" for source in sources]
