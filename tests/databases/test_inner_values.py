"""Values are matched in every way of writing: without spaces, joined to particles, in compounds, in other forms."""

import sqlite3
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distilsql.databases.inner_values import folded, inner_values
from distilsql.databases.values import matched_values


def matched(folder: Path, values: list[str], question: str) -> set[str]:
    path = folder / "values.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE t (c TEXT)")
        connection.executemany("INSERT INTO t VALUES (?)", [(value,) for value in values])
        connection.commit()
    return set(matched_values(path, question, cache_folder=folder / "cache").get(("t", "c"), ()))


@pytest.mark.parametrize(
    ("values", "question", "found"),
    [
        (["北京", "上海"], "北京有多少商店？", {"北京"}),
        (["北京", "上海"], "北京和上海有多少商店？", {"北京", "上海"}),
        (["男", "女", "有", "是"], "有多少女学生？", {"女"}),
        (["iPhone", "2023"], "2023年买iPhone的人有多少", {"iPhone", "2023"}),
        (["東京", "京都", "大阪"], "東京都には店がいくつありますか", {"東京"}),  # not 京都
        (["東京タワー", "パリ", "コレ"], "パリの東京タワー", {"東京タワー", "パリ"}),
        (["ベース"], "データベースの数", set()),  # in the middle of one name
        (["กรุงเทพ", "เชียงใหม่"], "กรุงเทพมีร้านกี่ร้าน", {"กรุงเทพ"}),
        (["서울", "부산"], "서울에는 가게가 몇 개 있습니까?", {"서울"}),
        (["القاهرة", "بغداد"], "كم عدد المتاجر بالقاهرة وبغداد؟", {"القاهرة", "بغداد"}),
        (["תל אביב", "חיפה"], "כמה חנויות יש בתל אביב ובחיפה?", {"תל אביב", "חיפה"}),
        (["दिल्ली", "दिल"], "दिल्ली में कितनी दुकानें हैं?", {"दिल्ली"}),
        (["Berlin", "Kunde", "Uhr"], "Wie viele Berlinkunden gibt es im Jahr?", {"Berlin"}),
        (["Stockholm"], "Hur många stockholmskunder finns det i en butik?", {"Stockholm"}),
        (["Straße"], "Which one is in the STRASSE?", {"Straße"}),
        (["Café Zoë"], "where is Cafe\u0301 Zoe\u0308?", {"Café Zoë"}),
        (["Cafe\u0301 Zoe\u0308"], "where is Café Zoë?", {"Cafe\u0301 Zoe\u0308"}),
        (["2023"], "sales of ２０２３", {"2023"}),
        (["ｶﾅﾀﾞ"], "カナダの店", {"ｶﾅﾀﾞ"}),
        (["dog", "cat", "house", "ring"], "Which doghouses of the category are there during spring?", set()),
    ],
)
def test_values_are_found_as_their_languages_write_them(
    tmp_path: Path, values: list[str], question: str, found: set[str]
) -> None:
    assert matched(tmp_path, values, question) == found


ENGLISH = (
    "How many pets are there in each of the cities, and what was the name of the man who will die last?",
    "List all names.",
    "Show the stadiums that had a concert at all.",
    "Find Hans Vandermeer's age, or der Mann's.",
)


@given(st.sampled_from(ENGLISH), st.integers(0, 25), st.integers(0, 25))
def test_english_has_no_inner_values(question: str, start: int, end: int) -> None:
    text = " ".join(question.split()[start:end])
    assert inner_values(text, lambda spelling: True) == []


@given(
    st.text("北京東カナกรุ้สา서울קהab1 é", max_size=30),
    st.sets(st.text("北京東カナกรุ้", min_size=1, max_size=3)),
)
def test_what_is_found_is_known_in_order_and_does_not_overlap(text: str, known: set[str]) -> None:
    text = folded(text)
    known = {folded(value) for value in known}
    found = inner_values(text, known.__contains__)
    assert all(text[start:end] in known for start, end in found)
    assert all(one[1] <= other[0] for one, other in pairwise(found))
