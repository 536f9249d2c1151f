"""The page in headless Chromium, as a person uses it, in light and dark and at a phone's width.

With DISTILSQL_SCREENSHOTS=FOLDER the pictures of docs/serving.md are written there.
"""

import contextlib
import json
import os
import shutil
import sqlite3
from pathlib import Path

import pytest

from distilsql.databases.database import open_database
from distilsql.databases.job import Execution, Outcome
from distilsql.inference.asker import carry_out
from distilsql.inference.candidates import Choosing
from distilsql.serve.service import Service
from serving import running

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
]
PATIENT_MS = 60_000


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as drive:
        browser = drive.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page_of(browser):
    """`page_of(url, …)`: a page whose errors, and requests to elsewhere, fail the test."""
    contexts, faults = [], []

    def open_page(url, **options):
        context = browser.new_context(accept_downloads=True, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENT_MS)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda said: faults.append(said.text) if said.type == "error" else None)
        page.on(
            "request",
            lambda asked: faults.append(asked.url) if not asked.url.startswith((url, "blob:")) else None,
        )
        page.goto(url)
        return page

    open_page.faults = faults
    yield open_page
    for context in contexts:
        context.close()
    assert not [fault for fault in faults if "status of 4" not in fault and "status of 5" not in fault]


def settled(page):
    page.wait_for_selector('body[aria-busy="false"]')


def ask(page, question):
    page.fill("#question", question)
    page.click("#ask")
    settled(page)


def run(page, sql):
    page.fill("#sql", sql)
    page.click("#run")
    settled(page)


def rows(page):
    return [row.split("\t") for row in page.locator("#rows tbody").inner_text().split("\n")]


def shot(page, name):
    folder = os.environ.get("DISTILSQL_SCREENSHOTS")
    if folder:
        page.screenshot(path=Path(folder) / f"{name}.png")


def test_a_person_asks_edits_sorts_downloads_and_corrects(served, page_of, examples, database, tmp_path):
    with served() as url:
        page = page_of(url)
        page.wait_for_selector("#suggestions button")
        assert page.inner_text("#database") == database.db_id
        ask(page, examples[0].question)
        written = page.input_value("#sql")
        assert written.startswith("SELECT")
        assert "row" in page.inner_text("#count")
        assert page.is_hidden("#correct")

        run(page, "SELECT 'b' AS name, 10 AS n UNION ALL SELECT 'a', 9 UNION ALL SELECT 'c', NULL")
        assert rows(page) == [["b", "10"], ["a", "9"], ["c", "NULL"]]
        page.click("#rows th:nth-child(2) button")
        assert rows(page) == [["c", "NULL"], ["a", "9"], ["b", "10"]]
        page.click("#rows th:nth-child(2) button")
        assert rows(page) == [["b", "10"], ["a", "9"], ["c", "NULL"]]
        assert page.get_attribute("#rows th:nth-child(2)", "aria-sort") == "descending"

        run(page, "SELECT '=1+1' AS formula, 'two' AS b")
        with page.expect_download() as downloading:
            page.click("#csv")
        assert Path(downloading.value.path()).read_bytes() == b"formula,b\r\n'=1+1,two\r\n"

        table = database.schema.tables[0].name
        page.fill("#sql", f"SELECT count(*) FROM {table}")
        page.click("#correct")
        settled(page)
        assert page.inner_text("#status").startswith("Added")
        (line,) = (tmp_path / "feedback.jsonl").read_text().splitlines()
        kept = json.loads(line)
        assert (kept["question"], kept["sql"]) == (examples[0].question, f"SELECT count(*) FROM {table}")
        assert (kept["verdict"], kept["written"]) == ("corrected", written)

        page.click("#restore")
        settled(page)
        assert page.input_value("#sql") == written
        page.click("#history summary")
        page.click("#asked button")
        settled(page)
        assert page.input_value("#question") == examples[0].question


def test_how_many_candidates_agree_is_said(model, database, app_of, page_of, examples):
    service = Service(model, database, name="teacher", choosing=Choosing(4, temperature=1.2))
    with service, running(app_of(service)) as url:
        page = page_of(url)
        said = []
        for example in examples[:6]:
            with page.expect_response("**/api/ask") as answering:
                ask(page, example.question)
            answer = answering.value.json()
            assert page.inner_text("#times").endswith(f", {answer['votes']} of 4 candidates agree")
            said.append(answer["votes"])
        assert min(said) < 4, "they disagree somewhere"
        run(page, "SELECT 1")
        assert "agree" not in page.inner_text("#times")


def test_a_retry_is_said(model, database, app_of, page_of, examples):
    failing = []

    def first_fails(database, sql):
        failing[:] = failing or [sql]
        if sql == failing[0]:
            return Execution(Outcome.SQL_ERROR, message="no such table: here")
        return carry_out(database, sql)

    choosing = Choosing(retry=True, temperature=1.5)
    service = Service(model, database, name="teacher", choosing=choosing, run_sql=first_fails)
    with service, running(app_of(service)) as url:
        page = page_of(url)
        retried = []
        for example in examples[:6]:
            failing.clear()
            with page.expect_response("**/api/ask") as answering:
                ask(page, example.question)
            retried.append(answering.value.json()["retried"])
            assert ("after another query failed" in page.inner_text("#times")) == retried[-1]
            assert page.is_hidden("#problem") == retried[-1]
        assert any(retried)


def test_a_write_is_refused_and_said(served, page_of, examples):
    with served() as url:
        page = page_of(url)
        ask(page, examples[0].question)
        run(page, "DROP TABLE product")
        assert "denied" in page.inner_text("#problem")
        assert page.is_hidden("#chart")
        page.click("#correct")
        settled(page)
        assert "problem" in page.get_attribute("#status", "class")
        assert "does not run" in page.inner_text("#status")


def test_what_a_database_holds_is_text(served, page_of, examples):
    evil = "<img src=x onerror=alert(1)><script>alert(2)</script>"
    with served() as url:
        page = page_of(url)
        page.on("dialog", lambda dialog: pytest.fail("a cell was run"))
        ask(page, examples[0].question)
        run(page, f"SELECT '{evil}' AS \"{evil}\", 1 AS n UNION ALL SELECT 'x', 2")
        assert rows(page)[0] == [evil, "1"]
        assert page.locator("#rows img, #rows script, #chart img, #chart script").count() == 0
        assert page.locator("#chart svg rect").count() == 2


def test_the_schema_is_found_and_the_keyboard_is_enough(served, page_of, database, examples):
    with served() as url:
        page = page_of(url)
        page.wait_for_selector("#tables summary")
        table = database.schema.tables[1]
        column = table.columns[-1].name
        assert page.inner_text("#table-count") == str(len(database.schema.tables))
        page.fill("#find", column)
        assert column in page.inner_text("#tables")
        listed = page.locator("#tables li").all_inner_texts()
        assert listed
        assert all(column in text for text in listed), "only the columns that were looked for"
        page.fill("#find", table.name)
        assert page.locator("#tables li").count() >= len(table.columns)
        page.fill("#find", "nowhere")
        assert page.inner_text("#tables") == ""
        page.focus("#question")
        page.keyboard.type(examples[1].question)
        page.keyboard.press("Enter")
        settled(page)
        page.focus("#sql")
        page.fill("#sql", "SELECT 41 + 1 AS n")
        page.keyboard.press("Control+Enter")
        settled(page)
        assert rows(page) == [["42"]]


def test_a_key_is_asked_for_and_used(served, page_of, database):
    with served(api_key="sesame") as url:
        page = page_of(url)
        page.wait_for_selector("#key-form:not([hidden])")
        assert "API key" in page.inner_text("#status")
        page.fill("#key", "sesame")
        page.click("#key-form button")
        page.wait_for_selector("#suggestions button")
        assert page.is_hidden("#key-form")
        assert page.inner_text("#database") == database.db_id


def test_a_server_that_is_gone_is_said(served, page_of, examples):
    with served() as url:
        page = page_of(url)
        page.wait_for_selector("#suggestions button")
    ask(page, examples[0].question)
    assert "does not answer" in page.inner_text("#status")
    page_of.faults.clear()


def test_a_hundred_tables_leave_the_history_in_sight(model, page_of, app_of, tmp_path):
    path = tmp_path / "large.sqlite"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        for number in range(100):
            connection.execute(f"CREATE TABLE branch_{number} (id INTEGER PRIMARY KEY, name TEXT)")
    with Service(model, open_database(path), name="teacher") as service, running(app_of(service)) as url:
        page = page_of(url, viewport={"width": 1200, "height": 900})
        page.wait_for_selector("#tables summary")
        assert page.locator("#tables summary").count() == 100
        assert page.locator("#history").bounding_box()["y"] < 900


@pytest.mark.parametrize(
    ("name", "width", "height", "scheme"),
    [("light", 1200, 900, "light"), ("dark", 1200, 900, "dark"), ("phone", 390, 844, "light")],
)
def test_it_fits_light_dark_and_a_phone(served, page_of, name, width, height, scheme):
    with served() as url:
        page = page_of(url, viewport={"width": width, "height": height}, color_scheme=scheme)
        page.wait_for_selector("#suggestions button")
        ask(page, "How many brands are there?")
        run(
            page,
            "SELECT brand.name, count(*) AS products FROM product JOIN brand ON product.brand_id = brand.id\n"
            "GROUP BY brand.name ORDER BY products DESC",
        )
        assert page.locator("#chart svg rect").count() > 2
        shot(page, f"page-{name}")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert ground == {"light": "rgb(246, 247, 249)", "dark": "rgb(18, 22, 28)"}[scheme]
        if name == "phone":
            small = page.eval_on_selector_all(
                "main button:not([hidden])",
                "found => found.filter(b => b.offsetHeight && b.offsetHeight < 32).map(b => b.textContent)",
            )
            assert not small
