"""Spider and its variants (Yu et al. 2018; Spider-Syn and Spider-DK, Gan et al. 2021; Spider-Realistic, Deng et
al. 2021): which files and fields each split is read from."""

from dataclasses import replace
from functools import partial
from pathlib import Path

from distilsql.data.layout import Layout
from distilsql.data.splits import IN_DOMAIN_PARTS, in_domain_part
from distilsql.data.tables_json import Catalogue

# spec: question files under the data folder. Split names are the benchmark's own; the in-domain ones are ours.
_FILES = {
    "spider:train": ("spider/train_spider.json", "spider/train_others.json"),
    "spider:train_spider": ("spider/train_spider.json",),
    "spider:dev": ("spider/dev.json",),
    **{f"spider:indomain-{part}": ("spider/train_spider.json",) for part in IN_DOMAIN_PARTS},
    "spider-syn:train": ("spider-syn/train_spider.json",),
    "spider-syn:dev": ("spider-syn/dev.json",),
    "spider-dk:dev": ("spider-dk/Spider-DK.json",),
    "spider-realistic:dev": ("spider-realistic/spider-realistic.json",),
}
SPIDER_SPECS = tuple(_FILES)


def spider_layout(spec: str, root: Path) -> Layout:
    """Where `spec`, one of SPIDER_SPECS, lies under the data folder `root`."""
    family, split = spec.split(":")
    tables_json = root / "spider" / "tables.json"
    folders: tuple[Path, ...] = (root / "spider" / "database",)
    if family == "spider-dk":  # its tables.json has Spider's databases and three of its own
        tables_json = root / "spider-dk" / "tables.json"
        folders = (root / "spider-dk" / "database", *folders)

    catalogue = Catalogue(tables_json, folders)
    layout = Layout(
        name=spec,
        files=tuple(root / file for file in _FILES[spec]),
        locate=catalogue.locate,
        question_fields=("SpiderSynQuestion",) if family == "spider-syn" else ("question",),
        comments=catalogue.comments,
    )
    if not split.startswith("indomain-"):
        return layout
    return replace(layout, part=partial(in_domain_part, part=split.removeprefix("indomain-")))
