"""Keep what runs measured, not their weights: copies logs, summaries, recipes and scores into docs/results/NAME/.

Questions, gold queries and reference responses belong to the benchmarks and are left out; example ids stand for them.

python bench/collect_results.py NAME RUN [RUN …]
"""

import json
import shutil
import sys
from pathlib import Path

KEPT = ("recipe.toml", "environment.json", "log.jsonl", "summary.json", "exposure.json")
ROOT = Path(__file__).resolve().parents[1]


def collect(name: str, runs: list[Path]) -> Path:
    """Copy the small files of each run; a run collected before is replaced."""
    target = ROOT / "docs" / "results" / name
    for run in runs:
        folder = target / f"{run.name}.part"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for file in KEPT:
            if (run / file).exists():
                shutil.copy(run / file, folder / file)
        for scores in sorted((run / "scores").glob("*.json")):
            document = json.loads(scores.read_text(encoding="utf-8"))
            for verdict in document.get("verdicts", ()):
                for theirs in ("question", "gold_sql"):
                    verdict.pop(theirs, None)  # gone already in what was collected before
            for judged in document.get("instructions", ()):
                judged["instruction"] = judged["input"] = ""
                # Tables by length need to know how long a reference is.
                judged["references"] = [" ".join("…" for _ in text.split()) for text in judged["references"]]
            (folder / "scores").mkdir(exist_ok=True)
            text = json.dumps(document, indent=1, ensure_ascii=False) + "\n"
            (folder / "scores" / scores.name).write_text(text, encoding="utf-8")
        shutil.rmtree(target / run.name, ignore_errors=True)
        folder.rename(target / run.name)
    return target


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    print(collect(sys.argv[1], [Path(run) for run in sys.argv[2:]]))
