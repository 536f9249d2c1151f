"""Roles: what a column is for, inferred from its type, its name and a sample of its values."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from distilsql.databases.job import Cell
from distilsql.databases.schema import Column
from distilsql.synthesis.identifiers import word_list
from distilsql.synthesis.sampling import LONGEST_SAMPLED_TEXT


class Role(Enum):
    """What people ask of a column differs by role: an amount is averaged, a category is grouped by."""

    ID = "id"
    NAME = "name"
    CATEGORY = "category"
    AMOUNT = "amount"
    YEAR = "year"
    DATE = "date"
    FLAG = "flag"
    CODE = "code"
    TEXT = "text"
    NONE = "none"  # empty, binary, or of values of several kinds


KEPT_VALUES = 40
LONGEST_SPOKEN_TEXT = 40
_LONG_TEXT = 60  # on average: free text
_ISO = re.compile(r"\d{4}-(0\d|1[0-2])-[0-3]\d")
_ISO_TIME = re.compile(r"\d{4}-(0\d|1[0-2])-[0-3]\d[ T]\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}(:?\d{2})?)?")
_ID_WORDS, _CODE_WORDS, _KIND_WORDS = word_list("id"), word_list("code"), word_list("kind")
_NAME_WORDS, _YEAR_WORDS, _DETAIL_WORDS = word_list("name"), word_list("year"), word_list("detail")
_NOT_ADDITIVE = word_list("not_additive")
_FLAG_VALUES = (
    frozenset({"0", "1"}),
    frozenset({"t", "f"}),
    frozenset({"true", "false"}),
    frozenset({"y", "n"}),
    frozenset({"yes", "no"}),
)
# A flag of such a name is a question, and no noun.
QUESTION_WORDS = frozenset(["is", "was", "has", "had", "can"])
TRUE_VALUES = frozenset({"1", "t", "true", "y", "yes"})


@dataclass(frozen=True)
class ColumnProfile:
    """What a sample says of a column. `values` are its most frequent ones, most frequent first, those left out that
    nobody would say (empty, long, on several lines); `quantiles` the 0th, 5th, … 100th percentile of numbers and dates.

    `null_share` is of the sample. `has_time` says that dates have a time of day.
    """

    name: str
    role: Role
    type: str
    values: tuple[Cell, ...] = ()
    quantiles: tuple[Cell, ...] = ()
    distinct: int = 0
    count: int = 0
    null_share: float = 0.0
    is_additive: bool = False
    is_whole_number: bool = False
    has_time: bool = False
    comment: str = ""

    @property
    def is_unique(self) -> bool:
        """No value twice in the sample, and at least two of them."""
        return self.distinct == self.count > 1 and self.null_share == 0


def profile_column(
    column: Column, words: Sequence[str], cells: Sequence[Cell], *, is_key: bool
) -> ColumnProfile:
    """`words` are those of the column's name, `cells` its sample; `is_key`: part of a primary or foreign key."""
    known = [cell for cell in cells if cell is not None]
    counts = Counter(known)
    role = _role(column, words, known, len(counts), is_key=is_key)
    ordered: list[Cell] = []
    if role in (Role.AMOUNT, Role.YEAR, Role.DATE):
        ordered = sorted(known)  # type: ignore[type-var,assignment]
    return ColumnProfile(
        name=column.name,
        role=role,
        type=column.type,
        values=tuple(value for value, _ in counts.most_common() if _can_be_said(value))[:KEPT_VALUES],
        quantiles=tuple(ordered[round((len(ordered) - 1) * part / 20)] for part in range(21))
        if ordered
        else (),
        distinct=len(counts),
        count=len(known),
        null_share=1 - len(known) / len(cells) if cells else 0.0,
        is_additive=role is Role.AMOUNT and not _NOT_ADDITIVE & set(words),
        is_whole_number=bool(known) and all(isinstance(cell, int) for cell in known),
        comment=column.comment,
        has_time=role is Role.DATE and not all(_ISO.fullmatch(str(cell)) for cell in known),
    )


def written(cell: Cell) -> str:
    """A cell as a person writes it in names.toml: truth values in lower case."""
    return str(cell).lower() if isinstance(cell, bool) else str(cell)


def _can_be_said(value: Cell) -> bool:
    if isinstance(value, str):
        return (
            bool(value)
            and value == " ".join(value.split())
            and len(value) <= LONGEST_SPOKEN_TEXT
            and '"' not in value
        )
    return isinstance(value, int | float) and value == value and abs(value) < 1e15


def _role(
    column: Column, words: Sequence[str], known: Sequence[Cell], distinct: int, *, is_key: bool
) -> Role:
    if not known or any(isinstance(cell, bytes) for cell in known):
        return Role.NONE
    if is_key and not all(_ISO.fullmatch(str(cell)) for cell in known):
        return Role.ID
    texts = [cell for cell in known if isinstance(cell, str)]
    if column.type.startswith("bool") and {0, 1}.issuperset(known):
        return Role.FLAG
    if {written(cell).lower() for cell in known} in _FLAG_VALUES and len(known) > 2:
        return Role.FLAG
    if not texts:
        return _number_role(words, known, distinct)
    if len(texts) < len(known):
        return Role.NONE
    return _text_role(words, texts, distinct)


def _number_role(words: Sequence[str], known: Sequence[Cell], distinct: int) -> Role:
    named = set(words)
    whole = all(isinstance(cell, int) for cell in known)
    if whole and named & _ID_WORDS:
        return Role.ID
    if whole and named & _YEAR_WORDS and all(1000 <= cell <= 2200 for cell in known):  # type: ignore[operator]
        return Role.YEAR
    if named & _CODE_WORDS and not named & {"of"}:
        return Role.CODE if distinct * 4 <= len(known) else Role.ID
    if whole and named & _KIND_WORDS and distinct <= 12 and distinct * 2 <= len(known):
        return Role.CODE
    return Role.AMOUNT


def _text_role(words: Sequence[str], texts: Sequence[str], distinct: int) -> Role:
    named = set(words)
    if all(_ISO.fullmatch(text) or _ISO_TIME.fullmatch(text) for text in texts):
        return Role.DATE
    if named & _ID_WORDS:
        return Role.ID
    if named & _YEAR_WORDS and all(re.fullmatch(r"[12]\d{3}", text) for text in texts):
        return Role.YEAR
    is_long = sum(map(len, texts)) > _LONG_TEXT * len(texts) or max(map(len, texts)) >= LONGEST_SAMPLED_TEXT
    if is_long or any("\n" in text for text in texts):
        return Role.TEXT
    written_numbers = sum(bool(re.fullmatch(r"[\d.,+() -]+", text)) for text in texts)
    if written_numbers > 0.8 * len(texts) or named & _CODE_WORDS:
        return Role.CODE if distinct * 2 <= len(texts) and distinct <= 50 else Role.TEXT
    if named & _DETAIL_WORDS:
        return Role.TEXT
    repeats = distinct <= 0.5 * len(texts) and distinct <= 200
    if named & _NAME_WORDS and not repeats:
        return Role.NAME
    if repeats or (distinct < len(texts) <= 40):
        return Role.CATEGORY
    return Role.NAME if distinct == len(texts) and words[-1:] == ["name"] else Role.TEXT
