#!/bin/sh
# Make the environment and install geodino with the exact versions of constraints.txt.
# Uses uv where it is installed (seconds), pip otherwise (a minute or two).
set -eu

PYTHON=${PYTHON:-python3}
VENV=${VENV:-.venv}

"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "geodino needs Python 3.11 or newer; $PYTHON is $("$PYTHON" --version 2>&1)." \
        "Choose another: make setup PYTHON=/path/to/python3.11" >&2
    exit 2
}
[ -x "$VENV/bin/python" ] || "$PYTHON" -m venv "$VENV"

if command -v uv >/dev/null 2>&1; then
    # uv does not read pip's settings; a folder of local wheels named there counts here too.
    if [ -z "${UV_FIND_LINKS:-}" ]; then
        UV_FIND_LINKS=$("$VENV/bin/python" -m pip config get global.find-links 2>/dev/null || true)
        [ -n "$UV_FIND_LINKS" ] || UV_FIND_LINKS=${PIP_FIND_LINKS:-}
        [ -z "$UV_FIND_LINKS" ] || export UV_FIND_LINKS
    fi
    uv pip install --quiet --python "$VENV/bin/python" -c constraints.txt -e '.[dev]'
else
    # Old versions of pip print a line for each package of a local index that they pass over.
    messages=$(mktemp)
    trap 'rm -f "$messages"' EXIT
    "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check \
        -c constraints.txt -e '.[dev]' 2>"$messages" || {
        grep -v '^WARNING: Location' "$messages" >&2
        exit 1
    }
fi
