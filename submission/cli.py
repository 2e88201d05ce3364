"""What the command lines of all packages share: naming a system, and saying a user's mistake plainly."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from submission.campaign import read_campaign
from submission.errors import UserError
from submission.recipe import read_recipe
from submission.store import Store
from submission.system import System


def add_system_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that name a system and where its work is kept."""
    group = parser.add_argument_group("which system, and where")
    group.add_argument(
        "--campaign",
        default="miniature",
        metavar="C",
        help="name in submission/campaigns/ or a TOML file (default: %(default)s)",
    )
    group.add_argument(
        "--recipe",
        default="primary",
        metavar="R",
        help="name in submission/recipes/ or a TOML file (default: %(default)s)",
    )
    group.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="data folder: models/, corpora/, acl_6060/, testsets/; the miniature makes its own",
    )
    group.add_argument(
        "--store",
        type=Path,
        default=Path("build/store"),
        metavar="DIR",
        help="where finished stages are kept (default: %(default)s)",
    )


def open_system(args: argparse.Namespace) -> tuple[System, Store]:
    """Return the system that the arguments name, and its store; UserError where a file is wrong."""
    campaign = read_campaign(args.campaign)
    recipe = read_recipe(args.recipe, campaign.name)
    named = {"--campaign": args.campaign, "--recipe": args.recipe, "--data": args.data, "--store": args.store}
    arguments = shlex.join(word for option, value in named.items() if value for word in (option, str(value)))
    system = System(campaign, recipe, args.data, args.store / "sources", arguments=arguments)
    return system, Store(root=args.store, journal=args.store / "journals" / f"{system.name}.jsonl")


def run(parser: argparse.ArgumentParser, argv: Sequence[str] | None = None) -> int:
    """Parse the arguments and call the verb's function (`set_defaults(verb=…)`); return the exit status.

    0 done, 1 done with findings, 2 could not be done; 130 interrupted.
    """
    args = parser.parse_args(argv)
    try:
        return args.verb(args) or 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        print(f"error: {place}{error.strerror or error}; mend that and run the same command again", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; run the same command again to go on", file=sys.stderr)
        return 130
