"""Segment recordings and plot them; train, convert and measure the classifier."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from submission.cli import add_system_arguments, add_verb, add_verbs, open_system, run
from submission.errors import UserError
from submission.store.digests import canonical_json

if TYPE_CHECKING:
    from segment.probabilities.speech_probabilities import Detectors
    from segment.stages import SharedDetectors
    from submission.store.store import Stage, Store
    from submission.system.campaign import TestSet
    from submission.system.system import System


def segment_testsets(args: argparse.Namespace) -> None:
    """Segment the test sets of a campaign, and check segments that organisers give.

    Builds the stages segment:<NAME> of a system. Prints for each recording how much of the detected speech its segments
    cover. A test set that cannot be segmented does not stop the others. Started by `torchrun` or `accelerate launch`,
    processes share the recordings.
    """
    from segment import stages
    from segment.segmentation_report import combined_error, coverage_lines, order_lines, read_report
    from submission.store.launch import launched

    system, store = open_system(args)
    testsets = _chosen(system, args.testset)
    system.data_path(store)
    wanted = [system.stage("segment", testset.name) for testset in testsets]
    detectors = stages.shared_detectors(wanted, system.recipe.segment.batch_size)
    launch = launched()
    if launch.processes > 1:
        from segment.probabilities.speech_probabilities import ProbabilityCache
        from segment.segmentation import detect_share

        left = [stage for stage in wanted if store.record(stage) is None]
        shares = [(stages.parts_of_stage(stage, store), _detectors_of(stage, store, detectors)) for stage in left]
        detect_share(shares, ProbabilityCache(folder=stages.probabilities_folder(store)), launch)
        if launch.rank > 0:
            return
    errors = []
    for stage in wanted:
        try:
            built = stages.segmented(stage, store, detectors, allow_missing=args.allow_missing)
        except UserError as error:
            errors.append(error)
            continue
        report = read_report(built)
        print(
            f"{stage.id} ({report.get('method', 'given')})",
            *coverage_lines(report),
            *order_lines(report),
            sep="\n",
            flush=True,
        )
    if errors:
        raise combined_error(errors, "segment run", f"{len(errors)} of {len(testsets)} test sets cannot be segmented")


def _detectors_of(stage: Stage, store: Store, shared: SharedDetectors) -> Detectors:
    return shared(stage.options, {name: store.locate(source) for name, source in stage.inputs.items()})


def _chosen(system: System, names: list[str]) -> list[TestSet]:
    """Return the test sets of these names, all where none is given; UserError for unknown ones."""
    known = {testset.name: testset for testset in system.campaign.testsets}
    if unknown := set(names) - known.keys():
        raise UserError("--testset", f"unknown {sorted(unknown)}", f"choose from {', '.join(known)}")
    return [testset for name, testset in known.items() if name in names or not names]


def train(args: argparse.Namespace) -> None:
    """Train a classifier on long recordings and print its figures on held-out ones."""
    from segment.classifier.training import TrainingOptions, train_classifier
    from segment.classifier.training_data import read_labelled

    options = TrainingOptions(
        **{
            name: getattr(args, name)
            for name in ("config", "steps", "batch_size", "learning_rate", "seed", "heldout_every", "dtype")
        }
    )
    report = train_classifier(read_labelled(args.corpus, args.audio_root), options, args.out)
    print(canonical_json({"parameters": report["parameters"], **report["heldout"]["all"]}), end="")


def measure(args: argparse.Namespace) -> None:
    """Measure a classifier on labelled recordings: precision, recall and F1 of frames."""
    from segment.classifier.model import load_classifier
    from segment.classifier.training import measure as measure_classifier
    from segment.classifier.training_data import read_labelled

    classifier = load_classifier(args.classifier)
    print(canonical_json(measure_classifier(classifier, read_labelled(args.corpus, args.audio_root))), end="")


def convert(args: argparse.Namespace) -> None:
    """Convert a published SHAS checkpoint, and the wav2vec 2.0 model that it was trained on, into a classifier folder.

    Only tensors and settings are unpickled; a file that names anything else is refused. Prints its size.
    """
    import torch

    from segment.classifier.convert import convert as convert_checkpoint

    classifier = convert_checkpoint(args.checkpoint, args.wav2vec2, args.out, getattr(torch, args.dtype))
    made = {
        "classifier": str(args.out),
        "parameters": sum(p.numel() for p in classifier.parameters()),
        "encoder_layers": classifier.wav2vec2.config.num_hidden_layers,
        "head_layers": classifier.head_options.layers,
    }
    print(canonical_json(made), end="")


def plot(args: argparse.Namespace) -> None:
    """Plot recordings of a segmented test set: loudness, probabilities, segments, and dropped speech.

    Writes <recording>.svg and <recording>.png, and prints their paths.
    """
    system, store = open_system(args)
    (testset,) = _chosen(system, [args.testset])
    stage = system.stage("segment", testset.name)
    built = store.read(stage)
    from segment import stages
    from segment.plotting import RecordingPlot, write_plot
    from segment.probabilities.speech_probabilities import ProbabilityCache, detect_speech
    from segment.recording_parts import RecordingPart
    from segment.segmentation import SEGMENTS
    from segment.testset import read_testset
    from submission.runtime.audio import read_slice
    from submission.text.segments import read_segments

    segments = read_segments(built / SEGMENTS)
    system.data_path(store)
    recordings = {r.name: r for r in read_testset(store.locate(stage.inputs["audio"])).recordings}
    if unknown := set(args.recording) - recordings.keys():
        raise UserError("--recording", f"unknown {sorted(unknown)}", f"choose from {', '.join(recordings)}")
    args.out.mkdir(parents=True, exist_ok=True)
    chosen = [
        RecordingPart(recording=recording)
        for name, recording in recordings.items()
        if name in args.recording or not args.recording
    ]
    shared = stages.shared_detectors([stage], system.recipe.segment.batch_size)
    detectors = _detectors_of(stage, store, shared)
    cache = ProbabilityCache(folder=stages.probabilities_folder(store))
    for part, probabilities in detect_speech(chosen, detectors, cache):
        if isinstance(probabilities, UserError):
            raise probabilities
        recording = part.recording
        recording_plot = RecordingPlot(
            title=f"{recording.name}, {stage.options.get('method', 'given')}",
            probabilities=probabilities,
            segments=[(s.start, s.end) for s in segments if s.recording == recording.name],
            read=partial(read_slice, recording.path),
        )
        print(*write_plot(recording_plot, args.out / recording.name.replace("/", "-")), sep="\n", flush=True)


def _add_run(verb: argparse.ArgumentParser) -> None:
    add_system_arguments(verb)
    only = "only this test set; repeatable (default: all)"
    verb.add_argument("--testset", action="append", default=[], metavar="NAME", help=only)
    missing = "leave out recordings that FILE_ORDER names and that are not there"
    verb.add_argument("--allow-missing", action="store_true", help=missing)


def _add_plot(verb: argparse.ArgumentParser) -> None:
    add_system_arguments(verb)
    verb.add_argument("--testset", required=True, metavar="NAME", help="whose recordings to plot")
    only = "only this recording; repeatable (default: all)"
    verb.add_argument("--recording", action="append", default=[], metavar="FILE", help=only)
    verb.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the plots are written")


def _add_convert(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="the pickle that SHAS publishes")
    _add_classifier_output(verb)
    encoder = "wav2vec 2.0 model, a folder or a name on the hub (default: the one that the checkpoint names)"
    verb.add_argument("--wav2vec2", metavar="DIR", help=encoder)


def _add_train(verb: argparse.ArgumentParser) -> None:
    _add_corpus(verb)
    _add_classifier_output(verb)
    size = "size, one of segment/classifier/model.py (default: %(default)s)"
    verb.add_argument("--config", default="tiny", metavar="NAME", help=size)
    verb.add_argument("--steps", type=int, default=400, metavar="N", help="optimizer steps (default: %(default)s)")
    batch = "windows of 20 s per step (default: %(default)s)"
    verb.add_argument("--batch-size", type=int, default=8, metavar="N", help=batch)
    rate = "highest learning rate (default: %(default)s)"
    verb.add_argument("--learning-rate", type=float, default=2e-3, metavar="X", help=rate)
    seed = "of weights, order and dropout (default: %(default)s)"
    verb.add_argument("--seed", type=int, default=42, metavar="N", help=seed)
    every = "keep every N-th recording for measuring (default: %(default)s)"
    verb.add_argument("--heldout-every", type=int, default=8, metavar="N", help=every)


def _add_measure(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--classifier", type=Path, required=True, metavar="DIR", help="folder with the classifier")
    _add_corpus(verb)


def _add_corpus(verb: argparse.ArgumentParser) -> None:
    utterances = "utterances: corpus.jsonl, a plain corpus's utterances.tsv, or segments.yaml"
    verb.add_argument("--corpus", type=Path, required=True, metavar="FILE", help=utterances)
    root = "what the corpus's audio paths are relative to"
    verb.add_argument("--audio-root", type=Path, required=True, metavar="DIR", help=root)


def _add_classifier_output(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the classifier is written")
    dtype = "of the saved weights (default: %(default)s)"
    verb.add_argument("--dtype", choices=("float32", "float16"), default="float32", help=dtype)


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line; the namespace's `verb` is the function to call."""
    parser = argparse.ArgumentParser(prog="python -m segment", description=__doc__)
    verbs = add_verbs(parser)
    _add_run(add_verb(verbs, segment_testsets, "run"))
    _add_plot(add_verb(verbs, plot))
    _add_convert(add_verb(verbs, convert))
    _add_train(add_verb(verbs, train))
    _add_measure(add_verb(verbs, measure))
    return parser


if __name__ == "__main__":
    sys.exit(run(make_parser()))
