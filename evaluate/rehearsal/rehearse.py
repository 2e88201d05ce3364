"""Rehearse a campaign: both systems from a data folder in published layouts to archive and re-run, three times.

First from nothing, with the time and the peak of memory of every command. Then again from the store, where nothing may
be built. Then into an empty store with a SIGKILL in the middle of every command, which must resume to the same bytes.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evaluate.rehearsal.campaign_run import CommandRun, Kill, end_on_sigterm, records_of, require, run_command
from evaluate.rehearsal.processor_rates import processor_rates
from evaluate.rehearsal.published_models import Width
from evaluate.rehearsal.rehearsed_campaign import CAMPAIGN, RECIPES, Workspace, make_workspace
from submission.benchmarking import describe_machine
from submission.errors import UserError
from submission.model.costs.operations import parameter_count
from submission.model.families import read_config
from submission.progress import progress
from submission.store.digests import sha256_file, write_text
from submission.system.campaign import read_campaign

MARK = "rehearsal-of-a-campaign.txt"
"""Marks a folder made by a rehearsal, which the next one may empty."""
RERUN_TESTSET, RERUN_PAIR = "ACL", "en-de"
FINDING = re.compile(r"\b[A-Z]{2,}[0-9]{2}\b")
"""A code of a finding, as verify prints it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsal:
    """What a rehearsal has run so far."""

    place: Workspace
    first: list[CommandRun] = field(default_factory=list)
    """The steps of both systems, then verify, preview, archive and re-run, from nothing."""
    again: list[CommandRun] = field(default_factory=list)
    """The steps from the store."""
    killed: list[tuple[CommandRun, CommandRun]] = field(default_factory=list)
    """The steps in an empty store: each killed, and run again."""

    def log(self, part: str, number: int) -> Path:
        """Return where a command's output goes, without a suffix."""
        return self.place.root / "logs" / f"{part}-{number:02d}"


def rehearse(root: Path, width: Width, layers: int, vocabulary: Path, *, kills: bool = True) -> dict[str, Any]:
    """Return what every command of both systems took; UserError names the command that failed.

    root: working folder, emptied first where a rehearsal made it; width, layers: of the model; vocabulary: Qwen's.
    kills: whether the third part, with a SIGKILL in every command, is run.
    """
    end_on_sigterm()
    _empty(root)
    began, load = time.monotonic(), os.getloadavg()[0]
    rehearsal = Rehearsal(place=Workspace(root=root.absolute()))
    converting = _apart(make_workspace, rehearsal.place.root, width, layers, vocabulary)
    made = time.monotonic() - began
    rehearsal.first.append(_done(("segment", *converting), rehearsal.log("convert", 0)))
    steps = _steps(rehearsal.place, "first")
    uploading = [*_upload(rehearsal.place)]
    with progress("rehearsal, from nothing", len(steps) + len(uploading), "commands") as tick:
        for number, words in enumerate([*steps, *uploading]):
            rehearsal.first.append(_done(words, rehearsal.log("first", number)))
            tick(1)
    _from_store(rehearsal, steps)
    if kills:
        _with_kills(rehearsal, steps)
    config = read_config(rehearsal.place.data / "models" / read_campaign(CAMPAIGN).model.name)
    return {
        "parameters": parameter_count(config),
        "width": width,
        "layers": layers,
        "making_seconds": made,
        "seconds": time.monotonic() - began,
        "commands": [_row(run) for run in rehearsal.first],
        "from_store_seconds": sum(run.seconds for run in rehearsal.again),
        "cpu_seconds": sum(run.cpu_seconds for run in _all_runs(rehearsal)),
        "killed": [
            {"command": run.title, "killed_in": list(run.built[-1:]), "killed": run.status < 0, "again": again.seconds}
            for run, again in rehearsal.killed
        ],
        "findings": _finding_codes(rehearsal),
        "machine": describe_machine(),
        "rates": _apart(processor_rates),
        "load": (load, os.getloadavg()[0]),
    }


def _all_runs(rehearsal: Rehearsal) -> Iterator[CommandRun]:
    yield from rehearsal.first
    yield from rehearsal.again
    for pair in rehearsal.killed:
        yield from pair


def _row(run: CommandRun) -> dict[str, Any]:
    recipe = next((Path(word).stem for word in run.words if Path(word).stem in RECIPES and word.endswith(".toml")), "")
    figures = {"seconds": run.seconds, "cpu_seconds": run.cpu_seconds, "peak_bytes": run.peak_bytes}
    return {"command": run.title, "recipe": recipe, **figures}


def _empty(root: Path) -> None:
    if root.exists() and any(root.iterdir()) and not (root / MARK).is_file():
        raise UserError(str(root), "is not empty, and no rehearsal made it", "name another folder with --out")
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    write_text(root / MARK, "Made by a rehearsal of a campaign; the next one empties this folder.\n")


def _apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return what a function returns in a process of its own: a command's peak of memory begins with its parent's."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def _finding_codes(rehearsal: Rehearsal) -> list[str]:
    """Return the codes that verify found, sorted; all of them warnings, or the rehearsal would have ended there."""
    number = next(n for n, run in enumerate(rehearsal.first[1:]) if run.title == "submission verify")
    return sorted(set(FINDING.findall(rehearsal.log("first", number).with_suffix(".out").read_text(encoding="utf-8"))))


def _done(words: Sequence[str], log: Path) -> CommandRun:
    return require(run_command(words, log), log)


def _steps(place: Workspace, part: str) -> list[tuple[str, ...]]:
    """Return what follows `python -m` in every step of both systems, which put their work into folders of a part."""
    commands = []
    for name in RECIPES:
        words = ["--campaign", place.campaign, "--recipe", place.recipe(name), "--data", place.data]
        words += ["--store", place.root / part / "store", "--dist", place.root / part / "dist"]
        printed = subprocess.run(
            [sys.executable, "-m", "submission", "steps", *map(str, words)], check=False, capture_output=True, text=True
        )
        if printed.returncode:
            raise UserError("python -m submission steps", printed.stderr.strip(), "report this with the text above")
        commands += [tuple(shlex.split(line)[2:]) for line in printed.stdout.splitlines()]
    return commands


def _upload(place: Workspace) -> Iterator[tuple[str, ...]]:
    """Yield the commands behind a build: both bundles as one upload, and each shown, packed and decoded again."""
    bundles = [str(place.root / "first/dist" / f"iwslt26-{name}") for name in RECIPES]
    campaign = ("--campaign", str(place.campaign))
    yield "submission", "verify", *bundles, *campaign
    for bundle in bundles:
        yield "submission", "preview", bundle, *campaign
        yield "submission", "archive", bundle, *campaign
        audio, out = str(place.data / "testsets" / RERUN_TESTSET), f"{bundle}-rerun"
        options = ("--pair", RERUN_PAIR, "--testset", RERUN_TESTSET, "--out", out, *campaign)
        yield "evaluate", "rerun", "--bundle", bundle, "--audio", audio, *options


def _from_store(rehearsal: Rehearsal, steps: Sequence[tuple[str, ...]]) -> None:
    """Run every step again; UserError where one builds anything."""
    with progress("rehearsal, from the store", len(steps), "commands") as tick:
        for number, words in enumerate(steps):
            run = _done(words, rehearsal.log("again", number))
            if run.built:
                what = f"built {', '.join(run.built)} again, which the store holds"
                raise UserError(f"python -m {' '.join(words)}", what, "compare the keys in artifact.json")
            rehearsal.again.append(run)
            tick(1)


def _with_kills(rehearsal: Rehearsal, steps: Sequence[tuple[str, ...]]) -> None:
    """Run every step in an empty store, each killed midway and run again; UserError where the bytes differ."""
    root = rehearsal.place.root
    whole = records_of(root / "first/store")
    seconds = {f"{r.stage}:{r.part}" if r.part else r.stage: r.provenance.seconds for r in whole.values()}
    with progress("rehearsal, killed", len(steps), "commands") as tick:
        for number, words in enumerate(_steps(rehearsal.place, "killed")):
            before = rehearsal.first[number + 1]  # the first of all converts the classifier
            kill = Kill(seconds=before.seconds / 2, building=False)
            if before.built:
                kill = Kill(seconds=seconds[before.built[0]] / 2, building=True)
            run = run_command(words, rehearsal.log("killed", number), kill)
            rehearsal.killed.append((run, _done(words, rehearsal.log("resumed", number))))
            tick(1)
    resumed = records_of(root / "killed/store")
    differing = [r.stage for key, r in whole.items() if key not in resumed or resumed[key].digest != r.digest]
    if differing:
        what = f"differ from those of a build without kills: {', '.join(sorted(set(differing)))}"
        raise UserError(f"artifacts in {root / 'killed/store'}", what, "compare the two stores' artifact.json")
    for name in RECIPES:
        first, second = (root / part / "dist" / f"iwslt26-{name}/manifest.json" for part in ("first", "killed"))
        if sha256_file(first) != sha256_file(second):
            raise UserError(str(second), "differs from that of a build without kills", f"compare it with {first}")
