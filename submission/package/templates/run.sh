#!/bin/sh
# Translates recordings with the bundle of this package: run.sh --help.
set -eu
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd -P)
venv=${PACKAGE_VENV:-$here/.venv}
if [ ! -f "$venv/complete" ]; then
    printf 'run.sh: no finished environment at %s; run setup.sh first, with the same PACKAGE_VENV\n' "$venv" >&2
    exit 2
fi
# Nothing is read from the working folder or the user's own packages, nothing written into this one, nothing fetched.
export PYTHONPATH="$here/runtime" PYTHONDONTWRITEBYTECODE=1 PYTHONNOUSERSITE=1 PYTHONUTF8=1 HF_HUB_OFFLINE=1
exec "$venv/bin/python" -P -m evaluate.recordings.packaged --bundle "$here/bundle" "$@"
