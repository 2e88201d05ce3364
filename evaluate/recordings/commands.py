"""The verbs `translate`, `rerun` and `compare`, which need no system of the store."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING

from evaluate.scoring.unicode_form import FORMS, UnicodeForm
from submission.cli import add_verb
from submission.errors import UserError
from submission.store.digests import canonical_json
from submission.system.campaign import read_campaign
from submission.system.recipe.recipe_files import read_recipe
from submission.system.registry import SEGMENTATION_METHODS
from submission.system.system import System
from submission.text.characters import printable_lines

if TYPE_CHECKING:
    from submission.cli import Verbs


def translate(args: argparse.Namespace) -> None:
    """Translate any folder of recordings with a packed model or a checkpoint.

    A killed run resumes. Segments come from --segments, else from --method, else from a YAML among the recordings, else
    from the recipe's method. Campaign and recipe define prompt, segmentation and decoding options. Started by
    `torchrun` or `accelerate launch`, every process decodes its share.
    """
    from evaluate.recordings.recording_folder import check_separate, how_to_segment
    from evaluate.recordings.translate import DecodingSetup, check_model, find_pair, translation_text
    from evaluate.recordings.translate import translate as translate_folder
    from segment.testset import read_folder
    from submission.store.digests import tree_digest

    campaign = read_campaign(args.campaign)
    system = System(campaign, read_recipe(args.recipe, campaign.name), None, Path())  # refuses contradictions
    pair = find_pair(campaign, args.pair)
    check_separate(args.audio, args.out)
    folder = read_folder(args.audio)
    segment_source = how_to_segment(
        system, args.audio, args.segments, args.method, args.classifier, args.channels or "mean", args.regions
    )
    segment_source.about()  # reports errors before the model is read
    check_model(args.model, campaign)
    decoding = DecodingSetup(
        model=args.model,
        sha256=tree_digest(args.model),
        campaign=campaign,
        pair=pair,
        options=system.recipe.decode,
        device=args.device,
    )
    translation = translate_folder(decoding, folder, segment_source, args.out, args.references, form=_form(args))
    if translation is not None:
        text = f"{translation_text(translation)}\n"
        print(canonical_json(translation.report) if args.json else printable_lines(text), end="")


def rerun(args: argparse.Namespace) -> int:
    """Translate recordings with a bundle alone, and compare with the outputs that it holds.

    The bundle is verified before, and one with errors is not decoded. Differences are reported and are not an error.
    Started by `torchrun` or `accelerate launch`, every process decodes its share. Exit status 0: done, 1: the bundle
    has errors, 2: the command failed.
    """
    from submission.bundle.checks import exit_status, findings_json, report, verdict, verify
    from submission.store.launch import launched

    findings = verify(args.bundle, args.campaign)
    if exit_status(findings):
        if launched().rank == 0:
            print(findings_json(findings) if args.json else report(args.bundle, args.campaign, findings), end="")
        return 1
    from evaluate.recordings.recording_folder import check_separate
    from evaluate.recordings.rerun import open_bundle, result_json, result_text
    from evaluate.recordings.rerun import rerun as decode_again
    from evaluate.recordings.translate import find_pair

    bundle = open_bundle(args.bundle, args.campaign)
    pair = find_pair(bundle.campaign, args.pair)
    check_separate(args.audio, args.out)
    check_separate(args.bundle, args.out)
    result = decode_again(
        bundle,
        pair,
        args.audio,
        args.out,
        segments=args.segments,
        testset=args.testset,
        resegment=args.resegment,
        channels=args.channels,
        device=args.device,
        references=args.references,
        form=_form(args),
        worst=args.worst,
    )
    if result is None:
        return 0
    if args.json:
        print(canonical_json(result_json(result)), end="")
    else:
        print(printable_lines(f"bundle: {args.bundle}, {verdict(findings)}\n{result_text(result)}"))
    return 0


def compare(args: argparse.Namespace) -> None:
    """Compare two outputs: identical lines, chrF of A against B, the largest differences.

    A and B are bundles, folders of a run, hypotheses.jsonl files, or text files of one line a segment. Where both
    segment the same recordings differently, whole recordings are compared. With --references both are also scored, and
    a paired bootstrap tests whether they differ significantly.
    """
    from evaluate.comparing.compare import compare_sides, sides_json, sides_text

    compared = compare_sides(
        args.a, args.b, args.segments, args.pair, args.testset, args.worst, args.references, _form(args)
    )
    print(sides_json(compared) if args.json else printable_lines(sides_text(compared)), end="")


def _form(args: argparse.Namespace) -> UnicodeForm:
    """Return the Unicode form to score in; UserError where nothing is scored."""
    if args.normalize and not args.references:
        raise UserError("--normalize", "is about scores, and no references are given", "add --references DIR")
    form: UnicodeForm = args.normalize
    return form


def add_folder_verbs(verbs: Verbs) -> None:
    """Add translate, rerun and compare to a command line."""
    _add_translate(verbs)
    _add_rerun(verbs)
    _add_compare(verbs)


def _add_translate(verbs: Verbs) -> None:
    verb = add_verb(verbs, translate)
    named = "name in submission/{}s/ or a TOML file (default: %(default)s)"
    verb.add_argument("--campaign", default="miniature", metavar="C", help=named.format("campaign"))
    verb.add_argument("--recipe", default="primary", metavar="R", help=named.format("recipe"))
    verb.add_argument("--model", type=Path, required=True, metavar="DIR", help="a packed model or a checkpoint")
    _add_folder(verb)
    methods = [name for name, method in SEGMENTATION_METHODS.items() if not method.from_references]
    classifying = [name for name, method in SEGMENTATION_METHODS.items() if method.needs_classifier]
    verb.add_argument("--method", choices=methods, help="how to segment the recordings")
    regions = "list of the stretches to translate, each segmented like a recording"
    verb.add_argument("--regions", type=Path, metavar="YAML", help=regions)
    help_text = f"folder of the classifier of {' and '.join(classifying)}"
    verb.add_argument("--classifier", type=Path, metavar="DIR", help=help_text)
    verb.add_argument("--json", action="store_true", help="print translation_report.json instead of text")


def _add_rerun(verbs: Verbs) -> None:
    verb = add_verb(verbs, rerun)
    verb.add_argument("--bundle", type=Path, required=True, metavar="DIR", help="the bundle's folder")
    verb.add_argument("--campaign", metavar="C", help="campaign to check against (default: the one that it names)")
    _add_folder(verb)
    verb.add_argument("--testset", metavar="T", help="the bundle's test set with these recordings")
    verb.add_argument("--resegment", action="store_true", help="segment the recordings even if the bundle has segments")
    _add_worst(verb)


def _add_compare(verbs: Verbs) -> None:
    verb = add_verb(verbs, compare)
    for name in ("a", "b"):
        verb.add_argument(name, type=Path, metavar=name.upper(), help="bundle, folder of a run, or file of outputs")
    verb.add_argument("--segments", type=Path, metavar="YAML", help="segments that the lines of text files translate")
    verb.add_argument("--pair", metavar="P", help="only this pair, en-de")
    verb.add_argument("--testset", metavar="T", help="only this test set")
    _add_references(verb)
    _add_worst(verb)


def _add_folder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--audio", type=Path, required=True, metavar="DIR", help="recordings, found at any depth")
    parser.add_argument("--segments", type=Path, metavar="YAML", help="list of wav, offset and duration")
    channels = "what is translated of several channels: their mean (default), the first, or each by itself"
    parser.add_argument("--channels", choices=("mean", "first", "each"), help=channels)
    parser.add_argument("--pair", required=True, metavar="P", help="language pair, such as en-de")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="output folder of this run")
    _add_references(parser)
    add_device(parser)


def _add_references(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--references",
        type=Path,
        metavar="DIR",
        help="folder of references: <pair>.txt beside segments.yaml, or <pair>.xml; for a bundle also a folder with "
        "one such folder for each test set",
    )
    normalize = "compare outputs and references in this Unicode form (default: as they are)"
    parser.add_argument("--normalize", choices=FORMS, default="", help=normalize)


def _add_worst(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--worst", type=int, default=5, metavar="N", help="differences to show (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add --device."""
    parser.add_argument(
        "--device",
        type=_present_device,
        default="auto",
        help="device of the model: auto, cpu, cuda, cuda:N or mps (default: cuda if available, else cpu)",
    )


def _present_device(name: str) -> str:
    """Return the name of a device that this machine has; argparse.ArgumentTypeError otherwise, before any work."""
    if name in ("auto", "cpu"):
        return name
    if not re.fullmatch(r"cuda(:\d+)?|mps", name):
        raise argparse.ArgumentTypeError(f"{name!r} is none: take auto, cpu, cuda, cuda:N or mps")
    import torch

    kind, _, number = name.partition(":")
    count = torch.cuda.device_count() if kind == "cuda" else int(torch.backends.mps.is_available())
    if int(number or 0) >= count:
        raise argparse.ArgumentTypeError(f"{name}: torch sees {count} such devices here; take cpu, or leave it out")
    return name
