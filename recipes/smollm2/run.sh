#!/usr/bin/env bash
# A small example from teacher to comparison, from the repository root; every command resumes where it was interrupted.
# It is far too small to order methods: `distilsql reproduce` makes the comparison (docs/reproduce.md).
# Needs models/smollm2-135m (an ordinary transformers folder) and DISTILSQL_DATA (the folder that holds spider/).
set -euo pipefail
for run in teacher student-start sft kid rkd; do
    distilsql train "recipes/smollm2/$run.toml"
done
for benchmark in spider:indomain-test spider:dev; do
    for run in teacher student-start sft kid rkd; do
        distilsql predict "runs/$run" --on "$benchmark" --limit "${LIMIT:-40}"
        distilsql evaluate "runs/$run" --on "$benchmark" --limit "${LIMIT:-40}"
    done
done
distilsql compare runs/student-start runs/sft runs/rkd runs/kid --out runs/report --title "SmolLM2-135M on Spider"
