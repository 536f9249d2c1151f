"""Keep what runs measured, not their weights: recipes, logs, summaries and scores in results/NAME/, one file a run.

    python bench/collect_results.py NAME RUN [RUN …]      runs/…/kid-seed0 → results/NAME/kid-seed0.tar.xz
    python bench/collect_results.py --unpack NAME FOLDER  results/NAME/*.tar.xz → FOLDER/*, to render or go on from

Questions, gold queries and reference responses belong to the benchmarks and are left out; example ids stand for them.
The same run makes the same bytes.
"""

import io
import json
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

KEPT = ("recipe.toml", "environment.json", "log.jsonl", "summary.json", "exposure.json")
RESULTS = Path(__file__).resolve().parents[1] / "results"
SUFFIX = ".tar.xz"


def pack(name: str, runs: list[Path]) -> Path:
    """One file a run; a run collected before is replaced."""
    target = RESULTS / name
    target.mkdir(parents=True, exist_ok=True)
    for run in runs:
        unfinished = target / f"{run.name}.part"
        with tarfile.open(unfinished, "w:xz", preset=9) as file:
            for member, text in _members(run):
                content = text.encode()
                info = tarfile.TarInfo(member)  # of no date and nobody, so that bytes depend on the run alone
                info.size = len(content)
                file.addfile(info, io.BytesIO(content))
        unfinished.replace(target / f"{run.name}{SUFFIX}")
    return target


def unpack(name: str, folder: Path) -> Path:
    """Run folders without weights, as they were; what is in `folder` already stays."""
    for packed in sorted((RESULTS / name).glob(f"*{SUFFIX}")):
        run = folder / packed.name.removesuffix(SUFFIX)
        if not run.exists():
            with tarfile.open(packed) as file:
                file.extractall(run, filter="data")
    return folder


def _members(run: Path) -> Iterator[tuple[str, str]]:
    for name in KEPT:
        if (run / name).exists():
            yield name, (run / name).read_text(encoding="utf-8")
    for scores in sorted((run / "scores").glob("*.json")):
        document = _without_the_benchmarks_texts(json.loads(scores.read_text(encoding="utf-8")))
        yield f"scores/{scores.name}", json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def _without_the_benchmarks_texts(document: dict) -> dict:
    for verdict in document.get("verdicts", ()):
        for theirs in ("question", "gold_sql"):
            verdict.pop(theirs, None)  # gone already in what was collected before
    for judged in document.get("instructions", ()):
        judged["instruction"] = judged["input"] = ""
        # Tables by length need to know how long a reference is.
        judged["references"] = [" ".join("…" for _ in text.split()) for text in judged["references"]]
    return document


if __name__ == "__main__":
    if len(sys.argv) < 3 or (sys.argv[1] == "--unpack" and len(sys.argv) != 4):
        sys.exit(__doc__)
    if sys.argv[1] == "--unpack":
        print(unpack(sys.argv[2], Path(sys.argv[3])))
    else:
        print(pack(sys.argv[1], [Path(run) for run in sys.argv[2:]]))
