"""What a foreign page, a rebound name, a form, a stranger without the key and a body without end get: a refusal."""

import pytest
from starlette.testclient import TestClient

from distilsql.serve.guard import MOST_BODY_BYTES, is_loopback, names_of

QUESTION = {"question": "How many?"}
EVERYWHERE = ["/api/run", "/v1/chat/completions", "/mcp"]


@pytest.fixture
def locked(service, app_of):
    with TestClient(app_of(service, api_key="sesame"), base_url="http://localhost") as client:
        yield client


@pytest.mark.parametrize("host", ["localhost", "localhost:8642", "127.0.0.1:1", "[::1]:8642", "LOCALHOST"])
def test_names_of_loopback_are_answered(client, host):
    assert client.get("/health", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8642", "localhost.evil.example", "127.0.0.1.evil.example", "", "[::2]"],
)
@pytest.mark.parametrize("path", ["/", "/health", *EVERYWHERE])
def test_a_rebound_name_gets_nothing(client, host, path):
    answer = client.get(path, headers={"host": host})
    assert answer.status_code == 421
    assert "--allow-host" in answer.text


@pytest.mark.parametrize("path", EVERYWHERE)
@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://localhost:1"},  # another port is another origin
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_a_page_of_another_origin_gets_nothing(client, path, headers):
    assert client.post(path, json=QUESTION, headers=headers).status_code == 403


def test_the_own_page_and_a_link_are_let_in(client):
    own = {"origin": "http://localhost", "sec-fetch-site": "same-origin"}
    assert client.post("/api/run", json={"sql": "SELECT 1"}, headers=own).status_code == 200
    link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    assert client.get("/", headers=link).status_code == 200
    assert client.post("/api/run", json={"sql": "SELECT 1"}, headers=link).status_code == 403


@pytest.mark.parametrize("path", EVERYWHERE)
@pytest.mark.parametrize(
    "kind",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/jsonx",
        "",
    ],
)
def test_what_a_form_can_post_is_refused(client, path, kind):
    answer = client.post(path, content=b'{"sql": "SELECT 1"}', headers={"content-type": kind})
    assert answer.status_code == 415


@pytest.mark.parametrize("path", EVERYWHERE)
def test_long_bodies_are_refused_whether_they_say_their_length_or_not(client, path):
    long = b'{"sql": "' + b"x" * MOST_BODY_BYTES + b'"}'
    headers = {"content-type": "application/json"}
    assert client.post(path, content=long, headers=headers).status_code == 413

    def in_parts():
        for start in range(0, len(long), 10_000):
            yield long[start : start + 10_000]

    assert client.post(path, content=in_parts(), headers=headers).status_code == 413


def test_the_key_is_needed_for_all_but_the_bare_page(locked):
    for path in ("/", "/page/page.js", "/page/page.css", "/health"):
        assert locked.get(path).status_code == 200
    for path in (
        "/api/database",
        "/v1/models",
        "/openapi.json",
        "/mcp",
        "/page",
        "/health/../api/database",
    ):
        assert locked.get(path).status_code in (401, 404), path
        assert locked.get(path, headers={"authorization": "Bearer sesam"}).status_code in (401, 404), path
    for path in EVERYWHERE:
        refused = locked.post(path, json=QUESTION)
        assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
    for wrong in ("sesame", "Basic sesame", "Bearer", "Bearer sesame2", "Bearer séame"):
        assert locked.get("/api/database", headers={"authorization": wrong.encode()}).status_code == 401
    right = {"authorization": "Bearer sesame"}
    assert locked.get("/api/database", headers=right).status_code == 200


def test_every_answer_carries_the_strict_headers(client):
    answers = [
        client.get("/"),
        client.get("/page/page.js"),
        client.get("/api/database"),
        client.get("/nowhere"),
        client.get("/health", headers={"host": "evil.example"}),
        client.post("/api/run", json={"sql": "SELECT 1"}),
    ]
    for answer in answers:
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self';")
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in answer.headers
        assert "server" not in answer.headers


def test_the_page_names_no_other_place(client):
    """Nothing is loaded from elsewhere, and nothing stands inline that the policy would have to allow."""
    for path in ("/", "/page/page.js", "/page/show.js", "/page/chart.js", "/page/page.css"):
        text = client.get(path).text.replace("http://www.w3.org/2000/svg", "")
        assert "//" not in text.replace("// ", "").replace("://", "//") or path.endswith(".js")
        for inline in (
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "eval(",
            "onclick=",
            "style=",
            "https:",
            "http:",
        ):
            assert inline not in text, (path, inline)


def test_names_and_loopback():
    assert all(map(is_loopback, ("127.0.0.1", "127.0.0.2", "::1", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.168.1.2", "example.org", "")))
    assert names_of("127.0.0.1") == {"localhost", "127.0.0.1", "::1"}
    assert "db.example" in names_of("0.0.0.0", ["DB.example"])
