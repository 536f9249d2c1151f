"""The prompt of CodeS (Li et al. 2024) as a prefix that depends on the database and a suffix that depends on the
question.

    database schema :
    table singer , columns = [ singer.singer_id ( int | primary key | values : 1 , 2 ) , … ]
    foreign keys :
    concert.stadium_id = stadium.stadium_id
    matched contents :
    singer.country ( France )
    What is the average age of singers from France?

The prefix ends after the foreign keys, the suffix with the newline that the SQL follows. Table comments, which
CodeS repeats in every column's name, stand here once, after the table's name.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from distilsql.data.example import Example
from distilsql.databases.database import Database
from distilsql.databases.dialect import name_in
from distilsql.databases.normalise import lower_name
from distilsql.databases.schema import Column, ForeignKey, Schema, Table
from distilsql.databases.url import Engine
from distilsql.databases.values import ColumnName, matched_values, sample_values

SchemaFilter = Literal["fixed", "never", "when_needed", "always"]
Template = Literal["codes", "chatml"]
Quoting = Literal["codes"] | Engine

_QUOTED = re.compile(r"\W")  # CodeS quotes a name for the five characters ( - ) / and space
# What SQLite does not take, bare, for a table's or column's name. Others of its keywords, such as `key`, it does.
_RESERVED = frozenset(
    """add all alter and as autoincrement between case cast check collate commit constraint create cross current_date
    current_time current_timestamp default deferrable delete distinct drop else escape except exists false foreign
    from full group having in index inner insert intersect into is isnull join left limit natural not nothing notnull
    null on or order outer primary raise references returning right rowid select set table then to transaction true
    union unique update using values when where""".split()  # noqa: SIM905
)
_SPOKEN: dict[Engine, str] = {
    "sqlite": "SQLite",
    "duckdb": "DuckDB",
    "postgresql": "PostgreSQL",
    "mysql": "MySQL",
}
_CHATML_BEGIN = (
    "<|im_start|>system\nAnswer the question with one {engine} query for the database, and nothing else.<|im_end|>\n"
    "<|im_start|>user\n"
)
_CHATML_END = "<|im_end|>\n<|im_start|>assistant\n"


@dataclass(frozen=True)
class PromptOptions:
    """What a prompt shows and how it is kept within its budget. The defaults are CodeS's but for the filter.

    `schema_filter` says when a prompt shows only the tables and columns relevant to its question: "fixed" and "never"
    (both cut the same for every question of a database, by what training uses and by the schema alone), "when_needed"
    (if the whole schema exceeds `max_prefix_tokens`) or "always" (as CodeS does; then no two questions share a
    prefix). `quoting` says which names stand in back-ticks: with "codes" those with an unusual character, with
    "sqlite" all that SQLite does not read bare; of a database of another engine they stand as that has them (see
    `options_for`). `template` "chatml" wraps the same text in the chat markup of Qwen and
    SmolLM instruction models.
    """

    include_types: bool = True
    include_comments: bool = True
    include_values: bool = True
    values_per_column: int = 2
    max_value_characters: int = 25
    include_matched_values: bool = True
    max_matched_per_column: int = 25
    schema_filter: SchemaFilter = "when_needed"
    filter_tables: int = 6
    filter_columns: int = 10
    max_prefix_tokens: int = 2048
    template: Template = "codes"
    quoting: Quoting = "codes"


@dataclass(frozen=True)
class Prompt:
    """`prefix` + `suffix` is the text that the SQL follows. `rule` names the cut that the budget made, if any,
    and `cut` what was cut; a prompt that was not touched has the rule "whole" and no cuts."""

    prefix: str
    suffix: str
    rule: str = "whole"
    cut: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        return self.prefix + self.suffix


def options_for(database: Database, options: PromptOptions) -> PromptOptions:
    """`options` with the quotes of the database's dialect, where that is not SQLite's."""
    return options if database.engine == "sqlite" else replace(options, quoting=database.engine)


def build_prefix(
    database: Database, options: PromptOptions, *, with_values: Collection[ColumnName] | None = None
) -> str:
    """The part of the prompt that depends on the database alone: its schema, sample values and foreign keys.

    `with_values` are the columns whose sample values are shown, by default all."""
    schema, options = database.schema, options_for(database, options)
    samples: Mapping[ColumnName, tuple[str, ...]] = {}
    if options.include_values and options.values_per_column:
        samples = sample_values(database.path, schema, options.values_per_column)
    if with_values is not None:
        samples = {column: values for column, values in samples.items() if column in with_values}
    lines = ["database schema :"]
    lines += [_table_line(table, samples, options) for table in schema.tables]
    lines += _foreign_key_lines(schema.foreign_keys, options.quoting)
    opening = _CHATML_BEGIN.format(engine=_SPOKEN[database.engine]) if options.template == "chatml" else ""
    return opening + "\n".join(lines) + "\n"


def build_suffix(
    example: Example, database: Database, options: PromptOptions, *, cache_folder: Path | None = None
) -> str:
    """The part of the prompt that depends on the question: the values it mentions, evidence, and the question.

    Only values of columns in `database.schema` are shown. `cache_folder` is where the value index is kept.
    """
    text, options = question_text(example), options_for(database, options)
    matches: Mapping[ColumnName, tuple[str, ...]] = {}
    if options.include_matched_values:
        matches = matched_in(database, text, options, cache_folder)
    return suffix_of(text, database.schema, matches, options)


def suffix_of(
    text: str, schema: Schema, matches: Mapping[ColumnName, tuple[str, ...]], options: PromptOptions
) -> str:
    """The suffix that asks `text` and shows those of `matches` that are of a column in `schema`."""
    closing = _CHATML_END if options.template == "chatml" else ""
    return "\n".join([*_matched_lines(schema, matches, options.quoting), text]) + "\n" + closing


def question_text(example: Example) -> str:
    """Evidence and question on one line: what is matched, ranked and asked."""
    return " ".join(f"{example.evidence} {example.question}".split())


def matched_in(
    database: Database, text: str, options: PromptOptions, cache_folder: Path | None = None
) -> dict[ColumnName, tuple[str, ...]]:
    """The values of the database that `text` spells out, by column."""
    return matched_values(
        database.path, text, most_per_column=options.max_matched_per_column, cache_folder=cache_folder
    )


def _table_line(table: Table, samples: Mapping[ColumnName, tuple[str, ...]], options: PromptOptions) -> str:
    name = shown_name(table.name, options.quoting)
    comment = _comment(table.name, table.comment) if options.include_comments else ""
    columns = " , ".join(
        f"{name}.{_column_text(column, samples.get((table.name, column.name), ()), options)}"
        for column in table.columns
    )
    return f"table {name}{f' ( comment : {comment} )' if comment else ''} , columns = [ {columns} ]"


def _column_text(column: Column, samples: tuple[str, ...], options: PromptOptions) -> str:
    values = [value for value in samples if len(value) <= options.max_value_characters]
    comment = _comment(column.name, column.comment) if options.include_comments else ""
    facts = [
        column.type if options.include_types else "",
        "primary key" if column.is_primary_key else "",
        f"comment : {comment}" if comment else "",
        f"values : {' , '.join(values)}" if values else "",
    ]
    shown = " | ".join(filter(None, facts))
    name = shown_name(column.name, options.quoting)
    return f"{name} ( {shown} )" if shown else name


def _foreign_key_lines(keys: tuple[ForeignKey, ...], quoting: Quoting) -> list[str]:
    if not keys:
        return ["foreign keys : None"]
    pairs = [((key.table, key.column), (key.referred_table, key.referred_column)) for key in keys]
    return [
        "foreign keys :",
        *(f"{_dotted(*one, quoting)} = {_dotted(*other, quoting)}" for one, other in pairs),
    ]


def _matched_lines(
    schema: Schema, matches: Mapping[ColumnName, tuple[str, ...]], quoting: Quoting
) -> list[str]:
    columns = [(table.name, column.name) for table in schema.tables for column in table.columns]
    found = [
        f"{_dotted(*column, quoting)} ( {' , '.join(matches[column])} )"
        for column in columns
        if column in matches
    ]
    return ["matched contents :", *found] if found else ["matched contents : None"]


def _dotted(table: str, column: str, quoting: Quoting) -> str:
    return f"{shown_name(table, quoting)}.{shown_name(column, quoting)}"


def shown_name(name: str, quoting: Quoting = "codes") -> str:
    """Lower case; in back-ticks if a character is no letter, digit or underscore. Keywords and names that begin with a
    digit are bare as in CodeS, or, with `quoting` "sqlite", in back-ticks too: then every name runs as it is shown.
    With another engine's `quoting` it is as it would stand in that one's SQL.
    """
    if quoting not in ("codes", "sqlite"):
        return name_in(name, quoting)
    lower = lower_name(name)
    if quoting == "codes":
        return f"`{lower}`" if _QUOTED.search(lower) else lower
    is_bare = lower and not _QUOTED.search(lower) and not lower[0].isdigit() and lower not in _RESERVED
    return lower if is_bare else "`" + lower.replace("`", "``") + "`"


def _comment(name: str, comment: str) -> str:
    """The comment in lower case on one line; nothing if it only says the name again."""
    text = " ".join(comment.lower().split())
    return "" if _bare(text) == _bare(name.lower()) else text


def _bare(text: str) -> str:
    return text.replace("_", "").replace(" ", "")
