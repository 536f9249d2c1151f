"""Keep what runs measured, not their weights: recipes, logs, summaries and scores, in results/NAME/runs.tar.xz.

    python bench/collect_results.py NAME RUN [RUN …]      put runs into the archive, or replace them there
    python bench/collect_results.py --unpack NAME FOLDER  take them out into FOLDER, to render or go on from

Questions, gold queries and reference responses belong to the benchmarks and are left out; example ids stand for them.
How long a query took is kept to one digit, other seconds and soft F1 to four. Of scale `lab`, whose runs anyone can
repeat from the package alone, logs and predicted queries are left out, too. All runs share one archive, since they say
nearly the same of the same questions: a tenth of the size of one file a run. The same runs make the same bytes.
"""

import io
import json
import lzma
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

KEPT = ("recipe.toml", "environment.json", "log.jsonl", "summary.json", "exposure.json")
REPEATABLE = "lab"
RESULTS = Path(__file__).resolve().parents[1] / "results"
ARCHIVE = "runs.tar.xz"


def pack(name: str, runs: list[Path]) -> Path:
    """Put runs into the archive; a run collected before is replaced."""
    archive = RESULTS / name / ARCHIVE
    archive.parent.mkdir(parents=True, exist_ok=True)
    replaced = {run.name for run in runs}
    members = [member for member in _packed(archive) if member[0].partition("/")[0] not in replaced]
    is_lean = name == REPEATABLE
    members += [
        (f"{run.name}/{file}", text.encode()) for run in runs for file, text in _members(run, is_lean)
    ]
    unfinished = archive.with_name(f"{archive.name}.part")
    with (
        lzma.open(unfinished, "wb", preset=9 | lzma.PRESET_EXTREME) as packed,
        tarfile.open(fileobj=packed, mode="w") as file,
    ):
        for member, content in sorted(members):
            info = tarfile.TarInfo(member)  # of no date and nobody, so that bytes depend on the runs alone
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    unfinished.replace(archive)
    return archive


def _packed(archive: Path) -> Iterator[tuple[str, bytes]]:
    """What an archive holds, file by file; nothing if it is not there yet."""
    if not archive.exists():
        return
    with tarfile.open(archive) as file:
        for member in file:
            content = file.extractfile(member)
            assert content is not None, f"{member.name} is not a file"
            yield member.name, content.read()


def unpack(name: str, folder: Path) -> Path:
    """Run folders without weights, as they were; what is in `folder` already stays."""
    there = {run.name for run in folder.iterdir()} if folder.exists() else set()
    with tarfile.open(RESULTS / name / ARCHIVE) as file:
        wanted = [member for member in file if member.name.partition("/")[0] not in there]
        file.extractall(folder, wanted, filter="data")
    return folder


def _members(run: Path, is_lean: bool) -> Iterator[tuple[str, str]]:
    for name in KEPT:
        if (run / name).exists() and not (is_lean and name == "log.jsonl"):
            text = (run / name).read_text(encoding="utf-8")
            yield name, _with_short_times(text) if name == "log.jsonl" else text
    for scores in sorted((run / "scores").glob("*.json")):
        document = _without_the_benchmarks_texts(json.loads(scores.read_text(encoding="utf-8")))
        for verdict in document.get("verdicts", ()):
            verdict["seconds"] = float(f"{verdict['seconds']:.0e}")
            verdict["soft_f1"] = verdict["soft_f1"] and round(verdict["soft_f1"], 4)
            if is_lean:
                verdict["predicted_sql"] = verdict["message"] = ""
        yield f"scores/{scores.name}", json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def _with_short_times(log: str) -> str:
    """Losses and norms stay as they are, to the last digit; seconds keep four."""
    return "".join(json.dumps(_shortened(line)) + "\n" for line in map(json.loads, log.splitlines()))


def _shortened(line: dict, is_time: bool = False) -> dict:
    short = {}
    for key, value in line.items():
        counts_seconds = is_time or "seconds" in key
        if isinstance(value, dict):
            value = _shortened(value, counts_seconds)
        elif isinstance(value, float) and counts_seconds:
            value = float(f"{value:.4g}")
        short[key] = value
    return short


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
