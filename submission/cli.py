"""What the command lines of all packages share: the arguments that name a system, and the report of user errors."""

from __future__ import annotations

import argparse
import errno
import io
import os
import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from select import POLLERR, POLLHUP, POLLOUT, poll
from typing import TYPE_CHECKING

from submission.errors import UnavailableError, UserError
from submission.processors import set_thread_defaults
from submission.store.store import Store
from submission.system.campaign import Campaign, read_campaign
from submission.system.pipeline import Selection
from submission.system.recipe.recipe import Recipe
from submission.system.recipe.recipe_files import read_recipe, read_recipes
from submission.system.schema import read_toml
from submission.system.system import System

if TYPE_CHECKING:
    Verbs = argparse._SubParsersAction[argparse.ArgumentParser]


def add_verbs(parser: argparse.ArgumentParser) -> Verbs:
    """Let a command line have verbs, to be added with `add_verb`."""
    return parser.add_subparsers(title="verbs", required=True, metavar="VERB")


def add_verb(
    verbs: Verbs, function: Callable[[argparse.Namespace], int | None], name: str = ""
) -> argparse.ArgumentParser:
    """Add a verb and return its parser.

    Its help is the docstring of its function, in the list of verbs the first line; name: the function's by default.
    """
    text = (function.__doc__ or "").strip()
    verb = verbs.add_parser(name or function.__name__, help=text.split("\n")[0], description=text)
    verb.set_defaults(verb=function)
    return verb


def add_system_arguments(
    parser: argparse.ArgumentParser, recipe: str | None = "primary", recipe_text: str = "%(default)s"
) -> None:
    """Add the arguments that name a system and where its work is kept.

    recipe: the one that is taken where none is named; recipe_text: how the help says which.
    """
    group = parser.add_argument_group("which system, and where")
    group.add_argument(
        "--campaign",
        default="miniature",
        metavar="C",
        help="name in submission/campaigns/ or a TOML file (default: %(default)s)",
    )
    group.add_argument(
        "--recipe",
        default=recipe,
        metavar="R",
        help="name in submission/recipes/, one of a list (ablation:bf16) or a TOML file; NAME@2.5GB: with this target "
        f"in bytes (default: {recipe_text})",
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


def add_comet_argument(parser: argparse.ArgumentParser) -> None:
    """Add the argument that names a COMET checkpoint, for the commands of `nox -s score`."""
    parser.add_argument(
        "--comet",
        type=Path,
        metavar="DIR",
        help="folder of a COMET checkpoint (default: models/comet in the data folder, where it is there)",
    )


def open_system(args: argparse.Namespace) -> tuple[System, Store]:
    """Return the system that the arguments name, and its store; UserError where a file is wrong."""
    campaign = read_campaign(args.campaign)
    return _opened(args, campaign, read_recipe(args.recipe, campaign.name), args.recipe)


def open_systems(args: argparse.Namespace) -> list[tuple[System, Store]]:
    """Return every system of the list that --recipe names, or the one system; UserError where a file is wrong.

    Those of a list that the campaign cannot have, a head of its own where it is tied, are left out and named on stderr.
    """
    campaign = read_campaign(args.campaign)
    recipes = read_recipes(args.recipe, campaign.name)
    names = [args.recipe] if len(recipes) == 1 else [f"{args.recipe}:{recipe.name}" for recipe in recipes]
    opened = []
    for recipe, name in zip(recipes, names, strict=True):
        try:
            opened.append(_opened(args, campaign, recipe, name))
        except UnavailableError as error:
            if len(recipes) == 1:
                raise
            print(f"left out of {args.recipe}: {error.where}: {error.what}", file=sys.stderr, flush=True)
    if not opened:
        what = f"campaign {campaign.name} can have none of its {len(recipes)} systems"
        raise UserError(f"recipe {args.recipe}", what, "name another recipe")
    return opened


def select(args: argparse.Namespace, recipe: str) -> Selection:
    """Return the systems that a recipe's name or a list's name stands for, with the other arguments of a command."""
    systems = open_systems(argparse.Namespace(**vars(args) | {"recipe": recipe}))
    return Selection(systems=tuple(system for system, _ in systems), arguments=_arguments(args, recipe))


def _arguments(args: argparse.Namespace, recipe: str) -> str:
    """Return the arguments that name a system, as a person types them."""
    named = {"--campaign": args.campaign, "--recipe": recipe, "--data": args.data, "--store": args.store}
    return shlex.join(word for option, value in named.items() if value for word in (option, str(value)))


def _opened(args: argparse.Namespace, campaign: Campaign, recipe: Recipe, name: str) -> tuple[System, Store]:
    system = System(campaign, recipe, args.data, args.store, arguments=_arguments(args, name))
    return system, Store(root=args.store, journal=args.store / "journals" / f"{system.name}.jsonl")


class ShowVersion(argparse.Action):
    """The option --version: prints the version that pyproject.toml gives, and exits."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        """Print name and version, and end the process."""
        project = read_toml(Path(__file__).parents[1] / "pyproject.toml")["project"]
        print(f"{project['name']} {project['version']}")
        parser.exit()


def _fix(error: OSError) -> str:
    """Return what to do about an error of the system."""
    again = "run the same command again, which continues from what is finished"
    return {
        errno.ENOSPC: f"free some space on that disk and {again}",
        errno.EDQUOT: f"your quota on that disk is used up: free some space there and {again}",
        errno.EFBIG: f"raise the limit on a file's size (`ulimit -f`), or take another disk, and {again}",
        errno.EROFS: f"that disk is read-only: make it writable, or name a folder on another one, and {again}",
        errno.EISDIR: "that is a folder: name a file, and run the same command again",
        errno.ENOENT: "make that folder or file, or name another one, and run the same command again",
        errno.EACCES: f"make that place accessible to you, or name another one, and {again}",
    }.get(error.errno or 0, "fix that and run the same command again")


def _output_is_closed() -> bool:
    """Return whether the reader of the output has closed it, as `head` does; what is left is then not written."""
    if sys.stdout is None:  # the command was started without one
        return False
    output = poll()
    output.register(sys.stdout.fileno(), POLLOUT)
    closed = any(event & (POLLERR | POLLHUP) for _, event in output.poll(0))
    if closed:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more when it ends
    return closed


def _write_utf8() -> None:
    """Make all output UTF-8, and file names too, whatever the locale says.

    Where the locale has another encoding, Python reads names of files in it, and what is written of them is garbled:
    the process starts once more in Python's UTF-8 mode. Names that are no UTF-8 survive as bytes, escaped in output.
    """
    if sys.getfilesystemencoding().lower() not in ("utf-8", "utf8") and os.environ.get("PYTHONUTF8") != "1":
        arguments = [sys.executable, *sys.orig_argv[1:]]
        os.execve(sys.executable, arguments, os.environ | {"PYTHONUTF8": "1"})  # the same command, as a list
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")


def run(parser: argparse.ArgumentParser, argv: Sequence[str] | None = None) -> int:
    """Parse the arguments and call the verb's function (`set_defaults(verb=…)`); return the exit status.

    0 done, 1 done with findings, 2 could not be done; 130 interrupted; 141 the reader of the output closed it.
    """
    _write_utf8()
    args = parser.parse_args(argv)
    set_thread_defaults()  # read when torch is imported, which a verb does later
    try:
        status = args.verb(args) or 0
        if sys.stdout is not None:  # it is None where the command was started without one
            sys.stdout.flush()
        return status
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        if isinstance(error, BrokenPipeError) and _output_is_closed():
            return 128 + signal.SIGPIPE
        place = f"{error.filename}: " if error.filename else ""
        print(f"error: {place}{error.strerror or error}; {_fix(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; run the same command again to continue", file=sys.stderr)
        return 130
