"""Which databases the demo has, and who sees them.

Students and the teacher train on questions about `SEEN`. The teacher reads hundreds of others besides, so that it
learns to read a schema rather than to remember eight. Nobody trains on `UNSEEN`: two written by hand and six drawn.
"""

from collections.abc import Iterator
from functools import cache
from itertools import islice

from distilsql.data.demo.domain import Domain
from distilsql.data.demo.domains import (
    CAMP,
    CINEMA,
    CLINIC,
    FESTIVAL,
    LEAGUE,
    LIBRARY,
    MUSEUM,
    SCHOOL,
    SHOP,
    ZOO,
)
from distilsql.data.demo.schemas import TableKey, draw_domains, table_key

SEED = "distilsql demo"
TEACHER_DATABASES = 400
SEEN = (LIBRARY, CINEMA, CLINIC, SHOP, SCHOOL, FESTIVAL, ZOO, LEAGUE)
UNSEEN = (MUSEUM, CAMP, *islice(draw_domains(f"{SEED}/unseen"), 6))


@cache
def teacher_domains() -> tuple[Domain, ...]:
    """The databases that the teacher alone trains on; none has a table or a link in common with the unseen ones."""
    return tuple(islice(_apart_from_unseen(), TEACHER_DATABASES))


def _apart_from_unseen() -> Iterator[Domain]:
    tables = {key for domain in UNSEEN for key in table_keys(domain)}
    links = {pair for domain in UNSEEN for pair in linked_names(domain)}
    for domain in draw_domains(f"{SEED}/teacher"):
        if not tables & table_keys(domain) and not links & linked_names(domain):
            yield domain


def table_keys(domain: Domain) -> set[TableKey]:
    return {table_key(table) for table in domain.tables}


def linked_names(domain: Domain) -> set[tuple[str, str]]:
    """The names of (referring, referred) tables."""
    return {(child.name, parent.name) for child, parent in domain.links}
