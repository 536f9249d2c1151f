"""Comparisons: a column against a constant from the data, as SQL and in words."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from sqlglot import exp

from distilsql.databases.job import Cell
from distilsql.synthesis.grammar.draft import Constant, Mentions, Topic, mention
from distilsql.synthesis.roles import QUESTION_WORDS, TRUE_VALUES, Role, written
from distilsql.synthesis.world import Attribute

MONTHS = (
    "January February March April May June July August September October November December".split()  # noqa: SIM905
)
_OVER = (("above", "greater than", "more than"), exp.GT)
_UNDER = (("below", "less than", "under"), exp.LT)
_AT_LEAST = (("at least",), exp.GTE)
_AT_MOST = (("at most",), exp.LTE)
_LATER, _EARLIER = (("after",), exp.GT), (("before",), exp.LT)


@dataclass(frozen=True)
class Comparison:
    """`limits` follow the column's noun ("above 20", "Oslo"), empty where that cannot be said so; `words` follow the
    entity's noun ("whose age is above 20")."""

    attribute: Attribute
    where: exp.Expr
    limits: tuple[str, ...]
    words: tuple[str, ...]
    mentions: Mentions


def compare(topic: Topic, avoid: tuple[Attribute, ...] = ()) -> Comparison | None:
    """A comparison of one of the entity's columns (not of `avoid`) with a constant that its data hold."""
    attribute = topic.pick([a for a in topic.entity.spoken if a.profile.values], avoid)
    if attribute is None:
        return None
    return compare_attribute(topic, attribute)


def compare_attribute(topic: Topic, attribute: Attribute) -> Comparison | None:
    if 0.02 < attribute.profile.null_share < 0.98 and topic.dice.chance(0.12):
        return _missing(topic, attribute)
    return _BY_ROLE[attribute.role](topic, attribute)


def said(value: Cell, attribute: Attribute) -> tuple[str, ...]:
    """How a constant is put into words: what it stands for, if the names say so; dates also as people write them."""
    meaning = dict(attribute.means).get(written(value))
    if meaning:
        return (meaning,)
    if isinstance(value, float) and value.is_integer():
        return (str(int(value)),)
    if isinstance(value, str) and re.fullmatch(r"\d+(\.\d+)?", value):
        return (value,)
    if isinstance(value, str):
        return (value, f'"{value}"') if re.fullmatch(r"[\w.&'-]+( [\w.&'-]+)*", value) else (f'"{value}"',)
    return (written(value),)


def _mentioned(attribute: Attribute, *values: Cell) -> Mentions:
    return (mention(attribute), *(_constant(value, attribute) for value in values))


def _constant(value: Cell, attribute: Attribute) -> tuple[str, ...]:
    """What a code stands for is no value of the data: it may be shown to anybody who may see the names."""
    forms = said(value, attribute)
    return forms if written(value) in dict(attribute.means) else Constant(forms, _number(value))


def _whose(attribute: Attribute, limits: tuple[str, ...], is_: str = "") -> tuple[str, ...]:
    verb = is_ or attribute.verb
    return tuple(f"whose {attribute.noun} {verb} {limit}" for limit in limits)


def _equal(topic: Topic, attribute: Attribute) -> Comparison | None:
    if not attribute.profile.values:
        return None
    kinds = {"one": 6.0}
    text = all(isinstance(value, str) for value in attribute.profile.values)
    if attribute.role in (Role.CATEGORY, Role.CODE) and attribute.profile.distinct > 2:
        kinds |= {"two": 0.8, "other": 0.0 if attribute.has_nulls else 0.8}
    if (
        text
        and attribute.role not in (Role.CODE, Role.ID)
        and attribute.profile.distinct > 3
        and not attribute.means
    ):
        kinds |= {"part": 1.5 if attribute.role is Role.NAME else 0.5}
    kind = topic.dice.weighted(kinds)
    values, column = attribute.profile.values, topic.sql.column(attribute)
    value = topic.dice.pick(values)
    if kind == "part":
        return _part(topic, attribute, str(value))
    mentions = _mentioned(attribute, value)
    if kind == "one":
        limits = said(value, attribute)
        words = _whose(attribute, limits)
        if attribute.role in (Role.CATEGORY, Role.CODE, Role.ID):
            words += tuple(f"with {attribute.noun} {limit}" for limit in limits)
        elif attribute.noun in ("name", "title") and text:
            words += tuple(f"{'named' if attribute.noun == 'name' else 'titled'} {limit}" for limit in limits)
            mentions = mentions[1:]
        return Comparison(
            attribute, exp.EQ(this=column, expression=topic.sql.literal(value)), limits, words, mentions
        )
    if kind == "other":
        where: exp.Expr = exp.NEQ(this=column, expression=topic.sql.literal(value))
        limits = tuple(f"other than {limit}" for limit in said(value, attribute))
        words = _whose(attribute, tuple(f"not {limit}" for limit in said(value, attribute)))
        return Comparison(attribute, where, limits, words, mentions)
    second = topic.dice.pick([other for other in values if other != value] or [value])
    if second == value:
        return None
    where = exp.In(this=column, expressions=[topic.sql.literal(value), topic.sql.literal(second)])
    limits = tuple(
        f"{a} or {b}" for a, b in zip(said(value, attribute), said(second, attribute), strict=False)
    )
    words = (
        *_whose(attribute, limits),
        *(f"whose {attribute.noun} {attribute.verb} either {limit}" for limit in limits),
    )
    return Comparison(attribute, where, limits, words, (*mentions, _constant(second, attribute)))


def _part(topic: Topic, attribute: Attribute, value: str) -> Comparison | None:
    """LIKE: a text that begins, ends, or has a word somewhere."""
    words = [word for word in re.findall(r"[A-Za-z]{3,}", value) if word.lower() not in ("the", "and", "for")]
    if not words:
        return None
    word = topic.dice.pick(words)
    verb, pattern, part = topic.dice.pick(
        (
            ("contains", f"%{word}%", word),
            ("starts with", f"{value[:1]}%", value[:1]),
            ("ends with", f"%{word[-2:]}", word[-2:]),
        )
    )
    if not part.isalpha() or not value.endswith(part if verb == "ends with" else ""):
        return None
    where = exp.Like(this=topic.sql.column(attribute), expression=exp.Literal.string(pattern))
    thing = "the letter" if len(part) == 1 else topic.dice.pick(("", "the text"))
    quoted = f"{thing} '{part}'".strip()
    return Comparison(
        attribute,
        where,
        (),
        _whose(attribute, (quoted,), verb),
        (mention(attribute), Constant((f"'{part}'",), part)),
    )


def _ranked(topic: Topic, attribute: Attribute) -> Comparison | None:
    """An amount against a limit well within its range."""
    limits = round_limits(attribute)
    if not limits:
        return None
    limit = topic.dice.pick(limits)
    column = topic.sql.column(attribute)
    spread = [other for other in limits if other > limit]  # type: ignore[operator]
    if spread and topic.dice.chance(0.15):
        high = topic.dice.pick(spread)
        where: exp.Expr = exp.Between(this=column, low=topic.sql.literal(limit), high=topic.sql.literal(high))
        said_limits: tuple[str, ...] = (f"between {_number(limit)} and {_number(high)}",)
        return Comparison(
            attribute, where, said_limits, _whose(attribute, said_limits), _mentioned(attribute, limit, high)
        )
    if attribute.profile.distinct <= 12 and topic.dice.chance(0.3):
        value = topic.dice.pick(attribute.profile.values)
        where = exp.EQ(this=column, expression=topic.sql.literal(value))
        exact = said(value, attribute)
        words = (*_whose(attribute, exact), *(f"with {attribute.noun} equal to {v}" for v in exact))
        return Comparison(
            attribute, where, tuple(f"equal to {v}" for v in exact), words, _mentioned(attribute, value)
        )
    over, operator = topic.dice.weighted({_OVER: 4.0, _UNDER: 3.0, _AT_LEAST: 1.5, _AT_MOST: 1.0})
    where = operator(this=column, expression=topic.sql.literal(limit))
    said_limits = tuple(f"{word} {_number(limit)}" for word in over)
    phrases = (*_whose(attribute, said_limits), *(f"with {attribute.noun} {s}" for s in said_limits))
    return Comparison(attribute, where, said_limits, phrases, _mentioned(attribute, limit))


def _number(value: Cell) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else written(value)


def round_limits(attribute: Attribute, margin: int = 4) -> list[Cell]:
    """Quantiles of an amount, its outer ones left out, as round as they may be and still differ."""
    quantiles = attribute.profile.quantiles
    inner = sorted(set(quantiles[margin : len(quantiles) - margin]))  # type: ignore[type-var]
    if len(inner) < 2 or not all(isinstance(value, int | float) for value in inner):
        return [value for value in inner if isinstance(value, int | float)]
    step = (inner[-1] - inner[0]) / 8  # type: ignore[operator]
    unit = 10.0 ** max(-2, len(str(int(step))) - 1 if step >= 1 else -len(str(int(1 / step))))
    rounded = sorted({round(round(value / unit) * unit, 2) for value in inner})  # type: ignore[operator]
    whole = attribute.profile.is_whole_number or unit >= 1
    return [int(value) if whole else value for value in rounded]


def _year(topic: Topic, attribute: Attribute) -> Comparison | None:
    column, quantiles = topic.sql.column(attribute), attribute.profile.quantiles
    if topic.dice.chance(0.5):
        value = topic.dice.pick(attribute.profile.values)
        where: exp.Expr = exp.EQ(this=column, expression=topic.sql.literal(value))
        limits: tuple[str, ...] = (str(value),)
        return Comparison(attribute, where, limits, _whose(attribute, limits), _mentioned(attribute, value))
    limit = topic.dice.pick(quantiles[4:17] or quantiles)
    words, operator = topic.dice.pick((_LATER, _EARLIER))
    where = operator(this=column, expression=topic.sql.literal(limit))
    limits = tuple(f"{word} {limit!s}" for word in words)
    return Comparison(attribute, where, limits, _whose(attribute, limits), _mentioned(attribute, limit))


def _date(topic: Topic, attribute: Attribute) -> Comparison | None:
    day = str(topic.dice.pick(attribute.profile.quantiles[3:18]))[:10]
    column = topic.sql.column(attribute)
    if attribute.profile.has_time or topic.dice.chance(0.45):
        year = int(day[:4])
        words, operator = topic.dice.weighted({(("in",), exp.EQ): 3.0, _LATER: 1.0, _EARLIER: 1.0})
        where = operator(this=topic.sql.year_of(attribute), expression=topic.sql.literal(year))
        year_word = "" if operator is exp.EQ else "the year "
        limits = tuple(f"{word} {year_word}{year}" for word in words)
        return Comparison(
            attribute,
            where,
            limits,
            _whose(attribute, limits),
            (mention(attribute), Constant((str(year),), str(year))),
        )
    words, operator = topic.dice.pick((_LATER, _EARLIER))
    where = operator(this=column, expression=exp.Literal.string(day))
    spoken = (day, f"{MONTHS[int(day[5:7]) - 1]} {int(day[8:10])}, {day[:4]}")
    limits = tuple(f"{word} {value}" for word in words for value in spoken)
    return Comparison(
        attribute, where, limits, _whose(attribute, limits), (mention(attribute), Constant(spoken, day))
    )


def _flag(topic: Topic, attribute: Attribute) -> Comparison | None:
    value = topic.dice.pick(attribute.profile.values)
    where = exp.EQ(this=topic.sql.column(attribute), expression=topic.sql.literal(value))
    first, _, rest = attribute.noun.partition(" ")
    if rest and first in QUESTION_WORDS and not attribute.means:
        doing = {"has": "having ", "had": "having had ", "can": "able to "}.get(first, "")
        no = "" if written(value).lower() in TRUE_VALUES else "not "
        return Comparison(attribute, where, (), (f"{no}marked as {doing}{rest}",), ((rest,),))
    limits = said(value, attribute)
    return Comparison(attribute, where, limits, _whose(attribute, limits), _mentioned(attribute, value))


def _missing(topic: Topic, attribute: Attribute) -> Comparison:
    null = exp.Is(this=topic.sql.column(attribute), expression=exp.Null())
    if topic.dice.chance(0.6):
        words = (f"with no recorded {attribute.noun}", f"whose {attribute.noun} {attribute.verb} missing")
        return Comparison(attribute, null, (), words, (mention(attribute),))
    words = (f"with a known {attribute.noun}", f"whose {attribute.noun} {attribute.verb} recorded")
    return Comparison(attribute, exp.Not(this=null), (), words, (mention(attribute),))


_BY_ROLE: dict[Role, Callable[[Topic, Attribute], Comparison | None]] = {
    Role.ID: _equal,
    Role.NAME: _equal,
    Role.CATEGORY: _equal,
    Role.CODE: _equal,
    Role.TEXT: _equal,
    Role.AMOUNT: _ranked,
    Role.YEAR: _year,
    Role.DATE: _date,
    Role.FLAG: _flag,
}
