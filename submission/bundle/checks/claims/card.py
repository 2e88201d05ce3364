"""CARD: whether the model card is there, and is the one that the artifacts give."""

from __future__ import annotations

from collections.abc import Iterator

from submission.bundle.checks.claims.scores import readable_records
from submission.bundle.checks.finding import Fault
from submission.bundle.model_card import MODEL_CARD, render_model_card
from submission.bundle.untrusted.bundle_view import BundleView
from submission.bundle.untrusted.strict_json import Unreadable
from submission.model.forecast import CARD_BYTES

CARD = f"model/{MODEL_CARD}"


def missing_card(view: BundleView) -> Iterator[Fault]:
    """Write the bundle again with `python -m submission bundle`, which adds the card that a published model has."""
    if CARD not in view.files and view.under("model"):
        yield CARD, "is missing"


def other_card(view: BundleView) -> Iterator[Fault]:
    """Write the bundle again, which derives the whole card: nobody can say there what the artifacts do not."""
    if CARD not in view.files or view.facts is None or isinstance(view.recipe, Unreadable):
        return  # reported as CARD02, CFG01 and REC01
    scores = [record for key, record in readable_records(view) if key == "scores"]
    expected = render_model_card(view.facts, view.campaign, view.recipe, scores)
    try:
        if view.read(CARD, CARD_BYTES) != expected.encode("utf-8"):
            yield CARD, "is not the card that the artifacts give"
    except Unreadable as error:
        yield CARD, str(error)
