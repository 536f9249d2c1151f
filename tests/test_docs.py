"""Every link in the docs leads somewhere, and every file that they name is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "bench").rglob("*.md")])
# These tell of what was, too.
OF_THE_PAST = ("CHANGELOG.md", "decisions.md")


def prose(page: Path) -> str:
    return re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)


def anchors(page: Path) -> set[str]:
    """The headings of a page as GitHub's anchors."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}


def rooms() -> str:
    source = ROOT / "src" / "distilsql"
    names = [path.name for path in source.iterdir() if (path / "__init__.py").exists()]
    return "|".join(sorted([*names, "tests", "bench", "recipes"]))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)\s]+)\)", prose(page))
    for link in (link for link in links if not link.startswith(("http:", "https:"))):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_are_named_are_there(page):
    if page.name in OF_THE_PAST:
        return
    for named in re.findall(
        rf"`((?:{rooms()})/[\w/.-]+\.(?:py|toml|sh|json))`", page.read_text(encoding="utf-8")
    ):
        assert (ROOT / named).exists() or (ROOT / "src" / "distilsql" / named).exists(), named
