import sqlite3
from contextlib import closing

import pytest

from distilsql.errors import DataError
from distilsql.synthesis.identifiers import expanded, plural_of, singular_of, words_of
from distilsql.synthesis.keys import Key
from distilsql.synthesis.names import draft_names, read_names, write_names
from distilsql.synthesis.profile import SAMPLED_ROWS, profile
from distilsql.synthesis.roles import Role
from distilsql.synthesis.source import open_source


@pytest.mark.parametrize(
    ("identifier", "said"),
    [
        ("cst_nm", "customer name"),
        ("dateOfBirth", "date of birth"),
        ("HTTPServerName", "http server name"),
        ("birthdate", "birth date"),
        ("qty", "quantity"),
        ("customer_customer_id", "customer id"),
        ("Straße", "straße"),
        ("größe", "größe"),
        ("zipcode", "zip code"),
        ("zzyzx", "zzyzx"),
    ],
)
def test_identifiers_are_said_as_a_person_would(identifier, said):
    assert " ".join(expanded(words_of(identifier))) == said


@pytest.mark.parametrize(
    ("one", "many"),
    [
        ("customer", "customers"),
        ("category", "categories"),
        ("address", "addresses"),
        ("person", "people"),
        ("date of birth", "dates of birth"),
        ("height in cm", "heights in cm"),
        ("species", "species"),
        ("bus", "buses"),
        ("superhero", "superheroes"),
    ],
)
def test_plurals_and_back(one, many):
    assert plural_of(one) == many
    assert singular_of(many) == one or many in ("dates of birth", "heights in cm", "buses", "superheroes")
    assert plural_of(many) == many


def roles(path, table):
    return {column.name: column.role for column in profile(open_source(path)).table(table).columns}


def test_roles_are_told_from_type_name_and_values(shop):
    assert roles(shop, "customers") == {
        "customer_id": Role.ID,
        "name": Role.NAME,
        "city": Role.CATEGORY,
        "age": Role.AMOUNT,
        "is_member": Role.FLAG,
        "joined": Role.DATE,
    }
    assert roles(shop, "orders")["ordered_on"] is Role.DATE  # a text


def test_sums_are_made_of_what_adds_up(shop):
    found = profile(open_source(shop))
    assert found.table("orders").column("amount").is_additive
    assert not found.table("customers").column("age").is_additive


def test_an_ugly_database_is_profiled(ugly):
    found = profile(open_source(ugly))
    assert [table.name for table in found.tables] == [
        "order",
        "cst tbl",
        "leer",
        "parts",
        "uses",
        "big",
        "bigger",
    ]
    assert found.table("leer").row_count == 0
    assert found.table("cst tbl").key == ("cst_id",)
    assert roles(ugly, "cst tbl")["stat_cd"] is Role.CODE
    assert roles(ugly, "order")["from"] is not Role.DATE  # 01/02/2020 says neither day nor month


def test_keys_that_are_not_declared_are_found_by_name_and_values(ugly):
    keys = profile(open_source(ugly)).keys
    assert Key("order", ("cst_id",), "cst tbl", ("cst_id",), is_declared=False) in keys
    assert Key("uses", ("a", "b"), "parts", ("a", "b")) in keys
    assert len(keys) == 2


def test_a_column_whose_values_are_not_there_is_no_key(tmp_path):
    path = tmp_path / "two.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            "CREATE TABLE shop (shop_id INTEGER, name TEXT); CREATE TABLE sale (sale_id INTEGER, shop_id INTEGER);"
        )
        connection.executemany("INSERT INTO shop VALUES (?, ?)", [(n, f"s{n}") for n in range(20)])
        connection.executemany("INSERT INTO sale VALUES (?, ?)", [(n, n + 900) for n in range(20)])
        connection.commit()
    assert profile(open_source(path)).keys == ()


def test_a_large_table_is_sampled_over_its_whole_length(tmp_path):
    path = tmp_path / "large.sqlite"
    rows = 40 * SAMPLED_ROWS
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE log (id INTEGER PRIMARY KEY, amount INTEGER)")
        connection.executemany("INSERT INTO log VALUES (?, ?)", ((n, n) for n in range(1, rows + 1)))
        connection.commit()
    table = profile(open_source(path)).table("log")
    assert (table.row_count, table.is_exact) == (rows, False)
    amount = table.column("amount")
    assert amount.count <= SAMPLED_ROWS
    assert amount.quantiles[-1] == rows  # the first rows alone would not say so


def test_names_are_written_and_read_back(ugly, tmp_path):
    source = open_source(ugly)
    draft = draft_names(source, profile(source))
    assert draft.tables["cst tbl"].columns["cst_nm_2"].name == "customer name"
    assert (draft.tables["cst tbl"].one, draft.tables["cst tbl"].many) == ("customer", "customers")
    file = tmp_path / "names.toml"
    write_names(draft, file)
    assert read_names(file, draft) == draft
    file.write_text('database = "ugly"\n[tables.order]\none = "sale"\nmany = "sales"\n')
    assert read_names(file, draft).tables["order"].one == "sale"
    assert read_names(file, draft).tables["order"].columns == draft.tables["order"].columns


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('database = "x"\n[tables.singer]\none = "singer"\nmany = "singers"', "singer, which 'ugly' has not"),
        ("database = ", "is not TOML"),
        ('database = "ugly"\n[tables.order]\none = "sale"\nmany = 3', r"tables.order.many"),
        ('database = "ugly"\n[tables.order]\none = "s"\nmany = "s"\nlabel = ["gone"]', "order.gone"),
        ('database = "ugly"\n[tables.order.columns]\nfrom = {name = "x", kind = "money"}', "order"),
    ],
)
def test_names_that_do_not_fit_are_refused(ugly, tmp_path, text, told):
    source = open_source(ugly)
    file = tmp_path / "names.toml"
    file.write_text(text)
    with pytest.raises(DataError, match=told):
        read_names(file, draft_names(source, profile(source)))
