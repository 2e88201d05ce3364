"""Plan, build and write a report: the systems of each part, the stages to build, the files."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from evaluate.report import system_plans
from evaluate.report.blind_set_tables import segmentation_table, uploads_table
from evaluate.report.efficiency_table import efficiency_table
from evaluate.report.exports import figures_csv, markdown, results_json
from evaluate.report.measure import read_results
from evaluate.report.open_set_tables import calibration_table, layers_table, systems_table
from evaluate.report.pages.report_page import page
from evaluate.report.results import Results
from evaluate.report.system_plans import SystemPlan
from evaluate.report.table import Table
from submission.store.digests import write_text
from submission.store.store import Store
from submission.system.system import System

Opened = Sequence[tuple[System, Store]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportRequest:
    """The requested systems of a report, by its parts; a part without systems is left out."""

    systems: Opened = ()
    """Tables 1, 4 and 5, and the pictures."""
    also: Opened = ()
    """More of these, which the pictures label wherever they lie."""
    uploads: Opened = ()
    """Table 6."""
    segmentations: Opened = ()
    comet: Path | None = None
    """A COMET checkpoint; None for the one of the data folder, if any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportPlan:
    """The plans of all systems, by the parts of a report."""

    systems: list[SystemPlan]
    uploads: list[SystemPlan]
    segmentations: list[SystemPlan]

    def all(self) -> list[SystemPlan]:
        """Return the plans of all parts, in the order of measuring."""
        return [*self.systems, *self.uploads, *self.segmentations]


def command_line(args: argparse.Namespace) -> str:
    """Return the command that makes a report, as typed in a shell."""
    named = [("--campaign", args.campaign), ("--recipe", args.recipe), ("--data", args.data), ("--store", args.store)]
    named += [("--segmentation", args.segmentation), ("--comet", args.comet)]
    named += [("--dist", args.dist if args.dist != Path("dist") else None)]
    listed = (("--also", args.also), ("--upload", args.upload), ("--only", args.only))
    named += [(option, value) for option, values in listed for value in values]
    words = [word for option, value in named if value for word in (option, str(value))]
    return shlex.join(["python", "-m", "evaluate", "report", *words])


def plan_report(request: ReportRequest) -> ReportPlan:
    """Return the plan of a report, and print the stages to build on stderr; UserError where a model is not packed."""
    if request.comet is not None:
        first, _ = (*request.systems, *request.also, *request.uploads, *request.segmentations)[0]
        first.comet_digest(request.comet)  # reports a bad checkpoint before the work
    plan = ReportPlan(
        systems=[
            system_plans.on_the_open_set(*opened, request.comet, labelled=labelled)
            for listed, labelled in ((request.systems, False), (request.also, True))
            for opened in listed
        ],
        uploads=[
            system_plans.on_the_blind_sets(*opened, request.comet, every_segmentation=False)
            for opened in request.uploads
        ],
        segmentations=[
            system_plans.on_the_blind_sets(*opened, request.comet, every_segmentation=True)
            for opened in request.segmentations
        ],
    )
    system_plans.need_packed(plan.all())
    print(system_plans.announcement(plan.all()), file=sys.stderr, flush=True)
    return plan


def build_results(plan: ReportPlan, device: str, commands: dict[str, str], dist: Path) -> Results:
    """Build missing stages and return the results.

    commands: part of the report -> the command that makes it; dist: where the systems' bundles lie.
    """
    system_plans.build(plan.all(), device)
    campaign = plan.all()[0].system.campaign
    return read_results(campaign, plan.systems, plan.uploads, plan.segmentations, commands, dist)


def tables_of(results: Results) -> list[Table]:
    """Return every table for which there are systems."""
    tables = [
        systems_table(results) if results.systems else None,
        layers_table(results),
        calibration_table(results),
        uploads_table(results),
        segmentation_table(results),
        efficiency_table(results),
    ]
    return [table for table in tables if table]


def write_report(out: Path, results: Results) -> list[str]:
    """Write a report into a folder and return the names of its files: the page, the same as text, the pictures."""
    from evaluate.report.pictures.report_pictures import render_pictures

    out.mkdir(parents=True, exist_ok=True)
    tables = tables_of(results)
    pictures = render_pictures(results, out) if results.systems else []
    captions = [(f"{picture.name}.svg", picture.title, picture.caption) for picture in pictures]
    texts = {
        "report.html": page(results, tables, pictures),
        "report.md": markdown(results, tables, captions),
        "report.csv": figures_csv(results),
        "report.json": results_json(results),
    }
    for name, text in texts.items():
        write_text(out / name, text)
    return [*texts, *(f"{picture.name}.{ending}" for picture in pictures for ending in ("svg", "png"))]
