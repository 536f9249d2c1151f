"""Where a database is: a path of a SQLite file, or a URL. The one place that reads URLs and keeps their passwords.

    shop.sqlite, sqlite:///shop.sqlite                       SQLite
    duckdb:///shop.duckdb, duckdb:////data/shop.duckdb       DuckDB: three slashes and a relative path, or four
    postgresql://reader@localhost:5432/shop?search_path=a,b  PostgreSQL, tables of several schemas
    mysql://reader:${SHOP_PASSWORD}@localhost/shop           MySQL and MariaDB

`${NAME}` is an environment variable. A password may hold `@` and `:` as they are; `/`, `?` and `%` are written %2F, %3F
and %25. Without a password in it, PGPASSWORD or MYSQL_PWD counts, and for PostgreSQL also ~/.pgpass.
"""

import os
import re
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote

from distilsql.errors import DataError

Engine = Literal["sqlite", "duckdb", "postgresql", "mysql"]

# What a URL may begin with, with SQLAlchemy's names of the drivers that are used.
_SCHEMES: dict[str, Engine] = {
    "sqlite": "sqlite",
    "duckdb": "duckdb",
    "postgresql": "postgresql",
    "postgresql+psycopg": "postgresql",
    "postgres": "postgresql",
    "mysql": "mysql",
    "mysql+pymysql": "mysql",
    "mariadb": "mysql",
    "mariadb+pymysql": "mysql",
}
# sqlglot's names.
DIALECTS: dict[Engine, str] = {
    "sqlite": "sqlite",
    "duckdb": "duckdb",
    "postgresql": "postgres",
    "mysql": "mysql",
}
_PACKAGES: dict[Engine, tuple[str, ...]] = {
    "sqlite": (),
    "duckdb": ("duckdb",),
    "postgresql": ("sqlalchemy", "psycopg"),
    "mysql": ("sqlalchemy", "pymysql"),
}
_PASSWORD_VARIABLES: dict[Engine, str] = {"postgresql": "PGPASSWORD", "mysql": "MYSQL_PWD"}
_PORTS: dict[Engine, int] = {"postgresql": 5432, "mysql": 3306}
_HERE = frozenset(("", "localhost", "127.0.0.1", "::1"))
HIDDEN = "***"

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/")
_VARIABLE = re.compile(r"\$\{(\w+)\}")
_HOST = re.compile(r"(?P<host>\[[^\]]*\]|[^:]*)(?::(?P<port>\d+))?")
_PASSWORD_IN_TEXT = re.compile(r"(\w://[^\s:/@]*:)(?!\$\{\w+\}@)\S+(?=@)")
_PASSWORD_IN_QUERY = re.compile(r"([?&]\w*pass\w*=)[^&\s]+", re.IGNORECASE)


@dataclass(frozen=True)
class DatabaseUrl:
    """A database that is no SQLite file. `name` is the database at its server, or DuckDB's file as an absolute path.

    Its text, which is what files, logs and errors may hold, has `***` for the password, or the `${NAME}` it was given
    by.
    """

    engine: Engine
    text: str
    name: str
    host: str = ""
    port: int | None = None
    user: str = ""
    password: str = field(default="", repr=False)
    query: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"DatabaseUrl({self.text!r})"

    @property
    def is_server(self) -> bool:
        return self.engine != "duckdb"

    @property
    def file(self) -> Path | None:
        """DuckDB's file; None at a server."""
        return None if self.is_server else Path(self.name)

    @property
    def holds_password(self) -> bool:
        """Whether a password stood in the URL itself."""
        return HIDDEN in self.text

    def to_worker(self) -> dict[str, Any]:
        """All of it, for the process that connects."""
        names = ("engine", "name", "host", "port", "user", "password")
        return {name: getattr(self, name) for name in names} | {"query": dict(self.query)}


Place = Path | DatabaseUrl


def place_of(text: Place | str, folder: Path | None = None) -> Place:
    """The place that a path or a URL names, a relative path being one in `folder`. Raises DataError, which does not
    repeat it, for a URL that cannot be read or is of a database that this package does not know."""
    if isinstance(text, DatabaseUrl):
        return text
    found = _SCHEME.match(str(text))
    if found is None:
        path = Path(text) if folder is None else folder / text
        return _duckdb(path) if path.suffix == ".duckdb" else path
    scheme = found[1].lower()
    if scheme not in _SCHEMES:
        raise DataError(
            f"{scheme}:// is the URL of a database that cannot be read here; give the path of a SQLite file, or "
            "a URL that begins with duckdb://, postgresql:// or mysql:// (MariaDB too)."
        )
    if isinstance(text, Path) or not str(text)[found.end() :].startswith("/"):
        raise DataError(f"A {scheme} URL has two slashes: {scheme}://. Give it as text, not as a Path.")
    rest = str(text)[found.end() + 1 :]
    engine = _SCHEMES[scheme]
    return _server(engine, rest) if engine in _PASSWORD_VARIABLES else _file(engine, rest, folder or Path())


def engine_of(place: Place | str) -> Engine:
    """Of a place, or of its text, which may have lost its password."""
    if isinstance(place, DatabaseUrl):
        return place.engine
    found = _SCHEME.match(str(place))
    return _SCHEMES.get(found[1].lower(), "sqlite") if found else "sqlite"


def file_of(place: Place) -> Path | None:
    """The file that a database is in; None at a server."""
    return place.file if isinstance(place, DatabaseUrl) else place


def absolute(place: Place) -> Place:
    """The same place from any folder, with links followed; a URL is that already."""
    return place if isinstance(place, DatabaseUrl) else place.resolve()


def same_database(one: Place, other: Place) -> bool:
    """Whether two places are one database, whoever connects to it and by whichever name this machine goes."""
    if isinstance(one, DatabaseUrl) and isinstance(other, DatabaseUrl) and one.is_server:
        return _address(one) == _address(other)
    files = file_of(one), file_of(other)
    return None not in files and files[0].resolve() == files[1].resolve()  # type: ignore[union-attr]


def _address(url: DatabaseUrl) -> tuple[object, ...]:
    """A server, a database at it, and what its tables are called."""
    query = dict(url.query)
    host = query.get("host") or query.get("unix_socket") or url.host.lower()
    port = query.get("port") or url.port or _PORTS.get(url.engine, 0)
    return (url.engine, "localhost" if host in _HERE else host, str(port), url.name, query.get("search_path"))


def known_place(text: str, folder: Path, given: Place | None) -> Place:
    """As `place_of`, but where a URL has lost its password (`***`) and means the database that is `given`, that one.
    Raises DataError."""
    hidden = f":{HIDDEN}@"
    is_url = hidden in text and isinstance(given, DatabaseUrl)
    if given and is_url and same_database(place_of(text.replace(hidden, "@", 1), folder), given):
        return given
    return place_of(text, folder)


def id_of(place: Place) -> str:
    """What a database is called that has no name of its own: its file's, or its name at the server."""
    file = file_of(place)
    return str(getattr(place, "name", "")) if file is None else file.stem


def without_passwords(text: str) -> str:
    """Any text with the passwords of the URLs in it hidden, as `${NAME}` is not."""
    return _PASSWORD_IN_QUERY.sub(rf"\1{HIDDEN}", _PASSWORD_IN_TEXT.sub(rf"\1{HIDDEN}", text))


def require_driver(place: Place | None) -> None:
    """Raises DataError if what connects to `place` is not installed."""
    engine = "sqlite" if place is None else engine_of(place)
    missing = [package for package in _PACKAGES[engine] if find_spec(package) is None]
    if missing:
        raise DataError(
            f"{place} is read through {' and '.join(_PACKAGES[engine])}, and {' and '.join(missing)} is not "
            f"installed: pip install 'distilsql[{engine}]'."
        )


def _file(engine: Engine, rest: str, folder: Path) -> Place:
    authority, slash, path = rest.partition("/")
    path, _, query = path.partition("?")
    if authority or not slash or not path or path.startswith(":memory:"):
        raise DataError(
            f"A {engine} URL names a file: {engine}:///shop.{engine} in this folder, or {engine}:////data/shop.{engine}."
        )
    file = folder / _expanded(unquote(path))
    return file if engine == "sqlite" else _duckdb(file, query)


def _duckdb(path: Path, query: str = "") -> DatabaseUrl:
    name = os.path.abspath(path)
    return DatabaseUrl(
        "duckdb", f"duckdb:///{name}" + (f"?{query}" if query else ""), name, query=_pairs(query)
    )


def _server(engine: Engine, rest: str) -> DatabaseUrl:
    authority, tail = re.fullmatch(r"([^/?]*)(.*)", rest, re.DOTALL).groups()  # type: ignore[union-attr]
    userinfo, _, address = authority.rpartition("@")
    path, _, query = tail.partition("?")
    host = _HOST.fullmatch(address)
    if host is None or "@" in path or (not userinfo and re.search(r"@[^&=]*/", query)):
        raise DataError(
            f"This {engine} URL cannot be read: {engine}://USER:PASSWORD@HOST:PORT/DATABASE. In a password, write / "
            "as %2F, ? as %3F and % as %25, or keep it out of the URL: ${NAME} stands for an environment variable."
        )
    user, _, password = userinfo.partition(":")
    if password == HIDDEN:
        raise DataError(
            f"The password of this {engine} URL has been left out of it, as it is of all that is written. Put an "
            "environment variable in its place: ${NAME}."
        )
    pairs = _pairs(query)
    name = _expanded(unquote(path.removeprefix("/")))
    if not name or "/" in name:
        raise DataError(f"A {engine} URL ends with the name of one database: {engine}://USER@HOST/DATABASE.")
    shown = user + (f":{password if _VARIABLE.fullmatch(password) else HIDDEN}" if password else "")
    return DatabaseUrl(
        engine,
        f"{engine}://{shown + '@' if shown else ''}{address}/{name}"
        + (f"?{without_passwords('?' + query)[1:]}" if query else ""),
        name,
        _expanded(unquote(host["host"])).strip("[]"),
        int(host["port"]) if host["port"] else None,
        _expanded(unquote(user)),
        _expanded(unquote(password)) or os.environ.get(_PASSWORD_VARIABLES[engine], ""),
        pairs,
    )


def _pairs(query: str) -> tuple[tuple[str, str], ...]:
    parts = (part.partition("=") for part in query.split("&") if part)
    return tuple((unquote(key), _expanded(unquote(value))) for key, _, value in parts)


def _expanded(text: str) -> str:
    """With environment variables in place of their names. Raises DataError for one that is not set."""

    def value(found: re.Match[str]) -> str:
        if found[1] not in os.environ:
            raise DataError(
                f"The database's URL names the environment variable {found[1]}, which is not set; set it, for "
                f"example by `export {found[1]}=…`."
            )
        return os.environ[found[1]]

    return _VARIABLE.sub(value, text)
