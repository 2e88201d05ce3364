"""CFG04, CFG05, CFG08: whether the model can derive from the campaign's base model, by its sizes, and from the recipe,
by its codecs.

The base model's own configuration ships with this program, so the shapes of a bundle are compared with it and not
only with the bundle's own configuration. Pruning and distilling into fewer layers are compression; a model
that is larger than its base anywhere is another model.
"""

from __future__ import annotations

from collections.abc import Iterator

from submission.bundle.checks.finding import Fault
from submission.bundle.untrusted.bundle_view import CONFIG, BundleView
from submission.bundle.untrusted.strict_json import Unreadable
from submission.errors import UserError
from submission.model.checkpoint import parse_quantization
from submission.model.resolved_codecs import contradictions
from submission.text.characters import printable


def larger_than_base(view: BundleView) -> Iterator[Fault]:
    """Pack a model that derives from the campaign's base model: it may be pruned, so each size may be smaller than
    the base model's, and none larger.
    """
    for name, (base, got) in _differing(view).items():
        if got > base:
            yield CONFIG, f"{name}: the base model {view.campaign.model.name} has {base:,}, this model {got:,}"


def smaller_than_base(view: BundleView) -> Iterator[Fault]:
    """Ask the participants how the model was pruned: the track allows it, and no recipe of this program does it, so
    the description does not name it.
    """
    for name, (base, got) in _differing(view).items():
        if got < base:
            yield CONFIG, f"{name}: the base model {view.campaign.model.name} has {base:,}, this model {got:,}"


def codecs_of_no_recipe(view: BundleView) -> Iterator[Fault]:
    """Put the recipe that packed this model into the bundle, by writing the bundle again: it gives each role its codec
    and says what is left out, and the model's configuration names the codec of every weight that is there.
    """
    if isinstance(view.recipe, Unreadable) or isinstance(view.expected_tensors, Unreadable):
        return  # reported as REC01 and CFG01
    assert not isinstance(view.config, Unreadable)  # expected_tensors follow from it
    held, quantize = parse_quantization(view.config["quantization_config"]), view.recipe.quantize
    try:
        for found in contradictions(view.config, held, quantize.codecs, quantize.overrides):
            yield CONFIG, printable(found, 300)
        yield from _other_parts(view, set(quantize.drop))
    except UserError as error:
        yield "recipe.json", f"{printable(error.where)}: {printable(error.what, 300)}"


def _other_parts(view: BundleView, dropped: set[str]) -> Iterator[Fault]:
    """Yield parts of the base model that the recipe leaves out and the model has, or the other way round."""
    if view.base_sizes is None:
        return
    missing = {role.partition(".")[0] for role in view.left_out_roles}
    for part in sorted(missing - dropped):
        yield CONFIG, f"the model is without the base model's {part}, and the recipe does not drop it"
    for part in sorted(dropped - missing):
        yield CONFIG, f"the recipe drops the base model's {printable(part, 100)}, and the model has it"


def _differing(view: BundleView) -> dict[str, tuple[int, int]]:
    """Return size -> (base model's, this model's) where they differ; nothing where one is unknown.

    Of a model that leaves out what a system for speech may leave out, sizes of that part are none, and not smaller.
    """
    base, sizes = view.base_sizes, view.sizes
    if base is None or sizes is None:
        return {}  # shown in the head of the report, or reported as CFG01
    compared = [name for name in base if name in sizes or not view.left_out_roles]
    return {name: (base[name], sizes.get(name, 0)) for name in compared if sizes.get(name, 0) != base[name]}
