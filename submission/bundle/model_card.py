"""The model card: README.md of the model folder in the hub's form, derived from the bundle.

It lies in the folder whose size it states, and that size is forecast before there are scores. So every card has the
same number of bytes, `CARD_BYTES`: a comment fills it up, and what does not fit is left to the bundle's other files.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from submission.bundle.description import Facts
from submission.model.forecast import CARD_BYTES
from submission.model.sizes import size_text
from submission.system.campaign import Campaign
from submission.system.recipe.recipe import Recipe
from submission.text.characters import printable

MODEL_CARD = "README.md"
METRICS = ("BLEU", "chrF", "TER", "COMET")
LARGEST_FIGURE = 1e6
LONGEST_NAME = 100
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_FILLER = "<!-- {} -->\n"
_LEFT_OUT = "- and more, which the bundle's manifest.json and scores.json list"

LOADING = """\
Weights are codes of the method `packed`, which transformers does not know: without the code that packed them loading
stops with an error. From the root of this project, or with `runtime/` of a package on Python's path:

    from submission.runtime.loading import load_for_inference
    model, processor = load_for_inference(Path("model"), "bfloat16")

`python -m quantize unpack BUNDLE OUT` writes the plain checkpoint that the codes stand for, for any other tool.
"""


def render_model_card(facts: Facts, campaign: Campaign, recipe: Recipe, scores: Any) -> str:
    """Return the card, CARD_BYTES in UTF-8; scores: the records of scores.json, of which only good ones are shown."""
    head = f"{_front_matter(campaign)}\n{_introduction(facts, campaign, recipe)}"
    text = head
    lines = list(_details(facts, campaign, scores))
    for number, line in enumerate(lines):
        last = number == len(lines) - 1
        reserved = 0 if last else len(_LEFT_OUT) + 1
        if len(f"{text}{line}\n{_FILLER.format('')}".encode()) + reserved > CARD_BYTES:
            text += f"{_LEFT_OUT}\n"
            break
        text += f"{line}\n"
    room = CARD_BYTES - len(f"{text}{_FILLER.format('')}".encode())
    assert room >= 0, "head and loading are far shorter than a card"
    return text + _FILLER.format("." * room)


def _front_matter(campaign: Campaign) -> str:
    """Return the YAML that the hub reads; the licence is the base model's, to which it links."""
    hub = campaign.model.hub if _HUB_NAME.fullmatch(campaign.model.hub) else ""
    languages = dict.fromkeys(language for pair in campaign.pairs for language in (pair.source, pair.target))
    based = ["license: other", "license_name: of-the-base-model", f"license_link: https://huggingface.co/{hub}"]
    lines = [
        "---",
        *([f"base_model: {hub}", "base_model_relation: quantized", *based] if hub else ["license: apache-2.0"]),
        "language:",
        *(f"- {language}" for language in languages),
        "library_name: transformers",
        "pipeline_tag: audio-text-to-text",
        "tags:",
        "- speech-translation",
        "---",
    ]
    return "\n".join(lines) + "\n"


def _introduction(facts: Facts, campaign: Campaign, recipe: Recipe) -> str:
    pairs = ", ".join(pair.name for pair in campaign.pairs)
    return (
        f"# {_plain(campaign.name)}-{_plain(recipe.name, LONGEST_NAME)}\n\n"
        f"Speech translation ({pairs}) with {_plain(campaign.model.name)}, compressed for "
        f"{_plain(campaign.edition)}.\n\n"
        f"- size: {size_text(facts.size_bytes)}, of every file of this folder, this one included\n"
        f"- parameters: {facts.parameters:,}\n"
        f"- base model: {_plain(campaign.model.name)} ({_plain(campaign.model.hub)}), whose licence applies\n"
        f"- condition: {_plain(recipe.upload.condition)}\n\n"
        f"## How to load\n\n{LOADING}\n"
    )


def _details(facts: Facts, campaign: Campaign, scores: Any) -> Iterator[str]:
    """Yield the lines of which the last may be left out: figures, data sets, techniques."""
    if figures := list(_figures(campaign, scores)):
        yield "## Figures\n\nOf the bundle's outputs; signatures and intervals are in its scores.json.\n"
        yield from figures
        yield ""
    yield "## Data sets\n"
    yield from (f"- {_plain(one)}" for one in facts.data_sets)
    yield "\n## Compression\n"
    yield from (f"- {_plain(one)}" for one in facts.techniques)


def _figures(campaign: Campaign, scores: Any) -> Iterator[str]:
    """Yield a line for each pair and test set that has figures, in the campaign's order."""
    found: dict[tuple[str, str], dict[str, float]] = {}
    for output, metric, value in _records(scores):
        found.setdefault(output, {})[metric] = value
    for pair in campaign.pairs:
        for name in pair.testsets:
            values = found.get((pair.name, name), {})
            shown = ", ".join(f"{metric} {values[metric]:.1f}" for metric in METRICS if metric in values)
            if shown:
                yield f"- {pair.name} {name}: {shown}"


def _records(scores: Any) -> Iterator[tuple[tuple[str, str], str, float]]:
    """Yield ((pair, test set), metric, value) of every record that has them; scores are untrusted."""
    for record in scores if isinstance(scores, Iterable) and not isinstance(scores, (str, Mapping)) else ():
        if not isinstance(record, Mapping):
            continue
        pair, testset, metric, value = (record.get(key) for key in ("pair", "testset", "metric", "value"))
        if not all(isinstance(text, str) for text in (pair, testset, metric)):
            continue
        if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < LARGEST_FIGURE:
            yield (str(pair), str(testset)), str(metric), float(value)


def _plain(text: str, most: int = 1_000) -> str:
    """Return a text of campaign or recipe as one line that is no markup of its own."""
    return printable(text, most).replace("<", "&lt;")
