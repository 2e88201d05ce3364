"""`python -m quantize`: pack a system's model, and say what it will weigh before that."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from submission.cli import add_system_arguments, open_system, run


def pack(args: argparse.Namespace) -> None:
    """Build the stage quantize of a system: model/ (the packed model) and report.json."""
    from quantize.table import size_against_limit

    system, store = open_system(args)

    def make(out: Path) -> None:
        from quantize.stream import pack_system

        base = store.need(system.stage("merge"))
        pack_system(base, out, system.recipe.quantize, system.campaign.size_limit_bytes)

    model = store.obtain(system.stage("quantize"), make) / "model"
    size = sum(path.stat().st_size for path in model.iterdir())
    print("\n".join([*size_against_limit(size, system.campaign.size_limit_bytes), f"packed model: {model}"]))


def forecast(args: argparse.Namespace) -> None:
    """Print what a system's model will weigh, to the byte, from shapes alone."""
    from quantize.table import forecast_record, forecast_table
    from submission.architectures import read_config
    from submission.digest import canonical_json
    from submission.errors import UserError
    from submission.forecast import companion_files
    from submission.forecast import forecast as forecast_bytes
    from submission.plan import expected_model

    system, _ = open_system(args)
    limit = system.campaign.size_limit_bytes
    if args.checkpoint is None:
        cast = expected_model(system)
    else:
        cast = forecast_bytes(
            read_config(args.checkpoint),
            system.recipe.quantize.codecs,
            system.recipe.quantize.overrides,
            limit_bytes=limit,
            other_bytes=sum(path.stat().st_size for path in companion_files(args.checkpoint)),
        )
    if cast is None:
        what = f"no configuration of {system.campaign.model.name} is here"
        raise UserError(f"campaign {system.campaign.name}", what, "name a model folder with --checkpoint or --data")
    text = canonical_json(forecast_record(cast, limit)) if args.json else forecast_table(cast, limit) + "\n"
    print(text, end="")


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m quantize", description=__doc__)
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    one = verbs.add_parser("pack", help="quantize and pack the merged checkpoint", description=pack.__doc__)
    add_system_arguments(one)
    one.set_defaults(verb=pack)

    two = verbs.add_parser("forecast", help="the packed model's bytes by role", description=forecast.__doc__)
    add_system_arguments(two)
    two.add_argument(
        "--checkpoint", type=Path, metavar="DIR", help="a checkpoint's folder in place of the campaign's model"
    )
    two.add_argument("--json", action="store_true", help="print JSON in place of the table")
    two.set_defaults(verb=forecast)
    return parser


if __name__ == "__main__":
    sys.exit(run(make_parser()))
