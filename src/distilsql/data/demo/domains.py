"""Ten databases written by hand, and the lists that all databases take their values from.

The lists are shared and short, so that a model trained from nothing meets every word often enough to learn it.
"""

from distilsql.data.demo.domain import Category, Domain, Label, Link, Number, TableSpec

CITIES = ("Oslo", "Paris", "Rome", "Lima", "Cairo", "Tokyo")
COUNTRIES = ("Norway", "France", "Italy", "Peru", "Egypt", "Japan")
COLORS = ("red", "blue", "green", "white", "black")
GENRES = ("drama", "comedy", "crime", "fantasy", "history")
STYLES = ("rock", "jazz", "folk", "pop", "metal")

PEOPLE = tuple(
    name
    for line in (
        "Ada Ben Clara David Emma Felix Grace Hugo Iris Jonas Karen Leo Maria Nina Oscar Paula",
        "Quinn Rosa Simon Tara Ulla Victor Wanda Yara Adam Bella Carlo Dora Elias Flora Gustav Hanna",
        "Ivan Julia Klaus Lena Martin Nora Otto Petra Rafael Sofia Tom Ursula Vera Willem Yusuf Zoe",
    )
    for name in line.split()
)
STAFF = PEOPLE[:24]  # those who others refer to: questions call them by name
TITLES = tuple(
    f"{first} {second}"
    for first in ("Silver", "Golden", "Silent", "Wild", "Lost", "Hidden")
    for second in ("River", "Garden", "Star", "Bridge", "Forest", "Island", "Mountain", "Winter")
)
FIRMS = tuple(
    name
    for line in (
        "Acorn Beacon Comet Delta Ember Falcon Glacier Harbor Ivory Jasper Kestrel Lotus",
        "Meteor Nimbus Orbit Pioneer Quartz Raven Summit Tulip Umbra Vertex Willow Zenith",
    )
    for name in line.split()
)
CODES = tuple(f"{letter}{digit}" for letter in "ABCDEF" for digit in range(1, 9))


def name(values: tuple[str, ...]) -> Label:
    return Label("name", values, ("name",))


def title() -> Label:
    return Label("title", TITLES, ("title", "name"))


def city() -> Category:
    return Category("city", CITIES, ("city",), ("from {}", "in {}"))


def country() -> Category:
    return Category("country", COUNTRIES, ("country",), ("from {}",))


def genre(values: tuple[str, ...]) -> Category:
    return Category("genre", values, ("genre", "kind"), ("of genre {}",))


def age(low: int, high: int) -> Number:
    return Number(
        "age",
        low,
        high,
        1,
        ("age",),
        "older than {}",
        "younger than {}",
        "oldest",
        "youngest",
        additive=False,
    )


def salary() -> Number:
    return Number(
        "salary",
        2000,
        6900,
        100,
        ("salary", "pay"),
        "earning more than {}",
        "earning less than {}",
        "best paid",
    )


def price(low: int, high: int) -> Number:
    return Number(
        "price",
        low,
        high,
        1,
        ("price", "cost"),
        "costing more than {}",
        "costing less than {}",
        "most expensive",
        "cheapest",
    )


def year() -> Number:
    return Number(
        "year",
        1950,
        2020,
        1,
        ("year",),
        "from after {}",
        "from before {}",
        "newest",
        "oldest",
        over=("after", "later than"),
        under=("before", "earlier than"),
        additive=False,
    )


def length() -> Number:
    return Number(
        "length",
        60,
        180,
        1,
        ("length", "running time"),
        "longer than {} minutes",
        "shorter than {} minutes",
        "longest",
        "shortest",
    )


def weight() -> Number:
    return Number(
        "weight", 5, 400, 5, ("weight",), "heavier than {}", "lighter than {}", "heaviest", "lightest"
    )


LIBRARY = Domain(
    "library",
    (
        TableSpec("author", 24, ("author", "writer"), (name(STAFF), country(), age(25, 90))),
        TableSpec(
            "book",
            48,
            ("book",),
            (
                title(),
                genre(GENRES),
                Number("pages", 100, 700, 10, ("number of pages", "page count")),
                Link("author"),
            ),
        ),
    ),
)
CINEMA = Domain(
    "cinema",
    (
        TableSpec(
            "studio", 20, ("studio",), (name(FIRMS), city(), Number("staff", 10, 400, 10, ("staff size",)))
        ),
        TableSpec("film", 48, ("film", "movie"), (title(), genre(GENRES), year(), Link("studio"))),
    ),
)
CLINIC = Domain(
    "clinic",
    (
        TableSpec(
            "doctor",
            20,
            ("doctor", "physician"),
            (name(STAFF), Category("field", ("heart", "eyes", "skin", "bones"), ("field",)), salary()),
        ),
        TableSpec("patient", 48, ("patient",), (name(PEOPLE), city(), age(1, 90), Link("doctor"))),
    ),
)
SHOP = Domain(
    "shop",
    (
        TableSpec("brand", 20, ("brand",), (name(FIRMS), country(), year())),
        TableSpec(
            "product",
            48,
            ("product", "item"),
            (
                Label("code", CODES, ("code",)),
                Category("color", COLORS, ("color",), ("in {}",)),
                price(5, 400),
                Link("brand"),
            ),
        ),
    ),
)
SCHOOL = Domain(
    "school",
    (
        TableSpec(
            "teacher",
            22,
            ("teacher",),
            (name(STAFF), Category("subject", ("math", "music", "sport", "art"), ("subject",)), age(25, 65)),
        ),
        TableSpec(
            "student",
            48,
            ("student", "pupil"),
            (
                name(PEOPLE),
                city(),
                Number("score", 20, 100, 1, ("score", "grade"), most="best", least="worst"),
                Link("teacher"),
            ),
        ),
    ),
)
FESTIVAL = Domain(
    "festival",
    (
        TableSpec(
            "stage",
            20,
            ("stage",),
            (
                name(FIRMS),
                Number(
                    "capacity",
                    100,
                    5000,
                    100,
                    ("capacity", "size"),
                    "bigger than {}",
                    "smaller than {}",
                    "biggest",
                    "smallest",
                ),
            ),
        ),
        TableSpec("band", 32, ("band", "group"), (name(TITLES), genre(STYLES), Link("stage"))),
        TableSpec("song", 44, ("song", "track"), (title(), length(), Link("band"))),
    ),
)
ZOO = Domain(
    "zoo",
    (
        TableSpec("keeper", 20, ("keeper",), (name(STAFF), country(), salary())),
        TableSpec(
            "animal",
            48,
            ("animal",),
            (
                name(PEOPLE),
                Category("species", ("lion", "tiger", "bear", "zebra", "monkey"), ("species", "kind")),
                weight(),
                Link("keeper"),
            ),
        ),
    ),
)
LEAGUE = Domain(
    "league",
    (
        TableSpec(
            "team",
            20,
            ("team", "club"),
            (name(FIRMS), city(), Number("points", 10, 90, 1, ("number of points", "point total"))),
        ),
        TableSpec(
            "player",
            48,
            ("player",),
            (
                name(PEOPLE),
                Category("position", ("goalie", "defender", "wing", "striker"), ("position", "role")),
                Number("goals", 1, 60, 1, ("number of goals", "goal count")),
                Link("team"),
            ),
        ),
    ),
)
MUSEUM = Domain(
    "museum",
    (
        TableSpec("painter", 20, ("painter", "artist"), (name(STAFF), country(), age(20, 90))),
        TableSpec(
            "picture",
            48,
            ("picture", "painting"),
            (title(), Category("color", COLORS, ("color",), ("in {}",)), year(), Link("painter")),
        ),
    ),
)
CAMP = Domain(
    "camp",
    (
        TableSpec("teacher", 20, ("teacher",), (name(STAFF), salary())),
        TableSpec(
            "team",
            24,
            ("team", "club"),
            (name(FIRMS), Category("color", COLORS, ("color",), ("in {}",)), Link("teacher")),
        ),
        TableSpec("student", 44, ("student", "pupil"), (name(PEOPLE), age(6, 60), Link("team"))),
    ),
)
