#!/usr/bin/env bash
# Installs medtok_jax with what its tests need, and runs lint and all tests but the thorough ones. Extra arguments go to
# pytest: `-m thorough` runs those, `-m "not integration"` leaves out what starts a process, trains or builds a data set.
# VENV and PYTHON may be set.
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

install_test() {
    echo "Installing into $VENV"
    python -m pip install --quiet --upgrade pip
    python -m pip install --quiet --constraint constraints.txt --editable '.[test]'
}
install_once test install_test

ruff check .
ruff format --check .
# A file of tests stays in one process, so that what its tests share is made once. Files start in the order of
# tests/conftest.py, the longest first.
# One process more than there are cores, as some tests wait for a server or a disk.
cores="$(getconf _NPROCESSORS_ONLN)"
# Threads share two heaps instead of eight a core, so that what they free is used again.
export MALLOC_ARENA_MAX=2
# What Python compiles is kept: each process, and those that tests start, imports much.
unset PYTHONDONTWRITEBYTECODE
processes=$((cores < 4 ? cores + 1 : 4))
python -m pytest --numprocesses="$processes" --dist=loadfile --no-loadscope-reorder -m "not thorough" "$@"
