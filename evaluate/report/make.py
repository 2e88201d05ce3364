"""From systems to the files of a report: what is asked for, what has to be built, what is written."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from evaluate.report import system_plans as work
from evaluate.report.blind_tables import segmentation_table, uploads_table
from evaluate.report.measure import read_results
from evaluate.report.pages.report_page import page
from evaluate.report.results import Results
from evaluate.report.table import Table
from evaluate.report.tables import calibration_table, layers_table, systems_table
from evaluate.report.text import figures_csv, markdown, results_json
from submission.store.digests import write_text
from submission.store.store import Store
from submission.system.system import System

Opened = Sequence[tuple[System, Store]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The systems of a report, by its parts; a part without systems is left out."""

    systems: Opened
    """Tables 1, 4 and 5, and the pictures."""
    uploads: Opened = ()
    """Table 6."""
    segmentations: Opened = ()
    comet: Path | None = None
    """A COMET checkpoint; None for the one of the data folder, where it has one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Works:
    """What is to be measured, by the parts of a report."""

    systems: list[work.Work]
    uploads: list[work.Work]
    segmentations: list[work.Work]

    def together(self) -> list[work.Work]:
        return [*self.systems, *self.uploads, *self.segmentations]


def command_line(args: argparse.Namespace) -> str:
    """Return the command that makes a report, as a person types it."""
    named = [("--campaign", args.campaign), ("--recipe", args.recipe), ("--data", args.data), ("--store", args.store)]
    named += [("--segmentation", args.segmentation), ("--comet", args.comet)]
    listed = (("--also", args.also), ("--upload", args.upload), ("--only", args.only))
    named += [(option, value) for option, values in listed for value in values]
    words = [word for option, value in named if value for word in (option, str(value))]
    return shlex.join(["python", "-m", "evaluate", "report", *words])


def plan(asked: Asked) -> Works:
    """Return what is to be measured, and say on standard error what of it is to be built; UserError where a model is
    not packed."""
    if asked.comet is not None:
        (*asked.systems, *asked.uploads, *asked.segmentations)[0][0].comet_digest(
            asked.comet
        )  # refused before the work
    works = Works(
        systems=[work.on_the_open_set(*opened, asked.comet) for opened in asked.systems],
        uploads=[work.on_the_blind_sets(*opened, asked.comet, every_cut=False) for opened in asked.uploads],
        segmentations=[work.on_the_blind_sets(*opened, asked.comet, every_cut=True) for opened in asked.segmentations],
    )
    work.need_packed(works.together())
    print(work.announcement(works.together()), file=sys.stderr, flush=True)
    return works


def make(works: Works, device: str, commands: dict[str, str]) -> Results:
    """Build what is missing and return the results; commands: part of the report -> the command that makes it."""
    work.build(works.together(), device)
    campaign = works.together()[0].system.campaign
    return read_results(campaign, works.systems, works.uploads, works.segmentations, commands)


def tables_of(results: Results) -> list[Table]:
    """Return every table for which there are systems."""
    tables = [
        systems_table(results) if results.systems else None,
        layers_table(results),
        calibration_table(results),
        uploads_table(results),
        segmentation_table(results),
    ]
    return [table for table in tables if table]


def write_report(out: Path, results: Results) -> list[str]:
    """Write a report into a folder and return the names of its files: the page, the same as text, the pictures."""
    from evaluate.report.pictures.all_pictures import draw_pictures

    out.mkdir(parents=True, exist_ok=True)
    tables = tables_of(results)
    pictures = draw_pictures(results, out) if results.systems else []
    readings = [(f"{picture.name}.svg", picture.title, picture.reading) for picture in pictures]
    texts = {
        "report.html": page(results, tables, pictures),
        "report.md": markdown(results, tables, readings),
        "report.csv": figures_csv(results),
        "report.json": results_json(results),
    }
    for name, text in texts.items():
        write_text(out / name, text)
    return [*texts, *(f"{picture.name}.{ending}" for picture in pictures for ending in ("svg", "png"))]
