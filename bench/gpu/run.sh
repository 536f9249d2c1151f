#!/usr/bin/env bash
# Everything that ten minutes on a GPU can tell, most valuable first; what is cut off leaves the files before it.
#
#     bench/gpu/run.sh OUT               on a machine with a GPU
#     bench/gpu/run.sh OUT --rehearse    here, on a CPU: the same programs on a toy model; tests of GPUs skip themselves
#
# Packages are found in .gpu/wheels (prepare.sh), and installed to a temporary folder, if Python lacks them.
set -uo pipefail
cd "$(dirname "$0")/../.."
out=$1
python=${PYTHON:-python3}
toy=()
[ "${2:-}" = --rehearse ] && toy=(--toy)
mkdir -p "$out"
if ! $python -c "import pydantic, sqlglot, trl" 2>/dev/null && [ -d .gpu/wheels ]; then
    site=$(mktemp -d)
    $python -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --target "$site" .gpu/wheels/*.whl
    export PYTHONPATH=$site
fi
export PYTHONPATH=src:bench:bench/gpu:${PYTHONPATH:-} PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error

stage() { # NAME SECONDS COMMAND...: its output goes to OUT/log.txt
    local name=$1 seconds=$2 start=$SECONDS
    shift 2
    timeout "$seconds" "$@" >>"$out/log.txt" 2>&1
    echo "$name: exit $? after $((SECONDS - start)) s"
}

if [ ${#toy[@]} -eq 0 ]; then
    nvidia-smi -L
    # By other versions of packages than ours, so their warnings are no errors.
    stage tests 150 $python -m pytest -m gpu -n 8 -p no:cacheprovider -o filterwarnings=default -rf --tb=short \
        --show-capture=no --durations=10 tests/models tests/training/test_on_gpu.py
else
    stage tests 150 $python -m pytest -m gpu -p no:cacheprovider tests/models/test_graph_writing.py
fi
tail -n 30 "$out/log.txt" | grep -E "passed|failed|FAILED|skipped" || true
steps() { # NAME SECONDS ARGUMENTS...
    local name=$1 seconds=$2
    shift 2
    stage "$name" "$seconds" $python bench/gpu/steps.py --out "$out/$name.json" "$@" ${toy[@]+"${toy[@]}"}
}
steps compiled 170 --compile --methods sft,trl-sft,kid,gkd-rkl,hf-loop,switch --profile "$out/profiles"
stage writing 60 $python bench/gpu/writing.py --compile --out "$out/writing.json" ${toy[@]+"${toy[@]}"}
steps uncompiled 40 --methods sft,kid
steps large 60 --compile --teachers 7b --prompts 4000 --methods kid,rkd,gkd-rkl
steps trees 60 --compile --k 4,32 --prompts 500 --methods sft,kid
steps peers 60 --methods trl-gkd,trl-distillation,prefix-grouper --prompts 500
tar czf "$out/profiles.tar.gz" -C "$out" profiles && rm -r "$out/profiles"
$python bench/gpu/show.py "$out"
