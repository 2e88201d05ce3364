"""CFG07, TOK: whether the files beside the weights are those of the base model.

They decide what a model reads and writes no less than its weights do. The family describes what each may hold; where
the base model is at hand (the miniature's ships, an organiser names a folder), they are compared with its own.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from submission.bundle.checks.finding import Fault
from submission.bundle.untrusted.bundle_view import CONFIG, MOST_FAULTS, BundleView
from submission.bundle.untrusted.strict_json import Unreadable
from submission.model.families.json_shape import shown
from submission.text.characters import printable

VERSION_KEY = "transformers_version"
"""Of the library that wrote a file; it changes nothing."""


def unknown_setting(view: BundleView) -> Iterator[Fault]:
    """Pack the campaign's base model again with `quantize`: apart from sizes and codecs, `config.json` is the base
    model's, with known keys and values within their ranges.
    """
    if isinstance(view.config, Unreadable) or view.config.get("model_type") != view.family.name:
        return  # reported as CFG01
    for fault in view.config_faults:
        yield CONFIG, fault
    if not view.config_faults and view.base_settings is not None:
        for key, base, got in _differing(view.base_settings, view.family.settings(view.config)):
            yield CONFIG, f"{key}: the base model {view.campaign.model.name} has {base}, this model {got}"


def missing_companion(view: BundleView) -> Iterator[Fault]:
    """Copy it from the base model: without it the model cannot be run."""
    for name, file in view.family.files.items():
        if file.required and f"model/{name}" not in view.files:
            yield f"model/{name}", "is missing, and running the model needs it"


def foreign_companion(view: BundleView) -> Iterator[Fault]:
    """Copy the file from the base model: it holds rules, keys or values that no model of the family has, and loading it
    would run them.
    """
    good: dict[str, Any] = {}
    for name, value in view.model_files.items():
        shape = view.family.files[name].shape
        if isinstance(value, Unreadable) or shape is None:
            continue  # reported as CFG03
        faults = list(itertools.islice(shape(value, ""), MOST_FAULTS))
        for fault in faults:
            yield f"model/{name}", fault.removeprefix(": ")
        if not faults:
            good[name] = value
    if isinstance(view.config, Unreadable) or view.config_faults or len(good) < len(view.model_files):
        return  # what they say is not known
    if view.sizes is not None:
        for name, what in view.family.disagreements(view.config, good):
            yield f"model/{name}", printable(what, 200)


def other_than_base(view: BundleView) -> Iterator[Fault]:
    """Copy the file from the base model, unchanged: no recipe of this program changes the tokenizer, the features or
    the generation of the model that it compresses.
    """
    if view.base is None or view.base_files is None:
        return  # the head of the report says so
    for name, value in view.model_files.items():
        if isinstance(value, Unreadable):
            continue  # reported as CFG03
        base = view.base_files.get(name)
        if base is None or isinstance(base, Unreadable):
            yield f"model/{name}", "the base model has no such file"
        elif _plain(value) != _plain(base):
            keys = ", ".join(key for key, *_ in itertools.islice(_differing(base, value), 3))
            yield f"model/{name}", f"differs from the base model's{f' in {printable(keys)}' if keys else ''}"
    for name, file in view.family.files.items():
        path = f"model/{name}"
        if file.shape is None and path in view.files and _text(view, path) != _base_text(view, name):
            yield path, "differs from the base model's"


def _plain(value: Any) -> Any:
    return {k: v for k, v in value.items() if k != VERSION_KEY} if isinstance(value, dict) else value


def _differing(base: Any, value: Any) -> Iterator[tuple[str, str, str]]:
    """Yield (key, the base model's value, this one) for each key by which two tables differ."""
    if not isinstance(base, dict) or not isinstance(value, dict):
        return
    for key in sorted((base.keys() | value.keys()) - {VERSION_KEY}):
        if base.get(key) != value.get(key):
            yield key, shown(base.get(key)), shown(value.get(key))


def _text(view: BundleView, path: str) -> bytes:
    try:
        return view.read(path, view.family.files[path.removeprefix("model/")].most_bytes)
    except Unreadable:
        return b""


def _base_text(view: BundleView, name: str) -> bytes:
    assert view.base is not None  # asked before
    try:
        return view.base.read(name, view.family.files[name].most_bytes)
    except Unreadable:
        return b""
