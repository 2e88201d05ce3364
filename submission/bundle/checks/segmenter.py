"""SEG: whether the bundle holds the segmentation classifier that new recordings would need."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from submission.bundle.checks.finding import Fault
from submission.bundle.checks.remote_code import remote_references
from submission.bundle.manifest import SEGMENTER, SEGMENTER_FILES
from submission.bundle.untrusted.bundle_view import BundleView
from submission.bundle.untrusted.folder import MOST_JSON_BYTES
from submission.bundle.untrusted.strict_json import Unreadable
from submission.bundle.untrusted.tensor_header import read_header
from submission.model.safetensors_header import BadHeader
from submission.system.data_folder import needs_classifier
from submission.text.characters import printable

# What `segment.classifier.model` writes and reads; that package needs more than the standard library.
FORMAT = "segmentation-classifier"
VERSION = 1
CONFIG, WEIGHTS = (f"{SEGMENTER}/{name}" for name in SEGMENTER_FILES)
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
    expected: dict[str, Any] = {"format": FORMAT, "version": VERSION}
    for key, value in expected.items():
        if table.get(key) != value or type(table.get(key)) is not type(value):
            yield CONFIG, f"{key}: expected {value!r}, got {printable(repr(table.get(key))[:80])}"
    for key in ("wav2vec2", "head"):
        if not isinstance(table.get(key), dict):
            yield CONFIG, f"{key}: expected a table, got {printable(repr(table.get(key))[:80])}"
    for key in sorted(table.keys() - {"format", "version", "wav2vec2", "head"}):
        yield CONFIG, f"{printable(key)}: unknown key"
    for found in remote_references(table):
        yield CONFIG, found


def bad_weights(view: BundleView) -> Iterator[Fault]:
    """Copy the classifier's `model.safetensors` again; this is not a safetensors file, or not a complete one."""
    if WEIGHTS not in view.files:
        return  # reported as SEG01
    try:
        header = read_header(view, WEIGHTS, MOST_JSON_BYTES)
    except BadHeader as error:
        yield WEIGHTS, str(error)
        return
    if not header.tensors:
        yield WEIGHTS, "holds no tensor"
    other = sorted(name for name, info in header.tensors.items() if info.dtype not in DTYPES)
    if other:
        yield WEIGHTS, f"'{printable(other[0])}' is {header.tensors[other[0]].dtype}, and a classifier has floats only"
