#!/usr/bin/env bash
# Tests the bounds of the dependencies: installs medtok_jax into a fresh environment by uv, and runs look-up, tokenization,
# a tiny training, checkpoints and conversions there.
#
#   ./launch/dependencies.sh lowest python3.11    # every package that setup.py names at its lower bound
#   ./launch/dependencies.sh pinned python3.12    # every package at its version in constraints.txt
#
# The environment is $VENV, by default .venv-lowest-python3.11 and so on, and is made anew. Extra arguments go to pytest.
# Variables of uv choose where packages come from, such as UV_INDEX and UV_OVERRIDE.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

versions="${1:-}" python="${2:-}"
case "$versions" in
    lowest) chosen=(--resolution lowest-direct) ;;
    pinned) chosen=(--constraint constraints.txt) ;;
    *) python="" ;;
esac
if [ -z "$python" ]; then
    echo "usage: $0 lowest|pinned PYTHON [ARGUMENT OF PYTEST ...]" >&2
    exit 2
fi
shift 2
VENV="${VENV:-.venv-$versions-$(basename "$python")}"

"$python" -m venv --clear "$VENV"
"$VENV/bin/python" -m pip install --quiet uv
"$VENV/bin/uv" pip install --quiet --python "$VENV/bin/python" "${chosen[@]}" --editable '.[test]'
"$VENV/bin/uv" pip freeze --python "$VENV/bin/python" --exclude-editable > "$VENV/installed.txt"

"$VENV/bin/python" -m pytest -m "not thorough" \
    tests/medtok_jax/lookup tests/medtok_jax/test_tokenizer.py tests/medtok_jax/tokenize \
    tests/medtok_jax/test_train.py tests/medtok_jax/training/test_checkpoints.py tests/medtok_jax/convert "$@"
