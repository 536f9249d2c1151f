"""The tables of docs/performance.md's GPU section, from the JSON files that `run.sh` left.

python bench/gpu/show.py runs/gpu
"""

import argparse
import json
from pathlib import Path
from typing import Any


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    found = {
        path.stem: json.loads(path.read_text()) for path in sorted(parser.parse_args().folder.glob("*.json"))
    }
    for name, document in found.items():
        machine = document["machine"]
        print(f"\n{name} ({', '.join(str(value) for value in machine.values())})\n")
        print("\n".join(writing_table(document) if name == "writing" else steps_table(document)))


def steps_table(document: dict[str, Any]) -> list[str]:
    """A row per case. `× TRL` is the time per example over that of TRL's SFTTrainer on the same prompts."""
    rows = document["rows"]
    peak = document["machine"].get("bfloat16_tflops")
    lines = [
        "| contender | teacher | prompt | k | ms per example | × TRL SFT | student TFLOP/s | of peak | GiB | "
        "trained tokens |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        start = f"| {row['method']} | {row['teacher']} | {row['prompt']} | {row['k']} |"
        if "error" in row:
            lines.append(f"{start} {row['error'][:80]} | | | | | |")
            continue
        trl = [
            other["ms_per_example"]
            for other in rows
            if other["method"] == "trl-sft" and other["prompt"] == row["prompt"] and "error" not in other
        ]
        times = f"{row['ms_per_example'] / trl[0]:.2f}" if trl else ""
        share = f"{row['student_tflops'] / peak:.0%}" if peak else ""
        memory = f"{row['peak_gib']:.1f}" if "peak_gib" in row else ""
        lines.append(
            f"{start} {row['ms_per_example']:.2f} | {times} | {row['student_tflops']:.3g} | {share} | {memory} | "
            f"{row.get('trained_tokens', '')} |"
        )
    return lines


def writing_table(document: dict[str, Any]) -> list[str]:
    lines = [
        "| prompt | rows | recorded, tokens/s | unrecorded | `transformers` | times | equal |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in document["rows"]:
        if "error" in row:
            lines.append(f"| {row['prompt']} | {row['rows']} | {row['error'][:80]} | | | | |")
            continue
        rates = " | ".join(
            f"{row[name]['tokens_per_second']:,.0f}" for name in ("recorded", "unrecorded", "transformers")
        )
        lines.append(
            f"| {row['prompt']} | {row['rows']} | {rates} | {row['times_transformers']:.1f} | "
            f"{row['equal_to_transformers']:.0%} |"
        )
    return lines


if __name__ == "__main__":
    main()
