#!/bin/sh
# Makes the environment of run.sh: a virtual environment with exactly the libraries of requirements.txt.
usage="usage: setup.sh [--wheels DIR]
  --wheels DIR   install from a folder of wheels, without a network
The environment goes to .venv beside this script, or to the folder that PACKAGE_VENV names, for both scripts.
PYTHON names the interpreter to use; otherwise the first Python from 3.11 to 3.13 on PATH is taken."
set -eu

fail() {
    printf 'setup.sh: %s\n' "$1" >&2
    exit 2
}

here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd -P)
venv=${PACKAGE_VENV:-$here/.venv}
wheels=
while [ $# -gt 0 ]; do
    case $1 in
        --wheels) [ $# -gt 1 ] || fail "--wheels needs the folder of wheels"; wheels=$2; shift 2 ;;
        -h | --help) printf '%s\n' "$usage"; exit 0 ;;
        *) fail "unknown argument $1; see setup.sh --help" ;;
    esac
done
[ -z "$wheels" ] || [ -d "$wheels" ] || fail "--wheels $wheels: no such folder; name the folder that holds the .whl files"

fits='import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))'
found=
looked=
for python in ${PYTHON:+"$PYTHON"} python3.11 python3.12 python3.13 python3 python; do
    looked="$looked $python"
    if command -v "$python" >/dev/null 2>&1 && "$python" -c "$fits" 2>/dev/null; then
        found=$python
        break
    fi
    [ -z "${PYTHON:-}" ] || fail "PYTHON=$PYTHON is no Python from 3.11 to 3.13; name another, or unset PYTHON"
done
[ -n "$found" ] || fail "found no Python from 3.11 to 3.13 (looked for$looked); install one, or name it with PYTHON"

parent=$(dirname -- "$venv")
[ -d "$parent" ] && [ -w "$parent" ] || fail "cannot write to $parent; set PACKAGE_VENV to a folder that can be made, for setup.sh and run.sh"
# A folder that is there is emptied below: only one that an environment lies in, or nothing, may be.
if [ -e "$venv" ] && [ ! -f "$venv/pyvenv.cfg" ]; then
    [ -d "$venv" ] && [ -z "$(ls -A -- "$venv")" ] ||
        fail "$venv is there and no environment; name a folder that is not there yet, or an empty one, with PACKAGE_VENV"
fi
"$found" -m venv --clear "$venv" >/dev/null 2>&1 ||
    fail "$found cannot make a virtual environment at $venv; install its venv module (python3-venv), or free disk space"
rm -f "$venv/complete"

install() {
    if [ -n "$wheels" ]; then
        set -- "$@" --no-index --find-links "$wheels"
    fi
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-cache-dir "$@" || fail "pip could not install what $2 lists (its message is above); check the network, or --wheels"
}
printf 'setup.sh: %s, %s\n' "$("$venv/bin/python" --version)" "$venv"
install --requirement "$here/requirements.txt" --no-deps --require-hashes
# torch comes last, by its version: which file fits depends on the machine (CPU or CUDA), and so does its hash.
install --requirement "$here/requirements-torch.txt"
# Matplotlib's list of fonts is made once, here: a home to keep it in need not exist.
MPLCONFIGDIR="$venv/matplotlib" "$venv/bin/python" -c 'import matplotlib.font_manager' ||
    fail "the libraries do not run with $found; name another Python with PYTHON"
: >"$venv/complete"
printf 'setup.sh: done; translate with run.sh\n'
