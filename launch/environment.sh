# Sourced by the other scripts: creates a virtual environment in .venv (or $VENV) once. $PYTHON chooses the interpreter.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
VENV="${VENV:-.venv}"

find_python() {
    for candidate in ${PYTHON:-python3.12 python3.11 python3}; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "error: Python 3.11 or newer is needed; install it, or set PYTHON=/path/to/python." >&2
    exit 2
}

if [ ! -x "$VENV/bin/python" ]; then
    python="$(find_python)"
    "$python" -m venv "$VENV"
fi
# shellcheck disable=SC1091
source "$VENV/bin/activate"

# Runs an installation unless it was done before with the same requirements.
install_once() {
    local mark="$VENV/.installed-$1"
    shift
    if [ -f "$mark" ] && [ "$mark" -nt setup.py ] && [ "$mark" -nt constraints.txt ]; then
        return
    fi
    "$@"
    touch "$mark"
}
