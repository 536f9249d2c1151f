"""Draft: a query with the phrases that ask it. Topic: what a draft is about, and the dice that decide the rest."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sqlglot import exp

from distilsql.data.dice import Dice
from distilsql.synthesis.grammar.sql import Sql
from distilsql.synthesis.identifiers import plural_of
from distilsql.synthesis.roles import Role
from distilsql.synthesis.world import Attribute, Entity, Relation, World

# Of the lists, where rows have a number.
_ID_SHARE = 0.12
Phrases = Mapping[str, tuple[str, ...]]


class Constant(tuple[str, ...]):
    """The forms in which a constant of the query may be said; `raw` is what the query has for it."""

    raw: str

    def __new__(cls, forms: tuple[str, ...], raw: str) -> "Constant":
        made = super().__new__(cls, forms)
        made.raw = raw
        return made


# Each of these must be said, in one of its forms, for a question to ask what the query answers.
Mentions = tuple[tuple[str, ...], ...]
ColumnName = tuple[str, str]


@dataclass(frozen=True)
class Draft:
    """`pattern` is the key of its wordings, `phrases` what fits each slot of them; `mentions` is what a question must
    say."""

    pattern: str
    query: exp.Expr
    phrases: Phrases
    mentions: Mentions = ()


@dataclass
class Topic:
    """`uses` counts how often each column was asked about before: rare ones are drawn more often. `picked` are the
    columns of this draft, `unsaid` those by which another row is told apart from this one's side: nobody asks for the
    bonds whose molecule has the id 5, but for those with molecule id 5."""

    world: World
    entity: Entity
    dice: Dice
    sql: Sql
    uses: Counter[ColumnName]
    picked: dict[ColumnName, None] = field(default_factory=dict)
    unsaid: frozenset[ColumnName] = frozenset()

    def about(self, entity: Entity, relation: Relation | None = None) -> "Topic":
        """The same draft, speaking of another entity, which it reached by `relation`."""
        keys: list[ColumnName] = []
        if relation is not None:
            keys += [(relation.child, column) for column in relation.columns]
            keys += [(relation.parent, column) for column in relation.parent_columns]
        return Topic(self.world, entity, self.dice, self.sql, self.uses, self.picked, frozenset(keys))

    def pick(self, attributes: Sequence[Attribute], avoid: Sequence[Attribute] = ()) -> Attribute | None:
        """One of them, not one of `avoid`; None where there is none."""
        shares = {
            position: 1 / (1 + self.uses[attribute.table, attribute.name])
            for position, attribute in enumerate(attributes)
            if attribute not in avoid and (attribute.table, attribute.name) not in self.unsaid
        }
        if not shares:
            return None
        attribute = attributes[self.dice.weighted(shares)]
        self.picked[attribute.table, attribute.name] = None
        return attribute

    def pick_relation(self, relations: Sequence[Relation]) -> Relation | None:
        return self.dice.pick(relations) if relations else None

    def number(self, avoid: Sequence[Attribute] = ()) -> Attribute | None:
        return self.pick(self.entity.of_role(Role.AMOUNT), avoid)

    def sortable(self, avoid: Sequence[Attribute] = ()) -> Attribute | None:
        """An amount, a year or a date, without NULLs: engines disagree on where those come in an order."""
        ordered = self.entity.of_role(Role.AMOUNT, Role.YEAR, Role.DATE)
        return self.pick([attribute for attribute in ordered if not attribute.has_nulls], avoid)

    def group(self, avoid: Sequence[Attribute] = ()) -> Attribute | None:
        """What rows are counted by: two values or more, each of several rows on average."""
        kinds = [
            a
            for a in (*self.entity.of_role(Role.CATEGORY, Role.CODE, Role.YEAR, Role.FLAG), *self.codes())
            if not a.is_question
        ]
        fit = [a for a in kinds if 1 < a.profile.distinct <= max(2, 0.6 * a.profile.count)]
        return self.pick(fit, avoid)

    def codes(self) -> list[Attribute]:
        """Ids that are said, such as the code of a flight's airport."""
        return [attribute for attribute in self.entity.spoken if attribute.role is Role.ID]

    def outputs(self, avoid: Sequence[Attribute] = ()) -> list[Attribute]:
        """What is asked of each row: mostly its name, at times another column or two, or its number."""
        if self.entity.ids and not self.unsaid and self.dice.chance(_ID_SHARE):
            number = self.pick(self.entity.ids, avoid)
            return [number] if number else []
        label = [attribute for attribute in self.entity.label if attribute not in avoid]
        others = [
            a
            for a in self.entity.spoken
            if a not in self.entity.label and a not in avoid and not a.is_question
        ]
        other = self.pick(others)
        for attribute in label:
            self.picked[attribute.table, attribute.name] = None
        if not label or other is None:
            found = label or ([other] if other else [])
            if found and not label and self.dice.chance(0.4) and (second := self.pick(others, avoid=found)):
                found.append(second)
            return found
        second = self.pick(others, avoid=[other])
        choices: dict[tuple[Attribute, ...], float] = {
            tuple(label): 5.0,
            (other,): 1.5,
            (*label, other): 2.5,
            (*label, other, *([second] if second else [])): 0.8,
        }
        chosen = self.dice.weighted(choices)
        return list(chosen)


def said_of(outputs: Sequence[Attribute]) -> dict[str, tuple[str, ...]]:
    """The slots `attr` and `attrs`: "name and age", "names and ages"."""
    return {
        "attr": (listed([attribute.noun for attribute in outputs]),),
        "attrs": (listed([plural_of(attribute.noun) for attribute in outputs]),),
    }


def listed(words: Sequence[str]) -> str:
    if len(words) < 2:
        return "".join(words)
    return ", ".join(words[:-1]) + f" and {words[-1]}"


def mention(attribute: Attribute) -> tuple[str, ...]:
    return (attribute.noun, attribute.nouns)
