"""Train the miniature's base model, and write its data folder."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from submission.cli import add_system_arguments, add_verb, add_verbs, open_system, run
from submission.errors import UserError
from submission.miniature import stages
from submission.system.data_folder import shipped_models
from submission.system.stage_chain import DATA_SEED


def forge(args: argparse.Namespace) -> None:
    """Train the base model from random weights and print its scores on held-out sentences."""
    from submission.miniature.forge import Training, shape_named
    from submission.miniature.forge import forge as forge_model
    from submission.store.digests import canonical_json

    given = {name: getattr(args, name) for name in ("steps", "recordings", "batch_size", "workers", "seed")}
    training = Training(**{name: value for name, value in given.items() if value is not None})
    command = shlex.join(["python", "-m", "submission.miniature", *args.typed])
    report = forge_model(
        args.out, shape_named(args.shape), training, evaluation_sentences=args.evaluation_sentences, command=command
    )
    print(canonical_json(report["scores"]), end="")


def data(args: argparse.Namespace) -> None:
    """Write the data folder and print its path; where a campaign's data is given, only check that it is complete."""
    system, store = open_system(args)
    if args.out is not None:
        if args.out.exists() and (not args.out.is_dir() or any(args.out.iterdir())):
            raise UserError(f"--out {args.out}", "is not an empty folder", "name a new one")
        args.out.mkdir(parents=True, exist_ok=True)
        options = {"model": system.campaign.model.name, "seed": args.seed}
        stages.data(options, {} if args.without_models else shipped_models(system.campaign), args.out)
        print(args.out)
    elif not system.makes_data:
        print(system.data_path(store))
    elif args.without_models or args.seed != DATA_SEED:
        raise UserError("data", "--seed and --without-models need --out", "name a folder with --out DIR")
    else:
        print(store.build(system.stage("data"), stages.data))


def _add_forge(verb: argparse.ArgumentParser) -> None:
    verb.set_defaults(typed=sys.argv[1:])
    verb.add_argument("--out", type=Path, required=True, metavar="DIR", help="new folder for the checkpoint")
    shape = "model shape, of submission/miniature/forge.py; an unknown name lists them (default: %(default)s)"
    verb.add_argument("--shape", default="miniature", metavar="NAME", help=shape)
    steps = "optimizer steps of both phases; the shipped weights took 2200"
    verb.add_argument("--steps", type=int, required=True, metavar="N", help=steps)
    verb.add_argument("--recordings", type=int, metavar="N", help="different recordings to train on")
    verb.add_argument("--batch-size", type=int, metavar="N", help="recordings per step")
    verb.add_argument("--workers", type=int, metavar="N", help="processes, each with one thread")
    verb.add_argument("--seed", type=int, metavar="N", help="seed of weights, sentences, voices and order")
    sentences = "held-out sentences to score per evaluation set; 0 skips the evaluation (default: %(default)s)"
    verb.add_argument("--evaluation-sentences", type=int, default=50, metavar="N", help=sentences)


def _add_data(verb: argparse.ArgumentParser) -> None:
    add_system_arguments(verb)
    verb.add_argument("--out", type=Path, metavar="DIR", help="write it here (default: a stage in the store)")
    seed = "of all sentences and recordings (default: %(default)s)"
    verb.add_argument("--seed", type=int, default=DATA_SEED, metavar="N", help=seed)
    without = "write no models/, whose shipped files need not exist then"
    verb.add_argument("--without-models", action="store_true", help=without)


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line; the namespace's `verb` is the function to call."""
    parser = argparse.ArgumentParser(prog="python -m submission.miniature", description=__doc__)
    verbs = add_verbs(parser)
    _add_forge(add_verb(verbs, forge))
    _add_data(add_verb(verbs, data))
    return parser


if __name__ == "__main__":
    sys.exit(run(make_parser()))
