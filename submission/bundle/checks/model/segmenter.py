"""SEG: whether the bundle holds the segmentation classifier that new recordings would need."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from submission.bundle.checks.finding import Fault
from submission.bundle.checks.model.remote_code import remote_references
from submission.bundle.manifest import SEGMENTER, SEGMENTER_FILES
from submission.bundle.untrusted.bundle_view import MOST_FAULTS, BundleView
from submission.bundle.untrusted.classifier_tensors import CLASSIFIER, classifier_tensors
from submission.bundle.untrusted.folder import MOST_JSON_BYTES
from submission.bundle.untrusted.strict_json import Unreadable
from submission.bundle.untrusted.tensor_header import read_header
from submission.model.safetensors_header import METADATA, BadHeader
from submission.system.data_folder import needs_classifier
from submission.text.characters import printable

CONFIG, WEIGHTS = (f"{SEGMENTER}/{name}" for name in SEGMENTER_FILES)
MOST_SHOWN = 5
DTYPES = frozenset({"F32", "F16", "BF16"})


def missing_segmenter(view: BundleView) -> Iterator[Fault]:
    """Write the bundle again: `segmenter/` holds the classifier where the recipe's method needs it, and only there."""
    if isinstance(view.recipe, Unreadable):
        return  # reported as REC01
    needed, held = needs_classifier(view.campaign, view.recipe), view.under(SEGMENTER)
    method = view.recipe.segment.method
    if needed:
        for path in (CONFIG, WEIGHTS):
            if path not in view.files:
                yield path, f"is missing, and the recipe's segmentation method '{method}' needs it"
    elif held:
        yield SEGMENTER, f"is there, and the recipe's segmentation method '{method}' needs no classifier"


def bad_configuration(view: BundleView) -> Iterator[Fault]:
    """Copy the classifier's own `config.json` there, as `python -m segment convert` or `train` wrote it."""
    if CONFIG not in view.files:
        return  # reported as SEG01
    try:
        table = view.table(CONFIG)
    except Unreadable as error:
        yield CONFIG, str(error)
        return
    faults = list(itertools.islice(CLASSIFIER(table, ""), MOST_FAULTS))
    for fault in faults:
        yield CONFIG, fault
    if not faults:
        try:
            classifier_tensors(table)
        except ValueError as error:
            yield CONFIG, str(error)
    for found in remote_references(table):
        yield CONFIG, found


def bad_weights(view: BundleView) -> Iterator[Fault]:
    """Copy the classifier's `model.safetensors` again: it must hold exactly the tensors that `segmenter/config.json`
    implies, as floats.
    """
    if WEIGHTS not in view.files:
        return  # reported as SEG01
    try:
        header = read_header(view, WEIGHTS, MOST_JSON_BYTES)
    except BadHeader as error:
        yield WEIGHTS, str(error)
        return
    if header.metadata not in ({}, METADATA):
        yield WEIGHTS, f"header: __metadata__: expected {METADATA} or none, got {printable(repr(header.metadata)[:80])}"
    expected = _expected(view)
    held = {name: info.shape for name, info in header.tensors.items()}
    wrong = sorted(name for name in expected.keys() | held.keys() if expected.get(name) != held.get(name))
    for name in wrong[:MOST_SHOWN] if expected else ():
        want, got = (str(list(s[name])) if name in s else "none" for s in (expected, held))
        yield WEIGHTS, f"'{printable(name)}': expected {want}, got {got}"
    if len(wrong) > MOST_SHOWN and expected:
        yield WEIGHTS, f"{len(wrong) - MOST_SHOWN} more tensors are not as the configuration implies"
    other = sorted(name for name, info in header.tensors.items() if info.dtype not in DTYPES)
    if other:
        yield WEIGHTS, f"'{printable(other[0])}' is {header.tensors[other[0]].dtype}, and a classifier has floats only"


def _expected(view: BundleView) -> dict[str, tuple[int, ...]]:
    """Return the tensors that the classifier's configuration implies; none where it is not valid, which SEG02 says."""
    try:
        table = view.table(CONFIG)
        return {} if any(CLASSIFIER(table, "")) else classifier_tensors(table)
    except (Unreadable, ValueError):
        return {}
