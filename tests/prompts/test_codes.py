import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from distilsql.data.example import Example
from distilsql.databases.database import Database
from distilsql.databases.schema import Schema, introspect
from distilsql.prompts.codes import PromptOptions, build_prefix, build_suffix, question_text

OPTIONS = PromptOptions()
PREFIX = """\
database schema :
table stadium , columns = [ stadium.stadium_id ( int | primary key | values : 1 , 2 ) , \
stadium.`opening day` ( date | values : 1990-05-01 ) , stadium.capacity ( int | values : 10104 , 20000 ) , \
stadium.story ( text | values : Old ) ]
table singer ( comment : artist ) , columns = [ singer.singer_id ( int | primary key | values : 1 , 2 ) , \
singer.name ( text | comment : full name of the singer | values : Joe Sharp , Rose White ) , \
singer.country ( text | values : Netherlands , France ) , singer.`net worth (m)` ( real | values : 1.5 ) ]
table singer_in_concert , columns = [ singer_in_concert.singer_id ( int | primary key | values : 1 , 2 ) , \
singer_in_concert.stadium_id ( text | primary key | values : 1 , 2 ) , \
singer_in_concert.year ( text | values : 2014 , 2015 ) ]
foreign keys :
singer_in_concert.singer_id = singer.singer_id
singer_in_concert.stadium_id = stadium.stadium_id
"""


def ask(text: str, evidence: str = "") -> Example:
    return Example("x/0", "concerts", text, "SELECT 1", evidence)


def test_the_prefix_has_codess_format_to_the_letter(concerts: Database) -> None:
    assert build_prefix(concerts, OPTIONS) == PREFIX


def test_the_suffix_has_codess_format_to_the_letter(concerts: Database, cache: Path) -> None:
    example = ask("Is Joe Sharp from France?")
    assert build_suffix(example, concerts, OPTIONS, cache_folder=cache) == (
        "matched contents :\nsinger.name ( Joe Sharp )\nsinger.country ( France )\nIs Joe Sharp from France?\n"
    )


def test_empty_parts_say_none(concerts: Database, cache: Path) -> None:
    alone = replace(concerts, schema=Schema(concerts.schema.tables[:1]))
    assert build_prefix(alone, OPTIONS).endswith("\nforeign keys : None\n")
    assert (
        build_suffix(ask("Why?"), concerts, OPTIONS, cache_folder=cache) == "matched contents : None\nWhy?\n"
    )


def test_evidence_stands_before_the_question_and_is_matched_too(concerts: Database, cache: Path) -> None:
    example = ask("How many\nare  there?", "there means France")
    assert question_text(example) == "there means France How many are there?"
    suffix = build_suffix(example, concerts, OPTIONS, cache_folder=cache)
    assert "singer.country ( France )" in suffix
    assert suffix.endswith("\nthere means France How many are there?\n")


def test_only_values_of_shown_columns_are_matched(concerts: Database, cache: Path) -> None:
    stadium = replace(concerts, schema=Schema(concerts.schema.tables[:1]))
    suffix = build_suffix(ask("from France?"), stadium, OPTIONS, cache_folder=cache)
    assert suffix.startswith("matched contents : None")


def test_each_option_takes_away_its_own_part(concerts: Database, cache: Path) -> None:
    def prefix(**changes: object) -> str:
        return build_prefix(concerts, replace(OPTIONS, **changes))  # type: ignore[arg-type]

    assert "values :" not in prefix(include_values=False)
    assert prefix(values_per_column=0) == prefix(include_values=False)
    assert "values : 1 )" in prefix(values_per_column=1)
    assert "Joe Sharp" not in prefix(max_value_characters=8)
    assert "comment :" not in prefix(include_comments=False)
    untyped = prefix(include_types=False)
    assert "stadium.capacity ( values : 10104 , 20000 )" in untyped
    assert "singer_in_concert.year" in prefix(include_types=False, include_values=False)
    off = replace(OPTIONS, include_matched_values=False)
    assert build_suffix(ask("from France?"), concerts, off) == "matched contents : None\nfrom France?\n"


def test_names_are_quoted_for_characters_and_folded_as_sqlite_folds(tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "odd.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute('CREATE TABLE "Ärzte" ("Growth%" REAL, "a.b" INT, "Straße" TEXT, "Order" INT)')
    prefix = build_prefix(Database("odd", path, introspect(path)), PromptOptions(include_types=False))
    names = "Ärzte.`growth%` , Ärzte.`a.b` , Ärzte.straße , Ärzte.order"
    assert prefix.splitlines()[1] == f"table Ärzte , columns = [ {names} ]"


def test_chat_markup_wraps_the_same_text(concerts: Database, cache: Path) -> None:
    chat = replace(OPTIONS, template="chatml")
    example = ask("from France?")
    whole = build_prefix(concerts, chat) + build_suffix(example, concerts, chat, cache_folder=cache)
    plain = build_prefix(concerts, OPTIONS) + build_suffix(example, concerts, OPTIONS, cache_folder=cache)
    assert f"<|im_start|>user\n{plain}<|im_end|>\n<|im_start|>assistant\n" in whole
    assert whole.count("<|im_start|>") == 3
