"""World: profile and names together, as the grammar speaks of them: entities, attributes, relations."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from distilsql.databases.job import Cell
from distilsql.synthesis.identifiers import expanded, is_plural, plural_of, words_of
from distilsql.synthesis.names import ColumnNames, Names, TableNames
from distilsql.synthesis.profile import Profile, TableProfile
from distilsql.synthesis.roles import QUESTION_WORDS, ColumnProfile, Role

_KEY_WORDS = frozenset(["id", "ids", "code", "key", "no", "number", "ref", "fk"])
_REFERRING_WORDS = frozenset(["link", "links", "to", "fk", "ref", "reference", "related"])
_PREPOSITIONS = frozenset(["by", "in", "to", "from", "at", "on", "for"])
# An id of so many characters at most is a code that people say ("AKO"); nobody asks about a longer one.
_LONGEST_CODE = 8


def _is_code(value: Cell) -> bool:
    return isinstance(value, str) and len(value) <= _LONGEST_CODE and not value.isdigit()


@dataclass(frozen=True)
class Attribute:
    """A column that questions speak of. `noun` follows its entity's: "the *age* of each singer". `means` says what its
    codes stand for."""

    table: str
    profile: ColumnProfile
    role: Role
    noun: str
    means: tuple[tuple[str, str], ...] = ()

    @property
    def name(self) -> str:
        return self.profile.name

    @property
    def nouns(self) -> str:
        return plural_of(self.noun)

    @property
    def verb(self) -> str:
        return "are" if is_plural(self.noun.split()[-1]) else "is"

    @property
    def is_question(self) -> bool:
        """ "is male" is no noun: nothing can be listed or grouped by it in words."""
        return self.role is Role.FLAG and self.noun.split()[0] in QUESTION_WORDS

    @property
    def has_nulls(self) -> bool:
        return self.profile.null_share > 0

    @property
    def is_said(self) -> bool:
        """Whether questions speak of it: of ids only where they are codes such as an airport's, not numbers."""
        if self.role is Role.ID:
            return bool(self.profile.values) and all(map(_is_code, self.profile.values))
        return self.role is not Role.NONE


@dataclass(frozen=True)
class Relation:
    """Rows of `child` refer to one of `parent` each. `noun` is what the child calls its parent ("home team"); `is_only`
    says that the two are related in no other way, `is_unique` that no two rows of the child share a parent."""

    child: str
    columns: tuple[str, ...]
    parent: str
    parent_columns: tuple[str, ...]
    noun: str
    is_only: bool
    is_unique: bool
    has_nulls: bool


@dataclass(frozen=True)
class Entity:
    """A table that questions are about. `label` are the attributes that a row is named by, `key` the columns that tell
    rows apart; both may be empty. A link holds nothing but keys of two other entities."""

    name: str
    one: str
    many: str
    attributes: tuple[Attribute, ...]
    key: tuple[str, ...]
    label: tuple[Attribute, ...]
    row_count: int
    is_link: bool = False

    def of_role(self, *roles: Role) -> list[Attribute]:
        return [attribute for attribute in self.attributes if attribute.role in roles]

    @cached_property
    def spoken(self) -> list[Attribute]:
        return [attribute for attribute in self.attributes if attribute.is_said]

    @cached_property
    def ids(self) -> list[Attribute]:
        """The column of numbers that tells rows apart, if there is one: asked for at times, but nobody says one."""
        return [a for a in self.attributes if self.key == (a.name,) and a.role is Role.ID and not a.is_said]


@dataclass(frozen=True)
class World:
    entities: dict[str, Entity]
    relations: tuple[Relation, ...]

    @cached_property
    def topics(self) -> list[Entity]:
        """What questions can be about: rows are there, and something can be said of them, or of what they refer to."""
        return [
            entity
            for entity in self.entities.values()
            if entity.row_count and (entity.spoken or (not entity.is_link and self.parents(entity)))
        ]

    @cached_property
    def _of_child(self) -> dict[str, list[Relation]]:
        found: dict[str, list[Relation]] = {}
        for relation in self.relations:
            found.setdefault(relation.child, []).append(relation)
        return found

    @cached_property
    def _of_parent(self) -> dict[str, list[Relation]]:
        found: dict[str, list[Relation]] = {}
        for relation in self.relations:
            found.setdefault(relation.parent, []).append(relation)
        return found

    def parents(self, entity: Entity) -> list[Relation]:
        return [
            relation for relation in self._of_child.get(entity.name, ()) if relation.parent != entity.name
        ]

    def children(self, entity: Entity) -> list[Relation]:
        """Relations that can be asked about from the parent's side, without saying which of several is meant."""
        return [
            relation
            for relation in self._of_parent.get(entity.name, ())
            if relation.is_only and not relation.is_unique and not self.entities[relation.child].is_link
        ]

    def links(self, entity: Entity) -> list[tuple[Relation, Relation]]:
        """(link to `entity`, link to another entity) for each link between the two."""
        return [
            (mine, other)
            for mine in self._of_parent.get(entity.name, ())
            if mine.is_only and self.entities[mine.child].is_link
            for other in self._of_child[mine.child]
            if other.parent != entity.name and other.is_only and self.entities[other.parent].spoken
        ]


def make_world(profile: Profile, names: Names) -> World:
    entities = {}
    for table in profile.tables:
        called = names.tables[table.name]
        if called.many and table.columns:
            entities[table.name] = _entity(table, called)
    keys = [(k.child, k.columns, k.parent, k.parent_columns) for k in profile.keys if k.is_declared]
    keys += [(k.child, k.columns, k.parent, k.parent_columns) for k in names.keys]
    known = [key for key in dict.fromkeys(keys) if key[0] in entities and key[2] in entities]
    pairs = Counter(frozenset((child, parent)) for child, _, parent, _ in known)
    relations = []
    for child, columns, parent, parent_columns in known:
        is_only = pairs[frozenset((child, parent))] == 1 and child != parent
        noun = _relation_noun(columns, entities[parent], is_only)
        table = profile.table(child)
        if noun:
            is_unique = table.key == columns or all(table.column(column).is_unique for column in columns)
            has_nulls = any(table.column(column).null_share > 0 for column in columns)
            relations.append(
                Relation(child, columns, parent, parent_columns, noun, is_only, is_unique, has_nulls)
            )
    for name, entity in entities.items():
        if _is_link(entity, [relation for relation in relations if relation.child == name]):
            entities[name] = replace(entity, is_link=True)
    return World(entities, _with_clear_nouns(relations))


def _is_link(entity: Entity, parents: Sequence[Relation]) -> bool:
    """Nothing is said of its rows but what they refer to; a number of their own within those makes them more."""
    referring = {column for relation in parents for column in relation.columns}
    says_more = any(attribute.role is not Role.ID for attribute in entity.spoken)
    has_number = (
        len(entity.key) > 1 and bool(set(entity.key) & referring) and not set(entity.key) <= referring
    )
    return not says_more and not has_number and len({relation.parent for relation in parents}) > 1


def _entity(table: TableProfile, called: TableNames) -> Entity:
    nouns = {column.name: _noun(called.columns[column.name], called.one) for column in table.columns}
    times = Counter(nouns.values())
    attributes = []
    for column in table.columns:
        name = called.columns[column.name]
        noun = nouns[column.name] if times[nouns[column.name]] == 1 else name.name
        attributes.append(Attribute(table.name, column, name.kind, noun, tuple(name.means.items())))
    said = Counter(attribute.noun for attribute in attributes)
    clear = tuple(a if said[a.noun] == 1 else replace(a, role=Role.NONE) for a in attributes)
    label = tuple(a for name in called.label for a in clear if a.name == name and a.role is not Role.NONE)
    return Entity(table.name, called.one, called.many, clear, table.key, label, table.row_count)


def _noun(column: ColumnNames, entity: str) -> str:
    """ "customer name" is the name of a customer, and the colour of a colour is its name."""
    if column.name == entity:
        return "name"
    return column.name.removeprefix(f"{entity} ") or column.name


def _relation_noun(columns: Sequence[str], parent: Entity, is_only: bool) -> str:
    """What a row calls the row that it refers to; '' where its column's name does not say it."""
    if len(columns) > 1:
        return parent.one if is_only else ""
    words = expanded(words_of(columns[0]))
    while len(words) > 1 and words[-1] in _KEY_WORDS:
        words = words[:-1]
    while len(words) > 1 and words[0] in _REFERRING_WORDS:  # link_to_event, fk_event
        words = words[1:]
    noun = " ".join(words)
    says_little = words[-1] in _KEY_WORDS or noun in (parent.one, "".join(parent.one.split()))
    says_little = says_little or bool(_PREPOSITIONS & set(words))  # "lost in battle" is no noun
    if says_little or (is_only and (words[-1] not in parent.one.split() or noun in parent.one)):
        return parent.one if is_only else ""
    return noun


def _with_clear_nouns(relations: list[Relation]) -> tuple[Relation, ...]:
    """Those of a child that it calls alike cannot be told apart in a question."""
    times = Counter((relation.child, relation.noun) for relation in relations)
    return tuple(relation for relation in relations if times[relation.child, relation.noun] == 1)
