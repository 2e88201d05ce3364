"""The contract of a submission: campaigns, recipes, store, bundle and checks. Standard library only."""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - an organiser's Python may be older, and an error should name the version
    raise SystemExit(f"error: this program needs Python 3.11 or newer, this is {sys.version.split()[0]}")
