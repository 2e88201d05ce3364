"""Speed and memory of a bundle: measured by batch size, written into it, and checked by `verify`."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from evaluate.__main__ import make_parser
from evaluate.efficiency.batch_measurement import DecodingWork, measure_batch
from evaluate.efficiency.measure_bundle import evenly
from submission.bundle.bundle import add_efficiency
from submission.bundle.checks import verify
from submission.bundle.description import parse_description
from submission.bundle.efficiency import EfficiencyRecord, UnfitBatch, efficiency_lines, parse_efficiency
from submission.bundle.untrusted.bundle_view import BundleView
from submission.cli import run
from submission.errors import UserError
from submission.runtime.prompt import render_prompt
from submission.system.campaign import read_campaign
from submission.system.recipe.recipe_files import read_recipe
from submission.text.segments import Segment


@pytest.fixture(scope="module")
def measured(bundled, tmp_path_factory) -> Path:
    """A bundle with figures of two sizes of batches."""
    folder = Path(shutil.copytree(bundled.folder, tmp_path_factory.mktemp("measured") / "bundle"))
    sizes = ["--batch-size", "1", "--batch-size", "64", "--segments", "4", "--runs", "2", "--device", "cpu"]
    audio = ["--audio", str(bundled.audio / "talks"), "--campaign", bundled.campaign]
    assert run(make_parser(), ["efficiency", str(folder), *audio, *sizes]) == 0
    return folder


def record_of(folder: Path) -> EfficiencyRecord:
    return parse_efficiency(json.loads((folder / "efficiency.json").read_text(encoding="utf-8")))


def findings(folder: Path, campaign: str) -> list[str]:
    return [finding.code for finding in verify(folder, campaign) if finding.severity == "error"]


def test_a_measured_bundle_is_a_good_one_and_its_descriptions_hold_the_figures(measured, bundled):
    assert findings(measured, bundled.campaign) == findings(bundled.folder, bundled.campaign) == []
    record = record_of(measured)
    assert [(batch.batch_size, batch.rows) for batch in record.batches] == [(1, 1), (64, 4)]
    assert record.segments == 4 and record.testset == "TALKS"
    for batch in record.batches:
        assert len(batch.seconds) == 2 and batch.tokens >= 4 and batch.peak_bytes > 50 << 20
        assert batch.seconds_with_loading > batch.load_seconds > 0 < batch.median_seconds
        rate = record.segment_rate(batch) * record.real_time_factor(batch) * record.audio_seconds
        assert rate == pytest.approx(record.segments)
    for path in (measured / "description").iterdir():
        lines = parse_description(path.read_text(encoding="utf-8"))["Efficiency"]
        assert lines == efficiency_lines(record)
        assert "segments:4|" in lines[1] and "of which at most 4 were filled" in lines[3]


def test_all_else_of_the_bundle_stays_as_it_was(measured, bundled):
    changed = {"efficiency.json", "manifest.json", "description/en-de.txt", "description/en-zh.txt"}
    for path in sorted(bundled.folder.rglob("*")):
        name = path.relative_to(bundled.folder).as_posix()
        if path.is_file() and name not in changed:
            assert (measured / name).read_bytes() == path.read_bytes()


def test_figures_of_other_weights_or_changed_ones_are_findings(measured, bundled, tmp_path):
    folder = Path(shutil.copytree(measured, tmp_path / "bundle"))
    view = BundleView(folder, read_campaign(bundled.campaign))
    parts = {"campaign": view.campaign, "recipe": view.recipe, "facts": view.facts}
    add_efficiency(folder, view.manifest, replace(record_of(folder), bundle_sha256="0" * 64), **parts)
    assert findings(folder, bundled.campaign) == ["EFF02"]
    text = (folder / "efficiency.json").read_text(encoding="utf-8")
    (folder / "efficiency.json").write_text(text.replace('"batch_size": 1,', '"batch_size": -1,'), encoding="utf-8")
    assert "EFF01" in findings(folder, bundled.campaign)


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ('"tokens": ', '"tokens": -', "tokens"),
        ('"cores": ', '"cores": 1e400', "cores"),
        ('"device": "cpu"', '"device": "a\\nb"', "printable"),
        ('"pair": "en-de"', '"pear": "en-de"', "pear"),
        ('"did_not_fit": []', '"did_not_fit": [{"batch_size": 64, "memory": "GPU"}]', "each once"),
    ],
)
def test_what_no_measurement_gives_is_refused_by_its_key(measured, old, new, what):
    text = (measured / "efficiency.json").read_text(encoding="utf-8")
    assert old in text
    with pytest.raises(UserError, match=what):
        parse_efficiency(json.loads(text.replace(old, new)))


def work_of(bundled, model: Path, segments: list[Segment]) -> DecodingWork:
    campaign = read_campaign(bundled.campaign)
    return DecodingWork(
        model=model,
        device="cpu",
        options=read_recipe(bundled.recipe, campaign.name).decode,
        prompt=render_prompt(campaign.prompt, "German"),
        end_token=campaign.model.end_token,
        segments=tuple(segments),
        recordings={path.name: path for path in bundled.audio.rglob("*.*")},
        runs=1,
    )


def end_a_child(others: set[int | None]) -> None:
    """End a process that this one starts now as the system does where memory runs out; others: that it started."""
    while not (found := {child.pid for child in multiprocessing.active_children()} - others):
        time.sleep(0.01)
    os.kill(found.pop(), signal.SIGKILL)


def test_a_batch_whose_process_the_system_ends_does_not_fit(bundled):
    work = work_of(bundled, bundled.folder / "model", [Segment(recording="speaker.flac", start=0, end=32_000)])
    others = {child.pid for child in multiprocessing.active_children()}
    killer = threading.Thread(target=end_a_child, args=(others,), daemon=True)
    killer.start()
    assert measure_batch(work, 8) == UnfitBatch(batch_size=8, memory="machine")
    killer.join()


def test_segments_are_taken_evenly_over_their_lengths_the_longest_among_them():
    segments = [Segment(recording="a", start=0, end=length) for length in (5, 1, 4, 2, 3, 6)]
    assert [s.end for s in evenly(segments, 3)] == [6, 4, 2]
    assert [s.end for s in evenly(segments, 9)] == [6, 5, 4, 3, 2, 1]


def test_a_bundle_with_errors_is_not_measured(bundled, tmp_path, capsys):
    folder = Path(shutil.copytree(bundled.folder, tmp_path / "bundle"))
    (folder / "scores.json").unlink()
    words = ["efficiency", str(folder), "--audio", str(bundled.audio / "talks"), "--campaign", bundled.campaign]
    assert run(make_parser(), words) == 1
    assert "MAN02" in capsys.readouterr().out and not (folder / "efficiency.json").exists()
