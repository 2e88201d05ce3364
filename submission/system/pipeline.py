"""The steps of a build, in order: the command of each, the stages that it builds, and which systems have it.

This table is the only list of steps. nox runs what `python -m submission steps` prints from it; the chain of stages
reads from it whether a system has a step; plan, summary and error messages take a stage's command from it.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from submission.errors import UserError
from submission.system.schema import nearest

if TYPE_CHECKING:
    from submission.system.system import System


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildStep:
    """One command of a build."""

    name: str
    command: str
    """What follows `python -m`, without arguments."""
    stages: tuple[str, ...] = ()
    """Names of the stages that it builds."""
    has: Callable[[System], bool] = lambda system: True
    """Whether a system has it."""
    takes_lists: bool = False
    """Whether the command builds every system of a list in one run."""
    options: tuple[str, ...] = ()
    """Further options of the command that `steps` passes on."""


STEPS = (
    BuildStep(name="begin", command="submission begin"),
    BuildStep(
        name="data",
        command="submission.miniature data",
        stages=("data",),
        has=lambda system: system.makes_data,
    ),
    BuildStep(name="corpus", command="train corpus", stages=("corpus",)),
    BuildStep(name="finetune", command="train finetune", stages=("finetune",)),
    BuildStep(name="merge", command="train merge", stages=("merge",)),
    BuildStep(
        name="sensitivity",
        command="quantize sensitivity",
        stages=("sensitivity",),
        has=lambda system: system.ranks_layers,
        takes_lists=True,
    ),
    BuildStep(
        name="awq",
        command="quantize awq",
        stages=("awq",),
        has=lambda system: system.recipe.quantize.awq is not None,
        takes_lists=True,
    ),
    BuildStep(
        name="calibrate",
        command="quantize calibrate",
        stages=("calibrate",),
        has=lambda system: system.recipe.quantize.moments is not None,
        takes_lists=True,
    ),
    BuildStep(
        name="allocate",
        command="quantize allocate",
        stages=("allocate",),
        has=lambda system: system.recipe.quantize.target is not None,
        takes_lists=True,
    ),
    BuildStep(name="pack", command="quantize pack", stages=("quantize",), takes_lists=True),
    BuildStep(
        name="recover",
        command="quantize recover",
        stages=("recover",),
        has=lambda system: system.recipe.quantize.recovery is not None,
        takes_lists=True,
    ),
    BuildStep(name="segment", command="segment run", stages=("segment",), options=("--allow-missing",)),
    BuildStep(name="decode", command="evaluate decode", stages=("decode",)),
    BuildStep(name="score", command="evaluate score", stages=("score",)),
    BuildStep(name="bundle", command="submission bundle", options=("--dist", "--comet")),
    BuildStep(name="summary", command="submission summary", options=("--dist", "--comet")),
)

LAST_OF_MODEL = "recover"
"""The last step that changes a system's model; what follows it is of the test sets."""

REPORT_COMMAND = "evaluate report"
REPORT_SYSTEMS = "ablation"
"""The list of the report's tables of systems."""
REPORT_UPLOADS = ("primary", "contrastive")
"""The recipes of its table of blind test sets."""
REPORT_SEGMENTATIONS = "segmentation"
"""The list of its table of segmentation methods."""
REPORTED = (REPORT_SYSTEMS, *REPORT_UPLOADS, REPORT_SEGMENTATIONS)
"""Every recipe and list that a report measures."""

MEASURED = {"loss": REPORT_COMMAND, "comet": "evaluate comet"}
"""Stages outside a build -> the command that builds them."""


def step(name: str) -> BuildStep:
    """Return the step of a name; UserError for an unknown one."""
    found = {each.name: each for each in STEPS}
    if name not in found:
        raise UserError(f"step {name!r}", "unknown", nearest(name, found))
    return found[name]


def has_step(system: System, name: str) -> bool:
    """Return whether a system has a step."""
    return step(name).has(system)


def stage_command(stage: str) -> str:
    """Return the command that builds the stages of a name, as it follows `python -m`."""
    return MEASURED.get(stage) or next(each.command for each in STEPS if stage in each.stages)


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What one `--recipe` names: a system, or every system of a list."""

    systems: tuple[System, ...]
    arguments: str
    """How a command line names it."""


def step_commands(
    selections: Sequence[Selection],
    *,
    first: str = STEPS[0].name,
    last: str = STEPS[-1].name,
    options: Mapping[str, Sequence[str]],
) -> list[str]:
    """Return the commands of the steps from `first` to `last`, in order.

    A command that takes lists stands once for a list; of the others, systems that share their stages run it once.
    options: further option -> its values, for the commands that take it; a flag has none.
    """
    names = [each.name for each in STEPS]
    span = STEPS[names.index(step(first).name) : names.index(step(last).name) + 1]
    commands: list[str] = []
    done: set[frozenset[str]] = set()
    single = len(selections) == 1 and len(selections[0].systems) == 1
    for each in span:
        words = "".join(f" {shlex.join([name, *options[name]])}" for name in each.options if name in options)
        for selection in selections:
            systems = [system for system in selection.systems if each.has(system)]
            if not single:  # what systems share is known by the keys of their stages
                systems = [system for system in systems if _is_new(each, system, done)]
            if systems:
                named = [selection] if each.takes_lists else systems
                commands += [f"python -m {each.command} {some.arguments}".rstrip() + words for some in named]
    return commands


def _is_new(each: BuildStep, system: System, done: set[frozenset[str]]) -> bool:
    """Return whether a step of a system builds what no command before it builds, and note it."""
    if "--dist" in each.options:
        return True  # every system has a bundle of its own
    keys = frozenset([each.name, *(stage.key for stage in system.stages() if stage.name in each.stages)])
    if keys in done:
        return False
    done.add(keys)
    return True
