"""`python -m segment`: cut recordings into segments; train and measure the classifier that does it."""

from __future__ import annotations

import argparse
import functools
import sys
from pathlib import Path

from submission.cli import add_system_arguments, open_system, run
from submission.digest import canonical_json
from submission.errors import UserError


def segment_testsets(args: argparse.Namespace) -> None:
    """Build the stages segment:<NAME> of a system: free test sets are cut, given segments made regular."""
    system, store = open_system(args)
    names = [testset.name for testset in system.campaign.testsets]
    if unknown := set(args.testset) - set(names):
        raise UserError("--testset", f"unknown {sorted(unknown)}", f"choose from {', '.join(names)}")
    options, window_seconds = system.recipe.segment, system.campaign.model.window_seconds
    data = system.data_path(store)

    @functools.cache
    def method():
        from segment.methods import METHODS

        return METHODS[options.method](options, data / "models" / "shas")

    def make(out: Path, name: str, segmentation: str) -> None:
        from segment.segmentation import normalise_given, segment_freely

        folder = data / system.testset_part(name)
        if segmentation == "given":
            normalise_given(folder, window_seconds, out)
        else:
            segment_freely(folder, method(), f"segment:{name}", out)

    for testset in system.campaign.testsets:
        if testset.name in args.testset or not args.testset:
            stage = system.stage("segment", testset.name)
            store.obtain(stage, functools.partial(make, name=testset.name, segmentation=testset.segmentation))


def train(args: argparse.Namespace) -> None:
    """Train a classifier and print its held-out figures."""
    from segment.corpus import read_labelled
    from segment.training import TrainingOptions, train_classifier

    options = TrainingOptions(
        **{
            name: getattr(args, name)
            for name in ("config", "steps", "batch_size", "learning_rate", "seed", "heldout_every", "dtype")
        }
    )
    report = train_classifier(read_labelled(args.corpus, args.audio_root), options, args.out)
    print(canonical_json({"parameters": report["parameters"], **report["heldout"]["all"]}), end="")


def measure(args: argparse.Namespace) -> None:
    """Print a classifier's frame figures on labelled recordings."""
    from segment.classifier import load_classifier
    from segment.corpus import read_labelled
    from segment.training import measure as measure_classifier

    classifier = load_classifier(args.classifier)
    print(canonical_json(measure_classifier(classifier, read_labelled(args.corpus, args.audio_root))), end="")


def _add_corpus(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--corpus",
        type=Path,
        required=True,
        metavar="FILE",
        help="where the utterances lie: corpus.jsonl, a plain corpus's utterances.tsv, or segments.yaml",
    )
    parser.add_argument(
        "--audio-root", type=Path, required=True, metavar="DIR", help="what the corpus's audio paths are relative to"
    )


def main() -> int:
    """Parse the command line and run a verb."""
    parser = argparse.ArgumentParser(prog="python -m segment", description=__doc__)
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    verb = verbs.add_parser("run", help="segment every test set of a campaign", description=segment_testsets.__doc__)
    verb.set_defaults(verb=segment_testsets)
    add_system_arguments(verb)
    verb.add_argument(
        "--testset", action="append", default=[], metavar="NAME", help="only this one (may be repeated; default: all)"
    )

    verb = verbs.add_parser("train", help="train a classifier on long recordings", description=train.__doc__)
    verb.set_defaults(verb=train)
    _add_corpus(verb)
    verb.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the classifier goes")
    verb.add_argument("--config", default="tiny", help="size, a name in segment/classifier.py (default: %(default)s)")
    verb.add_argument("--steps", type=int, default=400, help="optimizer steps (default: %(default)s)")
    verb.add_argument("--batch-size", type=int, default=8, help="windows of 20 s per step (default: %(default)s)")
    verb.add_argument("--learning-rate", type=float, default=2e-3, help="peak (default: %(default)s)")
    verb.add_argument("--seed", type=int, default=42, help="weights, order, dropout (default: %(default)s)")
    verb.add_argument(
        "--heldout-every", type=int, default=8, help="every n-th recording is only measured (default: %(default)s)"
    )
    verb.add_argument("--dtype", choices=("float32", "float16"), default="float32", help="of the saved weights")

    verb = verbs.add_parser("measure", help="a classifier's F1 on labelled recordings", description=measure.__doc__)
    verb.set_defaults(verb=measure)
    verb.add_argument("--classifier", type=Path, required=True, metavar="DIR", help="folder with the classifier")
    _add_corpus(verb)
    return run(parser)


if __name__ == "__main__":
    sys.exit(main())
