"""Names: what a database's tables and columns are called in questions, as a file that a person edits.

`draft_names` guesses them, `write_names` and `read_names` are `names.toml`. What the file leaves out stays as drafted.
"""

import tomllib
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path

import tomlkit
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from distilsql.errors import DataError
from distilsql.files import read_text, write_text
from distilsql.synthesis.identifiers import expanded, plural_of, singular_of, word_list, words_of
from distilsql.synthesis.profile import Profile, TableProfile
from distilsql.synthesis.roles import QUESTION_WORDS, ColumnProfile, Role
from distilsql.synthesis.source import Source

NAMES_FILE = "names.toml"
_HEADER = """\
What questions call this database's tables and columns: a draft, to be edited.
  one, many   a row of the table, and several ("customer", "customers"); many = "" leaves the table out
  label       the column or columns that a person names a row by
  name        what people call the column
  kind        id, name, category, amount, year, date, flag, code, text, or none, which leaves the column out
  means       what codes stand for: means = { 1 = "open", 2 = "closed" }
[[keys]] are those that the database does not declare. Read back by: distilsql synth DATABASE --names names.toml
"""
# A catalogue's comment of so many words is a name, a longer one an explanation.
_LONGEST_NAME_WORDS = 4
_TABLE_PREFIXES = word_list("table_prefix")
_TABLE_SUFFIXES = word_list("table_suffix")
_UNITS, _DEGREES = word_list("unit"), word_list("degree")
_OF_PARTICIPLES = {Role.AMOUNT: "value", Role.YEAR: "year", Role.DATE: "date"}
_PREPOSITIONS = frozenset(["in", "by", "to", "from", "at", "on", "for", "with"])
_CONJUNCTIONS = frozenset(["or", "if", "is", "that"])
_VERBS, _KIND_WORDS = word_list("verb"), word_list("kind") - {"flag"}
_TIMES = frozenset(["date", "day", "time", "year"])


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ColumnNames(_Strict):
    name: str
    kind: Role
    means: dict[str, str] = Field(default_factory=dict)


class TableNames(_Strict):
    one: str
    many: str
    label: tuple[str, ...] = ()
    columns: dict[str, ColumnNames] = Field(default_factory=dict)


class KeyNames(_Strict):
    child: str
    columns: tuple[str, ...]
    parent: str
    parent_columns: tuple[str, ...]


class Names(_Strict):
    """`tables` and their `columns` are looked up by the names of the database."""

    database: str
    tables: dict[str, TableNames] = Field(default_factory=dict)
    keys: tuple[KeyNames, ...] = ()


def draft_names(source: Source, profile: Profile) -> Names:
    """A guess for every table and column, and the keys that were inferred."""
    common = _common_prefix([words_of(table.name) for table in profile.tables])
    nouns = {table.name: _entity_words(table, common) for table in profile.tables}
    short = Counter(" ".join(_without_suffix(words)) for words in nouns.values())
    for table, words in nouns.items():
        if short[" ".join(_without_suffix(words))] == 1:  # what several tables are called tells none of them
            nouns[table] = _without_suffix(words)
    entities = {singular_of(" ".join(words)) for words in nouns.values()}
    vocabulary = {word for entity in entities for word in entity.split() if len(word) > 2}
    keys = tuple(
        KeyNames(child=k.child, columns=k.columns, parent=k.parent, parent_columns=k.parent_columns)
        for k in profile.keys
        if not k.is_declared
    )
    tables = {table.name: _draft_table(table, nouns[table.name], vocabulary) for table in profile.tables}
    return Names(database=source.db_id, tables=tables, keys=keys)


def _entity_words(table: TableProfile, common: str) -> list[str]:
    words = words_of(table.name)
    while len(words) > 1 and (words[0] in _TABLE_PREFIXES or words[0] == common):
        words = words[1:]
    return words


def _without_suffix(words: list[str]) -> list[str]:
    return words[:-1] if len(words) > 1 and words[-1] in _TABLE_SUFFIXES else words


def _common_prefix(tables: Sequence[list[str]]) -> str:
    """The first word of all names, if they share it: a prefix says nothing."""
    first = {words[0] for words in tables}
    return (
        first.pop() if len(first) == 1 and len(tables) > 2 and all(len(words) > 1 for words in tables) else ""
    )


def _draft_table(table: TableProfile, entity: list[str], vocabulary: Collection[str]) -> TableNames:
    noun = " ".join(expanded(entity, vocabulary))
    if table.comment and len(table.comment.split()) <= _LONGEST_NAME_WORDS:
        noun = table.comment.lower()
    one = singular_of(noun)
    words = {column.name: _column_words(column, table, vocabulary) for column in table.columns}
    columns = {
        column.name: ColumnNames(
            name=" ".join(words[column.name]),
            kind=column.role if _is_noun(words[column.name], column.role) else Role.NONE,
        )
        for column in table.columns
    }
    return TableNames(one=one, many=plural_of(one), label=_label(table, one, words), columns=columns)


def _column_words(column: ColumnProfile, table: TableProfile, vocabulary: Collection[str]) -> list[str]:
    if column.comment and len(column.comment.split()) <= _LONGEST_NAME_WORDS:
        return column.comment.lower().split()
    words = _without_marks(words_of(column.name, vocabulary), table)
    if len(words) > 1 and words[-1].isdigit():
        siblings = Counter(
            tuple(word for word in words_of(c.name) if not word.isdigit()) for c in table.columns
        )
        if siblings[tuple(words[:-1])] == 1:
            words = words[:-1]
    full = expanded(words, vocabulary)
    if column.role is Role.FLAG and full[0] not in QUESTION_WORDS and not _KIND_WORDS & set(full):
        return [
            "is",
            *(full[:-1] if len(full) > 1 and full[-1] in ("yn", "flag") else full),
        ]  # active, damaged_yn
    if len(full) == 1 and full[0] in _DEGREES:  # "the highest of the stadium" is no question
        return [*full, "value"]
    if column.role is Role.DATE and full[-1] in ("on", "at"):  # paid_on, created_at
        return [*full[:-1], "date"]
    if len(full) == 1 and full[0].endswith("ed") and column.role in _OF_PARTICIPLES:  # budgeted, founded
        return [*full, _OF_PARTICIPLES[column.role]]
    if len(full) > 1 and full[-1] in _UNITS:
        return [*full[:-1], "in", full[-1]]
    return (
        [*full[:-1], singular_of(full[-1])] if column.role in (Role.CATEGORY, Role.NAME, Role.CODE) else full
    )


def _is_noun(words: Sequence[str], role: Role) -> bool:
    """Whether "the … of each row" may be asked: not of `took_office`, `in_office`, `popular_in` and `day_or_boarding`.
    A flag may be a question ("is active"), an id is spoken of by what it refers to."""
    if role in (Role.FLAG, Role.ID):
        return True
    ends_open = words[-1] in _PREPOSITIONS and not _TIMES & set(words)  # "date effective from" is said
    is_clause = words[0] in _PREPOSITIONS or (len(words) > 1 and words[0] in _VERBS)
    return not (ends_open or is_clause or _CONJUNCTIONS & set(words))


def _without_marks(words: list[str], table: TableProfile) -> list[str]:
    """g_name of genres is their name, and genre_is a genre."""
    if len(words) > 1 and words[0] == words_of(table.name)[0][0]:
        words = words[1:]
    return words[:-1] if len(words) > 1 and words[-1] in ("is", "are", "was") else words


def _label(table: TableProfile, one: str, words: dict[str, list[str]]) -> tuple[str, ...]:
    """The column that names a row, or first and last name together; empty where nothing does."""
    by_words = {" ".join(found): name for name, found in words.items()}
    for first, last in (("first name", "last name"), ("forename", "surname"), ("given name", "family name")):
        parts = [
            next((name for said, name in by_words.items() if said.endswith(part)), None)
            for part in (first, last)
        ]
        if None not in parts:
            return tuple(part for part in parts if part is not None)
    nouns = {*one.split(), "name", "title", "full"}
    named = [column for column in table.columns if column.role is Role.NAME]
    best = [column for column in named if set(words[column.name]) <= nouns]
    texts = [
        column
        for column in table.columns
        if column.role in (Role.TEXT, Role.CATEGORY)
        and column.values
        and column.distinct >= 0.9 * column.count > 1
    ]
    like = [column for column in texts if set(words[column.name]) & nouns]
    return tuple(column.name for column in [*best, *named, *like, *texts][:1])


def write_names(names: Names, path: Path) -> None:
    document = tomlkit.document()
    for line in _HEADER.splitlines():
        document.add(tomlkit.comment(line))
    document.add("database", tomlkit.item(names.database))
    tables = tomlkit.table(is_super_table=True)
    for name, table in names.tables.items():
        columns = tomlkit.table()
        for column, called in table.columns.items():
            inline = tomlkit.inline_table()
            inline.update({"name": called.name, "kind": called.kind.value})
            if called.means:
                inline["means"] = called.means
            columns.add(column, inline)
        written = tomlkit.table()
        written.update({"one": table.one, "many": table.many, "label": list(table.label)})
        written.add("columns", columns)
        tables.add(name, written)
    document.add("tables", tables)
    if names.keys:
        keys = tomlkit.aot()
        for key in names.keys:
            keys.append(tomlkit.item({field: _plain(value) for field, value in key.model_dump().items()}))
        document.add("keys", keys)
    write_text(path, tomlkit.dumps(document))


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def read_names(path: Path, draft: Names) -> Names:
    """The names in a file, completed by `draft`. Raises DataError where the file is not of this form, or is about
    another database."""
    try:
        written = Names.model_validate(tomllib.loads(read_text(path)))
    except tomllib.TOMLDecodeError as error:
        raise DataError(
            f"{path} is not TOML ({error}); mend it, or delete it and have it drafted again."
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise DataError(
            f"{path}, {where}: {first['msg']}. What each entry may be stands at the file's top."
        ) from error
    _check_known(path, written, draft)
    tables = {
        name: written.tables[name].model_copy(
            update={"columns": {**drafted.columns, **written.tables[name].columns}}
        )
        if name in written.tables
        else drafted
        for name, drafted in draft.tables.items()
    }
    return Names(database=draft.database, tables=tables, keys=written.keys)


def _check_known(path: Path, written: Names, draft: Names) -> None:
    """What the file names must exist: otherwise names for another database would silently be ignored."""
    columns = {(table, column) for table, known in draft.tables.items() for column in known.columns}
    named = {(table, column) for table, told in written.tables.items() for column in told.columns}
    named |= {(table, column) for table, told in written.tables.items() for column in told.label}
    for key in written.keys:
        named |= {(key.child, column) for column in key.columns}
        named |= {(key.parent, column) for column in key.parent_columns}
        if len(key.columns) != len(key.parent_columns):
            raise DataError(
                f"{path}: the key of {key.child} has not as many columns as parent_columns; add the missing."
            )
    missing = [table for table in written.tables if table not in draft.tables]
    missing += [f"{table}.{column}" for table, column in sorted(named - columns) if table not in missing]
    if missing:
        listed = ", ".join(missing[:5]) + (" and others" if len(missing) > 5 else "")
        raise DataError(
            f"{path} is about the database '{written.database}' and names {listed}, which '{draft.database}' has not. "
            "Give the names of this database, or leave --names out to have them drafted."
        )
