"""DES, NAME, DATA: whether the descriptions for the evaluation server are complete and follow from the bundle."""

from __future__ import annotations

import re
from collections.abc import Iterator

from submission.bundle.checks.finding import Fault
from submission.bundle.description import (
    MANDATORY,
    MODEL_NAME,
    description_fields,
    model_name,
    parse_description,
    render_description,
)
from submission.bundle.manifest import NAME
from submission.bundle.untrusted.bundle_view import BundleView
from submission.bundle.untrusted.strict_json import Unreadable
from submission.system.data_folder import DEV_FOLDER
from submission.text.characters import printable

MOST_BYTES = 64 << 10
Fields = dict[str, tuple[str, ...]]
"""Label -> values."""


def missing_description(view: BundleView) -> Iterator[Fault]:
    """Write the bundle again with `python -m submission bundle`, which derives a description for every pair."""
    for pair in view.campaign.pairs:
        try:
            _fields(view, pair.name)
        except Unreadable as error:
            yield _path(pair.name), str(error)


def missing_field(view: BundleView) -> Iterator[Fault]:
    """Write the field: the evaluation server requires name, exact size, parameters, techniques and data sets."""
    for pair, fields in _descriptions(view):
        for label in MANDATORY:
            if not fields.get(label):
                yield _path(pair), f"has no field '{label}'"


def wrong_field(view: BundleView) -> Iterator[Fault]:
    """Take the value that the artifacts give, or write the bundle again, which derives them all."""
    for pair, fields, expected in _derived(view):
        for label, values in expected.items():
            if fields.get(label) and fields[label] != values and label != MODEL_NAME:
                got = printable("; ".join(fields[label]), 200)
                wanted = printable(repr("; ".join(values)), 1_000)
                yield _path(pair), f"{label}: expected {wanted}, got '{got}'"


def other_description(view: BundleView) -> Iterator[Fault]:
    """Write the bundle again, which derives the whole text: a field written twice, or text beside the fields, could say
    something else than they do.
    """
    for pair, fields, expected in _derived(view):
        missing = any(not fields.get(label) for label in MANDATORY)
        wrong = any(fields.get(label) and fields[label] != values for label, values in expected.items())
        if missing or wrong:
            continue  # reported as DES02, DES03 or NAME01
        if read_description(view, pair) != render_description(expected):
            yield _path(pair), "holds other text than the fields that the artifacts give, or spells them otherwise"


def wrong_model_name(view: BundleView) -> Iterator[Fault]:
    """Name the model by the campaign's rule, with the team, condition and kind that the recipe gives."""
    for pair, fields in _descriptions(view):
        got = " ".join(fields.get(MODEL_NAME, ()))
        if not got:
            continue  # reported as DES02
        if not re.fullmatch(_name_pattern(view, pair), got):
            yield _path(pair), f"'{printable(got)}' is not of the form {view.campaign.naming}"
        elif not isinstance(view.recipe, Unreadable):
            expected = model_name(view.campaign, view.recipe, pair)
            if got != expected:
                yield _path(pair), f"expected {printable(expected)}, got {printable(got)}"


def constrained_data(view: BundleView) -> Iterator[Fault]:
    """Enter the system as unconstrained, or train it on ACL 60/60 only: by the format of each source, and by the
    corpora among the inputs that the manifest lists.
    """
    if isinstance(view.recipe, Unreadable) or view.recipe.upload.condition != "constrained":
        return
    sources = view.recipe.corpus.sources
    other = sorted(source.name for source in sources if not source.is_acl6060)
    if other:
        yield "recipe.json", f"the condition is constrained and the data sets are {', '.join(map(printable, other))}"
    read = {source.part for source in sources}
    for part in sorted(view.manifest_inputs):
        if part.startswith("corpora/") and part not in read:
            yield NAME, f"inputs: the condition is constrained, and '{printable(part)}' is no source of the recipe"
    # Where parts of a data folder are listed at all, each source is one of them.
    if DEV_FOLDER in view.manifest_inputs:
        for part in sorted(read - view.manifest_inputs.keys()):
            yield NAME, f"inputs: '{printable(part)}' is a source of the recipe and not among them"


def _name_pattern(view: BundleView, pair: str) -> str:
    """Return the campaign's naming as a regular expression: letters, digits and '-' for the team."""
    fields = {
        "{team}": "[A-Za-z0-9-]+",
        "{pair}": re.escape(pair),
        "{condition}": "(?:constrained|unconstrained)",
        "{kind}": "(?:primary|contrastive)",
    }
    parts = re.split(r"(\{\w+\})", view.campaign.naming)
    return "".join(fields.get(part, re.escape(part)) for part in parts)


def _derived(view: BundleView) -> Iterator[tuple[str, Fields, Fields]]:
    """Yield (pair, fields of its description, fields that the artifacts give), where both are known."""
    if view.facts is None or isinstance(view.recipe, Unreadable) or isinstance(view.efficiency, Unreadable):
        return  # reported as CFG01, REC01 and EFF01
    for pair, fields in _descriptions(view):
        yield pair, fields, description_fields(view.facts, view.campaign, view.recipe, pair, view.efficiency)


def _path(pair: str) -> str:
    return f"description/{pair}.txt"


def _fields(view: BundleView, pair: str) -> Fields:
    return parse_description(read_description(view, pair))


def read_description(view: BundleView, pair: str) -> str:
    """Return the text of a pair's description; Unreadable where it is missing or not UTF-8."""
    data = view.read(_path(pair), MOST_BYTES)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Unreadable(f"is not UTF-8 ({error.reason} at byte {error.start:,})") from None


def _descriptions(view: BundleView) -> Iterator[tuple[str, Fields]]:
    for pair in view.campaign.pairs:
        try:
            yield pair.name, _fields(view, pair.name)
        except Unreadable:
            continue  # reported as DES01
