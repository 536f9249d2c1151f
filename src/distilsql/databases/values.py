"""Values: what the cells of a database hold; sample values of a column, and the values that a question mentions.

The retriever is CodeS's (Li et al. 2024) on other libraries: BM25 over the distinct short text values finds
candidates for every 1- to 4-gram of the question, and a character match keeps those that the question spells out.
Texts are compared in Unicode's compatibility form (NFKC), whatever their case. Where words are not apart, as in Chinese
or in a German compound, values are looked for inside them: see `inner_values`.
"""

import json
import re
import threading
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any
from unicodedata import normalize

import numpy as np
import regex
from rapidfuzz import fuzz, process

from distilsql.databases.bm25 import bm25s, stopwords
from distilsql.databases.cells import first_cells, short_texts
from distilsql.databases.file_cache import DatabaseIdentity, derived_files
from distilsql.databases.inner_values import folded, inner_values
from distilsql.databases.schema import Schema, Table, introspect
from distilsql.databases.url import Place
from distilsql.errors import DatabaseUnavailable
from distilsql.files import default_cache_folder

MAX_VALUE_CHARACTERS = 25
MOST_VALUES_PER_COLUMN = 100_000  # indexed: a column of millions of names would take minutes and gigabytes
_LONGEST_GRAM = 4
_CANDIDATES_PER_GRAM = 10
_SIMILARITY = 0.9
_SIMILARITY_IF_CONTAINED = 0.85
# Not worth a match though a column may hold them: a question has them for other reasons.
_COMMON = frozenset([*stopwords.STOPWORDS_EN_PLUS, "id", "many", "yes", "no"])
_INDEX_VERSION = "3"
_READINGS = 5
_LOADING = threading.Lock()
_WORD = regex.compile(
    r"\w+"
)  # unlike re's, it keeps the vowel signs of Hindi and Thai and the points of Hebrew

ColumnName = tuple[str, str]  # (table, column) as the database spells them


def sample_values(path: Place, schema: Schema, count: int) -> Mapping[ColumnName, tuple[str, ...]]:
    """The first `count` distinct values of each column, as text on one line; null, empty and binary left out. See
    `databases.cells` for how far a large table is read.

    A view that is slow to compute, or fails on its rows, has none. Raises DataError if a table cannot be read.
    """
    database = DatabaseIdentity.of(path)
    known = _known_samples(database, count)
    return {
        (table.name, column): samples
        for table in schema.tables
        for column, samples in _samples_of_table(database.path, table, count, known).items()
    }


# By table, and by a column's name and type: what was read of it. A prompt is cut by trying one schema after another,
# which are all of the same tables.
_Samples = dict[tuple[str, str, str], tuple[str, ...]]


@lru_cache(maxsize=512)
def _known_samples(database: DatabaseIdentity, count: int) -> _Samples:
    """Up to `count` samples of each column of one state of a database, as far as they have been asked for."""
    return {}


def _samples_of_table(path: Place, table: Table, count: int, known: _Samples) -> dict[str, tuple[str, ...]]:
    keys = {column.name: (table.name, column.name, column.type) for column in table.columns}
    unread = tuple(column for column in table.columns if keys[column.name] not in known)
    if unread:
        for name, cells in first_cells(path, replace(table, columns=unread), count).items():
            known[keys[name]] = tuple(filter(None, map(_one_line, cells)))
    return {name: known[key] for name, key in keys.items()}


def _one_line(cell: Any) -> str:
    return "" if isinstance(cell, bytes) else " ".join(str(cell).split())


@dataclass(frozen=True)
class ValueIndex:
    """The distinct text values of up to 25 characters of one database, searchable by words; of a column with more
    than `MOST_VALUES_PER_COLUMN` the first ones.

    `columns[i]` are the columns that hold `values[i]`; the retriever is absent where there is no such value.
    """

    values: tuple[str, ...]
    columns: tuple[tuple[ColumnName, ...], ...]
    retriever: bm25s.BM25 | None

    @cached_property
    def positions(self) -> Mapping[str, tuple[int, ...]]:
        """The positions of the values that a folded spelling stands for."""
        found: dict[str, tuple[int, ...]] = {}
        for position, value in enumerate(self.values):
            found[folded(value)] = (*found.get(folded(value), ()), position)
        return found

    def candidates(self, text: str) -> list[int]:
        """The positions, ascending, of up to 10 values for each 1- to 4-gram of `text`."""
        if self.retriever is None:
            return []
        vocabulary = self.retriever.vocab_dict
        token_ids = [vocabulary.get(word) if word not in _COMMON else None for word in _words(text)]
        starts = range(len(token_ids))
        grams = {
            tuple(token for token in token_ids[start : start + length] if token is not None)
            for length in range(1, _LONGEST_GRAM + 1)
            for start in starts
        }
        found: set[int] = set()
        for gram in grams - {()}:
            found.update(_highest(self.retriever.get_scores_from_ids(list(gram))))
        return sorted(found)


def _highest(scores: np.ndarray) -> list[int]:
    """The positions of the ten highest scores above 0, the first of equal ones: `argpartition` alone would pick among
    equal ones as the processor's instructions happen to sort them."""
    count = min(_CANDIDATES_PER_GRAM, len(scores))
    least = np.partition(scores, len(scores) - count)[len(scores) - count]
    above = np.flatnonzero(scores > max(least, 0))
    equal = np.flatnonzero(scores == least)[: count - len(above)] if least > 0 else above[:0]
    return [*above.tolist(), *equal.tolist()]


def matched_values(
    path: Place, text: str, *, most_per_column: int = 25, cache_folder: Path | None = None
) -> dict[ColumnName, tuple[str, ...]]:
    """The values of each column that `text` spells out, best match first; columns without one are left out.

    The index of the database is built on first use and kept in `cache_folder` (see `default_cache_folder`).
    """
    index = load_value_index(path, cache_folder)
    question = _Text.of(text)
    matches: dict[ColumnName, list[_Match]] = defaultdict(list)
    for position in index.candidates(question.text):
        match = question.spelling(index.values[position])
        if match is not None:
            for column in index.columns[position]:
                matches[column].append(match)
    for start, end in inner_values(question.text, lambda spelling: spelling in index.positions):
        for position in index.positions[folded(question.text[start:end])]:
            for column in index.columns[position]:
                match = _Match(index.values[position], start, end, 1.0)
                if match not in matches[column]:
                    matches[column].append(match)
    return {
        column: tuple(match.value for match in _best(found)[:most_per_column])
        for column, found in sorted(matches.items())
    }


@dataclass(frozen=True)
class _Match:
    """`value` is spelled by the text from `start` up to `end`, with a similarity of 0 to 1."""

    value: str
    start: int
    end: int
    similarity: float

    def inside(self, other: "_Match") -> bool:
        covered = other.start <= self.start and self.end <= other.end
        return covered and other.end - other.start > self.end - self.start


def _best(matches: list[_Match]) -> list[_Match]:
    """The matches of one column, without those whose words belong to a longer match."""
    longest = [match for match in matches if not any(match.inside(other) for other in matches)]
    return sorted(longest, key=lambda match: (-match.similarity, match.start - match.end, match.value))


@dataclass(frozen=True)
class _Text:
    """A text in NFKC and its runs of whole words that are short enough to spell a value: folded spelling to place."""

    text: str
    runs: Mapping[str, tuple[int, int]]

    @classmethod
    def of(cls, text: str) -> "_Text":
        text = normalize("NFKC", text)
        words = [word.span() for word in _WORD.finditer(text)]
        runs: dict[str, tuple[int, int]] = {}
        for first, (start, _) in enumerate(words):
            for _, end in words[first:]:
                if end - start > MAX_VALUE_CHARACTERS / _SIMILARITY_IF_CONTAINED:
                    break
                # Of equal words the one in capitals stands for all: only it can spell a code or an initial.
                if text[start:end].isupper() or text[start:end].casefold() not in runs:
                    runs[text[start:end].casefold()] = (start, end)
        return cls(text, runs)

    def spelling(self, value: str) -> _Match | None:
        """Where whole words spell `value`; None if none do.

        The similarity must be at least 0.9, or 0.85 where one contains the other ("dogs", "dog"). Numbers, values
        in capitals (codes) and single letters must be there exactly, the last with their case.
        """
        lower = folded(value)
        nearest = process.extractOne(
            lower, self.runs.keys(), scorer=fuzz.ratio, score_cutoff=100 * _SIMILARITY_IF_CONTAINED
        )
        if nearest is None or lower in _COMMON or nearest[0] in _COMMON:
            return None
        run, similarity = nearest[0], nearest[1] / 100
        start, end = self.runs[run]
        if len(value) == 1 and normalize("NFKC", value) != self.text[start:end]:
            return None
        exact = value.isupper() or re.search(r"\d", value + run)
        contained = lower in run or run in lower
        enough = 1.0 if exact else _SIMILARITY_IF_CONTAINED if contained else _SIMILARITY
        return _Match(value, start, end, similarity) if similarity >= enough else None


def _words(text: str) -> list[str]:
    """Lower-case words; a plural s is dropped so that "dogs" finds "dog"."""
    words = _WORD.findall(folded(text))
    return [word[:-1] if len(word) > 3 and word.endswith("s") else word for word in words]


def load_value_index(path: Place, cache_folder: Path | None = None) -> ValueIndex:
    """The value index of a database, built once for each state of its file; at a server, once a day (by UTC), as what
    changes there cannot be seen from here. Raises DataError, DatabaseUnavailable if it changes all the time."""
    folder = cache_folder or default_cache_folder() / "values"
    with _LOADING:  # questions that come together wait for one index rather than build it each
        return _load_value_index(DatabaseIdentity.of(path), folder)


@lru_cache(maxsize=64)
def _load_value_index(database: DatabaseIdentity, cache_folder: Path) -> ValueIndex:
    for _ in range(_READINGS):
        folder = derived_files(database, partial(_build, database.path), _INDEX_VERSION, cache_folder)
        try:
            return _read_index(folder)
        except FileNotFoundError:  # removed meanwhile, by a process that built the index of a newer state
            continue
    raise DatabaseUnavailable(
        f"{database.path} is written to faster than its values can be read; ask again when less is written."
    )


def _read_index(folder: Path) -> ValueIndex:
    content = json.loads((folder / "values.json").read_text())
    columns = [tuple((table, column) for table, column in held) for held in content["columns"]]
    retriever = bm25s.BM25.load(folder, show_progress=False) if content["values"] else None
    return ValueIndex(tuple(content["values"]), tuple(columns), retriever)


def _build(path: Place, folder: Path) -> None:
    """Read the values of a database and write their index into `folder`."""
    columns_of: dict[str, list[ColumnName]] = defaultdict(list)
    found = short_texts(
        path, introspect(path).tables, most=MOST_VALUES_PER_COLUMN, longest=MAX_VALUE_CHARACTERS
    )
    for column, cells in found.items():
        for value in dict.fromkeys(filter(None, map(_one_line, cells))):
            columns_of[value].append(column)
    values = sorted(value for value in columns_of if _words(value))
    content = {"values": values, "columns": [columns_of[value] for value in values]}
    (folder / "values.json").write_text(json.dumps(content))
    if values:
        retriever = bm25s.BM25()
        retriever.index([_words(value) for value in values], show_progress=False)
        retriever.save(folder, show_progress=False)
