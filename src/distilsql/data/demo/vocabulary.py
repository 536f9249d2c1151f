"""The words that databases are drawn from: what tables are called, which columns fit them, and who refers to whom.

A kind of thing (a person, a firm, a work, …) has nouns, a label and columns. A column is a *concept*: it may go by
several names (`price`, `cost`), of which a table has one, while people call it by any of its nouns. So the question
does not tell the column's name, and a model has to read the schema.
"""

from dataclasses import dataclass, replace
from typing import TypeVar

from distilsql.data.demo.domain import Category, Label, Number
from distilsql.data.demo.domains import (
    CODES,
    COLORS,
    FIRMS,
    GENRES,
    PEOPLE,
    STAFF,
    TITLES,
    age,
    city,
    country,
    length,
    price,
    salary,
    weight,
    year,
)

Column = TypeVar("Column", Label, Category, Number)


@dataclass(frozen=True)
class Kind:
    """`nouns`: words for one row, the first of which names the table. `columns`: concepts, each by all of its names.

    `parents` are the kinds that a table of this kind may refer to. A table that others refer to takes its labels from
    `few`, so that a question can name a row in words that are often heard.
    """

    nouns: tuple[tuple[str, ...], ...]
    labels: tuple[Label, ...]
    few: tuple[str, ...]
    columns: tuple[tuple[Category | Number, ...], ...]
    parents: tuple[str, ...]


def _named(column: Column, *names: str) -> tuple[Column, ...]:
    """One concept under each of the names."""
    return tuple(replace(column, name=name) for name in names)


def _category(names: str, values: str, nouns: tuple[str, ...], *own: str) -> tuple[Category, ...]:
    return _named(Category("", tuple(values.split()), nouns, own), *names.split())


def _count(names: str, low: int, high: int, step: int, *nouns: str) -> tuple[Number, ...]:
    return _named(Number("", low, high, step, nouns), *names.split())


CITY = _named(city(), "city", "town", "location")
COUNTRY = _named(country(), "country", "nation", "origin")
AGE = _named(age(18, 90), "age", "age_years")
SALARY = _named(salary(), "salary", "wage", "monthly_pay")
PRICE = _named(price(5, 400), "price", "cost", "unit_price")
YEAR = _named(year(), "year", "release_year", "year_made")
FOUNDED = _named(
    Number(
        "", 1900, 2020, 1, ("founding year",), "founded after {}", "founded before {}",
        over=("after", "later than"), under=("before", "earlier than"), additive=False,
    ),
    "founded", "founding_year", "opened",
)  # fmt: skip
LENGTH = _named(length(), "length", "duration", "minutes")
WEIGHT = _named(weight(), "weight", "mass", "kilos")
HEIGHT = _named(
    Number(
        "", 120, 220, 1, ("height",), "taller than {}", "shorter than {}", "tallest", "shortest",
        additive=False,
    ),
    "height", "height_cm",
)  # fmt: skip
CAPACITY = _named(
    Number(
        "", 100, 5000, 100, ("capacity", "size"), "bigger than {}", "smaller than {}", "biggest", "smallest"
    ),
    "capacity", "seats", "size",
)  # fmt: skip
SPEED = _named(
    Number(
        "", 40, 300, 5, ("speed",), "faster than {}", "slower than {}", "fastest", "slowest", additive=False
    ),
    "speed", "top_speed",
)  # fmt: skip
AREA = _named(
    Number("", 10, 900, 10, ("area",), "larger than {}", "smaller than {}", "largest", "smallest"),
    "area", "surface",
)  # fmt: skip
RATING = _named(
    Number("", 10, 100, 1, ("rating", "score"), most="best", least="worst", additive=False),
    "rating", "score", "stars",
)  # fmt: skip
STAFF_SIZE = _count("staff staff_size employees", 10, 400, 10, "staff size", "number of employees")
PAGES = _count("pages page_count", 100, 700, 10, "number of pages", "page count")
POINTS = _count("points total_points", 10, 90, 1, "number of points", "point total")
GOALS = _count("goals goal_count", 1, 60, 1, "number of goals", "goal count")
BUDGET = _count("budget funds", 100, 4000, 50, "budget")
REVENUE = _count("revenue income", 200, 6000, 100, "revenue", "income")
STOCK = _count("stock units_left", 1, 200, 1, "stock", "number of units")
VISITORS = _count("visitors visitor_count attendance", 50, 3000, 50, "number of visitors", "attendance")
POPULATION = _count("population inhabitants", 100, 5000, 100, "population", "number of inhabitants")
SALES = _count("sales copies_sold", 100, 4000, 50, "sales", "number of sales")
EXPERIENCE = _count("experience years_worked", 1, 60, 1, "experience", "number of years worked")
DISTANCE = _count("distance kilometers", 5, 300, 5, "distance")

COLOR = _category("color paint", " ".join(COLORS), ("color",), "in {}")
GENRE = _category("genre type", " ".join(GENRES), ("genre", "kind"), "of genre {}")
MATERIAL = _category("material made_of", "wood steel glass stone paper", ("material",), "made of {}")
STATUS = _category("status state", "active closed pending new", ("status", "state"))
LANGUAGE = _category("language lang", "English German Spanish Polish Arabic", ("language",), "in {}")
LEVEL = _category("level grade", "junior senior expert chief", ("level", "grade"))
SUBJECT = _category("subject field", "math music sport art law", ("subject", "field"))
SECTOR = _category("sector industry", "food energy fashion travel media", ("sector", "industry"))
REGION = _category("region area_name", "north south east west center", ("region",), "in the {}")
MONTH = _category("month held_in", "January April July October", ("month",), "in {}")
SEASON = _category("season time_of_year", "spring summer autumn winter", ("season",), "in {}")
SPECIES = _category("species breed", "lion tiger bear zebra monkey", ("species", "kind"))
ROLE = _category("role position", "goalie defender wing striker", ("role", "position"))

NAME = Label("name", PEOPLE, ("name",))
PERSON_NAMES = _named(NAME, "name", "full_name")
FIRM_NAMES = _named(replace(NAME, values=FIRMS), "name")
TITLE_NAMES = _named(Label("title", TITLES, ("title", "name")), "title", "name")
CODE_NAMES = _named(Label("code", CODES, ("code",)), "code", "serial")


def _nouns(text: str) -> tuple[tuple[str, ...], ...]:
    """`painter/artist poet`: the words for each table, the first of them its name."""
    return tuple(tuple(word.split("/")) for word in text.split())


KINDS = {
    "person": Kind(
        _nouns(
            "author/writer doctor/physician teacher painter/artist keeper singer driver farmer pilot nurse lawyer "
            "chef/cook guide judge coach player student/pupil patient member customer/client guest tenant "
            "employee/worker engineer dancer actor director manager sailor editor owner agent trainer poet"
        ),
        PERSON_NAMES,
        STAFF,
        (CITY, COUNTRY, AGE, SALARY, HEIGHT, WEIGHT, RATING, POINTS, GOALS, EXPERIENCE, LEVEL, SUBJECT, ROLE, STATUS),
        ("firm", "person", "place"),
    ),
    "firm": Kind(
        _nouns(
            "brand studio team/club company/firm school hotel bank hospital airline farm bakery gallery theater "
            "college agency factory market garage label/publisher restaurant store/shop band/group museum clinic"
        ),
        FIRM_NAMES,
        FIRMS,
        (CITY, COUNTRY, FOUNDED, STAFF_SIZE, CAPACITY, RATING, POINTS, BUDGET, REVENUE, SECTOR, REGION, STATUS),
        ("person", "place"),
    ),
    "work": Kind(
        _nouns(
            "book film/movie song/track picture/painting album play game course/class article poem novel photo lecture "
            "show recipe/dish comic report design"
        ),
        TITLE_NAMES,
        TITLES[:24],
        (GENRE, YEAR, LENGTH, PRICE, PAGES, RATING, LANGUAGE, COLOR, SALES, STATUS),
        ("person", "firm"),
    ),
    "thing": Kind(
        _nouns(
            "product/item car ship/boat room ticket machine bottle chair lamp phone train plane parcel/package invoice "
            "bike tool coat watch truck tent"
        ),
        CODE_NAMES,
        CODES[:24],
        (COLOR, PRICE, WEIGHT, MATERIAL, CAPACITY, YEAR, SPEED, STOCK, STATUS, SEASON),
        ("firm", "person", "place"),
    ),
    "animal": Kind(
        _nouns("animal horse/pony dog bird cat cow"),
        PERSON_NAMES,
        STAFF,
        (SPECIES, WEIGHT, AGE, PRICE, COLOR, SPEED, COUNTRY),
        ("person", "firm", "place"),
    ),
    "place": Kind(
        _nouns("stage park island village/hamlet station harbor/port road/street bridge forest lake beach garden camp"),
        FIRM_NAMES,
        FIRMS,
        (COUNTRY, REGION, AREA, POPULATION, CAPACITY, VISITORS, FOUNDED, RATING, STATUS),
        ("person", "firm"),
    ),
    "event": Kind(
        _nouns("concert festival race meeting trip/journey tour exhibition contest lesson party flight ceremony"),
        TITLE_NAMES,
        TITLES[:24],
        (CITY, YEAR, MONTH, VISITORS, PRICE, LENGTH, DISTANCE, BUDGET, SEASON, LANGUAGE),
        ("place", "person", "firm"),
    ),
}  # fmt: skip
