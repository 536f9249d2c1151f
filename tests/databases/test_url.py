"""Places of databases: what a path or a URL means, and that a password is in nothing that may be written."""

import json
import pickle
from pathlib import Path

import pytest

from distilsql.databases.execute import execute
from distilsql.databases.job import make_job
from distilsql.databases.url import (
    DatabaseUrl,
    engine_of,
    id_of,
    known_place,
    place_of,
    same_database,
    without_passwords,
)
from distilsql.errors import DataError

SECRET = "s3cr3t"


@pytest.fixture(autouse=True)
def no_passwords_outside(monkeypatch):
    for name in ("PGPASSWORD", "MYSQL_PWD"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("text", ["shop.sqlite", "sqlite:///shop.sqlite", "data/shop.db"])
def test_paths_of_sqlite_files(text):
    assert place_of(text) == Path(text.removeprefix("sqlite:///"))
    assert engine_of(place_of(text)) == "sqlite"


def test_an_absolute_path_has_four_slashes():
    assert place_of("sqlite:////data/shop.sqlite") == Path("/data/shop.sqlite")


@pytest.mark.parametrize("text", ["shop.duckdb", "duckdb:///shop.duckdb"])
def test_duckdb_files_are_made_absolute(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    place = place_of(text)
    assert place.file == tmp_path / "shop.duckdb"
    assert (engine_of(place), id_of(place)) == ("duckdb", "shop")
    assert place_of(str(place)) == place


def test_the_parts_of_a_servers_url():
    url = place_of("postgresql+psycopg://reader:pw@db.example:6432/shop?search_path=sales,hr&sslmode=require")
    assert (url.engine, url.user, url.host, url.port, url.name) == (
        "postgresql",
        "reader",
        "db.example",
        6432,
        "shop",
    )
    assert url.to_worker()["query"] == {"search_path": "sales,hr", "sslmode": "require"}
    assert url.to_worker()["password"] == "pw"
    assert place_of("mariadb://reader@[::1]:3306/shop").host == "::1"
    assert place_of("postgresql://reader@/shop?host=/run/a@b").query == (("host", "/run/a@b"),)


@pytest.mark.parametrize(
    ("written", "meant"),
    [("p@ss", "p@ss"), ("p:a@ss@", "p:a@ss@"), ("a%2Fb%3Fc%25", "a/b?c%"), ("p%40ss", "p@ss"), ("", "")],
)
def test_passwords_with_signs(written, meant):
    url = place_of(f"mysql://reader:{written}@localhost/shop")
    assert (url.user, url.password, url.host) == ("reader", meant, "localhost")


@pytest.mark.parametrize(
    "text", [f"postgresql://reader:{SECRET}/x@host/shop", f"mysql://u:{SECRET}?x@h/shop"]
)
def test_a_password_that_splits_the_url_is_named_and_not_shown(text):
    with pytest.raises(DataError, match="%2F") as caught:
        place_of(text)
    assert SECRET not in str(caught.value)


def test_a_password_is_in_nothing_that_may_be_written():
    url = place_of(f"postgresql://reader:p@{SECRET}@host/shop?sslpassword={SECRET}")
    assert url.password == f"p@{SECRET}"
    job = make_job(url, "SELECT 1")
    for text in (str(url), repr(url), f"{url}", repr(job), job.path, repr({url: job})):
        assert SECRET not in text
    assert url.holds_password
    assert str(url) == "postgresql://reader:***@host/shop?sslpassword=***"


def test_a_hidden_password_is_no_password():
    with pytest.raises(DataError, match=r"left out.*\$\{NAME\}"):
        place_of(str(place_of(f"mysql://reader:{SECRET}@host/shop")))


def test_a_variable_stands_for_a_password_and_stays_in_the_text(monkeypatch):
    monkeypatch.setenv("SHOP_PASSWORD", f"{SECRET}@/%41")
    url = place_of("mysql://reader:${SHOP_PASSWORD}@host/shop")
    assert url.password == f"{SECRET}@/%41"
    assert str(url) == "mysql://reader:${SHOP_PASSWORD}@host/shop"
    assert not url.holds_password
    assert place_of(str(url)) == url
    monkeypatch.delenv("SHOP_PASSWORD")
    with pytest.raises(DataError, match=r"SHOP_PASSWORD.*not set"):
        place_of("mysql://reader:${SHOP_PASSWORD}@host/shop")


@pytest.mark.parametrize(("scheme", "variable"), [("postgresql", "PGPASSWORD"), ("mysql", "MYSQL_PWD")])
def test_the_servers_own_variables(monkeypatch, scheme, variable):
    monkeypatch.setenv(variable, SECRET)
    url = place_of(f"{scheme}://reader@host/shop")
    assert url.password == SECRET
    assert SECRET not in str(url)
    assert place_of(f"{scheme}://reader:other@host/shop").password == "other"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("oracle://scott:tiger@host/x", "oracle://"),
        ("postgresql://reader:tiger@host", "name of one database"),
        ("postgresql://reader:tiger@host:port/shop", "cannot be read"),
        ("duckdb://", "names a file"),
        ("duckdb:///:memory:", "names a file"),
        ("sqlite://shop.sqlite", "names a file"),
        ("postgresql:/reader:tiger@host/shop", "two slashes"),
    ],
)
def test_what_is_no_url_of_a_database(text, said):
    with pytest.raises(DataError, match=said) as caught:
        place_of(text)
    assert "tiger" not in str(caught.value)
    with pytest.raises(DataError, match=said):
        execute(text, "SELECT 1")


def test_passwords_in_any_text():
    text = f"train x.toml --set data.database=mysql://u:a@{SECRET}@h/s?password={SECRET} --out y"
    hidden = without_passwords(text)
    assert SECRET not in hidden
    assert hidden == "train x.toml --set data.database=mysql://u:***@h/s?password=*** --out y"
    kept = "postgresql://u:${NAME}@h/s and http://example.org/a:b"
    assert without_passwords(kept) == kept


def test_a_url_goes_to_other_processes():
    url = place_of(f"postgresql://reader:{SECRET}@host/shop")
    assert pickle.loads(pickle.dumps(url)) == url
    assert json.loads(json.dumps(url.to_worker()))["password"] == SECRET
    assert isinstance(url, DatabaseUrl)


@pytest.mark.parametrize(
    ("url", "package"),
    [
        ("duckdb:///x.duckdb", "duckdb"),
        ("postgresql://u@h/d", "psycopg"),
        ("mysql://u@h/d", "pymysql"),
    ],
)
def test_a_missing_driver_is_named_with_the_cure(monkeypatch, url, package):
    monkeypatch.setattr(
        "distilsql.databases.url.find_spec", lambda name: None if name == package else object()
    )
    with pytest.raises(DataError, match=rf"{package} is not installed: pip install 'distilsql\["):
        execute(url, "SELECT 1")


@pytest.mark.parametrize(
    ("other", "is_same"),
    [
        ("postgresql://reader@127.0.0.1:5432/shop", True),
        ("postgres://somebody:pw@LOCALHOST/shop?sslmode=disable", True),
        ("postgresql://reader@/shop", True),
        ("postgresql://reader@db.example/shop", False),
        ("postgresql://reader@localhost:5433/shop", False),
        ("postgresql://reader@localhost/other", False),
        ("postgresql://reader@localhost/shop?search_path=hr", False),
        ("postgresql://reader@/shop?host=/run/a", False),
        ("mysql://reader@localhost/shop", False),
        ("shop.sqlite", False),
        ("shop.duckdb", False),
    ],
)
def test_one_database_has_several_urls(other, is_same):
    place = place_of("postgresql://reader@localhost/shop")
    assert same_database(place, place_of(other)) is is_same
    assert same_database(place_of(other), place) is is_same


def test_one_file_has_several_paths(tmp_path, monkeypatch):
    (tmp_path / "shop.sqlite").touch()
    (tmp_path / "link").symlink_to("shop.sqlite")
    monkeypatch.chdir(tmp_path)
    assert same_database(Path("shop.sqlite"), tmp_path / "link")
    assert same_database(place_of("shop.duckdb"), place_of(f"duckdb:///{tmp_path}/shop.duckdb"))
    assert not same_database(place_of("shop.duckdb"), Path("shop.sqlite"))


def test_a_url_without_its_password_means_the_one_that_is_given(tmp_path):
    given = place_of(f"mysql://reader:{SECRET}@localhost/shop")
    assert known_place(str(given), tmp_path, given) is given
    assert known_place("mysql://reader:***@127.0.0.1/shop", tmp_path, given) is given
    for other in (place_of(f"mysql://reader:{SECRET}@localhost/other"), tmp_path, None):
        with pytest.raises(DataError, match="has been left out"):
            known_place(str(given), tmp_path, other)
