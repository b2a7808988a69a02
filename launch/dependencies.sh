#!/usr/bin/env bash
# Tests the bounds of the dependencies: installs medtok_jax into a fresh environment, and runs look-up, tokenization, a
# tiny training, checkpoints and conversions there.
#
#   ./launch/dependencies.sh lowest python3.11    # every package at its lower bound in setup.py
#   ./launch/dependencies.sh pinned python3.12    # every package at its version in constraints.txt
#
# The environment is $VENV, by default .venv-lowest-python3.11 and so on, and is made anew. Extra arguments go to pytest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if [[ "${1:-}" != @(lowest|pinned) || -z "${2:-}" ]]; then
    echo "usage: $0 lowest|pinned PYTHON [ARGUMENT_OF_PYTEST ...]" >&2
    exit 2
fi
versions="$1" python="$2"
shift 2
VENV="${VENV:-.venv-$versions-$(basename "$python")}"

"$python" -m venv --clear "$VENV"
constraints=constraints.txt
if [ "$versions" = lowest ]; then
    constraints="$VENV/lowest.txt"
    grep -oE '"[A-Za-z0-9_-]+(\[[a-z0-9]+\])?>=[0-9a-z.]+' setup.py |
        sed -E 's/"([^[>]+)(\[.*\])?>=/\1==/' | sort -u > "$constraints"
fi
"$VENV/bin/python" -m pip install --quiet --upgrade pip
"$VENV/bin/python" -m pip install --quiet --constraint "$constraints" --editable '.[test]'
"$VENV/bin/python" -m pip freeze --exclude-editable > "$VENV/installed.txt"

# A warning of a package's next release is no fault of this one.
"$VENV/bin/python" -m pytest -m "not thorough" \
    tests/medtok_jax/lookup tests/medtok_jax/test_tokenizer.py tests/medtok_jax/tokenize \
    tests/medtok_jax/test_train.py tests/medtok_jax/training/test_checkpoints.py tests/medtok_jax/convert "$@"
