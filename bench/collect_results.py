"""Keep what runs measured, not their weights: copies logs, summaries, recipes and scores into docs/results/NAME/.

python bench/collect_results.py NAME RUN [RUN …]
"""

import shutil
import sys
from pathlib import Path

KEPT = ("recipe.toml", "environment.json", "log.jsonl", "summary.json", "exposure.json")
ROOT = Path(__file__).resolve().parents[1]


def collect(name: str, runs: list[Path]) -> Path:
    """Copy the small files of each run; a run collected before is replaced."""
    target = ROOT / "docs" / "results" / name
    for run in runs:
        folder = target / run.name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for file in KEPT:
            if (run / file).exists():
                shutil.copy(run / file, folder / file)
        for kind in ("predictions", "scores"):
            if (run / kind).is_dir():
                shutil.copytree(run / kind, folder / kind)
    return target


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    print(collect(sys.argv[1], [Path(run) for run in sys.argv[2:]]))
