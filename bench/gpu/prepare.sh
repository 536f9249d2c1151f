#!/usr/bin/env bash
# Before a GPU is at hand: download what its machine lacks and cannot fetch, into .gpu/wheels (about 25 MB).
#
#     bench/gpu/prepare.sh [PYTHON_VERSION]      the version there, by default 3.12
#
# rouge-score has no wheel and is built here. Versions are those of constraints.txt where it names them.
set -euo pipefail
cd "$(dirname "$0")/../.."
version=${1:-3.12}
python=${PYTHON:-python3}
wheels=.gpu/wheels
rm -rf $wheels
mkdir -p $wheels
platforms=()
for name in manylinux_2_34 manylinux_2_31 manylinux_2_28 manylinux_2_27 manylinux_2_17 manylinux_2_5 manylinux2014 manylinux1; do
    platforms+=(--platform "${name}_x86_64")
done
for package in $(grep -v '^#' bench/gpu/wheels.txt); do
    pinned=$(grep -iE "^${package//-/[-_]}==" constraints.txt | cut -d' ' -f1 || true)
    if [ "$package" = rouge-score ]; then
        $python -m pip wheel -q --no-deps -w $wheels "${pinned:-$package}"
    else
        $python -m pip download -q --no-deps --only-binary=:all: --python-version "$version" \
            --implementation cp --abi "cp${version/./}" --abi abi3 --abi none "${platforms[@]}" -d $wheels "${pinned:-$package}"
    fi
done
du -sh $wheels
