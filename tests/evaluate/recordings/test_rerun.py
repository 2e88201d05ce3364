"""A bundle decoded again: with the network switched off, on its own recordings and on others, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from unicodedata import normalize

import numpy as np
import pytest
import soundfile

from evaluate.__main__ import make_parser
from evaluate.recordings.recording_folder import ByMethod
from evaluate.recordings.rerun import SEGMENTER, VerifiedBundle, choose_inputs
from segment.probabilities.speech_probabilities import ProbabilityCache
from submission.cli import run
from submission.errors import UserError
from submission.store.digests import tree_digest
from submission.system.campaign import read_campaign
from submission.system.recipe.recipe_files import read_recipe
from submission.text.segments import SAMPLE_RATE, Segment, read_segments
from tests.evaluate.bundled import replace_output

ROOT = Path(__file__).parents[3]
GUARD = """
import os, sys

def refuse(event, args):
    if event.startswith("socket."):
        with open(os.environ["GUARD_LOG"], "a") as log:
            log.write(f"{event} {args}\\n")
        raise OSError(f"the network is switched off: {event}")

sys.addaudithook(refuse)
"""
"""Python calls an audit hook for every socket that is made, and for every look-up of a name."""


def guarded(tmp_path: Path, *command: str) -> tuple[subprocess.CompletedProcess, str]:
    """Run Python where nothing can reach a network; return what it said, and what it tried to reach.

    Every socket and look-up is refused and noted; where the system permits, there is no network either.
    """
    (tmp_path / "guard").mkdir()
    (tmp_path / "guard" / "sitecustomize.py").write_text(GUARD, encoding="utf-8")
    log = tmp_path / "guard" / "log"
    alone = ["unshare", "--net"]
    if shutil.which("unshare") is None or subprocess.run([*alone, "true"], check=False, capture_output=True).returncode:
        alone = []
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_"))}
    environment |= {"PYTHONPATH": str(tmp_path / "guard"), "GUARD_LOG": str(log)}
    done = subprocess.run(
        [*alone, sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    return done, log.read_text(encoding="utf-8") if log.exists() else ""


def command(arguments: list[str], capsys) -> tuple[int, str, str]:
    status = run(make_parser(), arguments)
    said = capsys.readouterr()
    return status, said.out, said.err


def test_without_a_network_a_bundle_gives_its_shipped_lines_and_can_be_resegmented(bundled, tmp_path):
    out, common = tmp_path / "out", [*bundled.arguments(), "--audio", str(bundled.audio / "talks")]
    runs = [[*common, "--out", str(out)], [*common, "--out", str(tmp_path / "resegmented"), "--resegment"]]
    code = (
        "import json, sys; from evaluate.__main__ import make_parser; from submission.cli import run\n"
        "sys.exit(max(run(make_parser(), arguments) for arguments in json.loads(sys.argv[1])))"
    )
    done, reached = guarded(tmp_path, "-c", code, json.dumps(runs))
    assert (done.returncode, reached) == (0, ""), done.stderr
    assert "segments: 10, 50.0 s, by the method fixed\nspeech found by the voice-activity detector" in done.stdout
    assert "segments: 15, " in done.stdout and "the bundle's of TALKS" in done.stdout
    assert "compared with the shipped en-de/TALKS: identical 15/15 lines (100.0%), chrF 100.00" in done.stdout
    assert "libraries: versions differ from the bundle: numpy 1.0 -> " in done.stdout
    assert (out / "en-de.txt").read_bytes() == (bundled.folder / "en-de" / "TALKS.txt").read_bytes()
    assert len(set((out / "en-de.txt").read_text(encoding="utf-8").splitlines())) > 5  # no accident
    assert (out / "segments.yaml").read_bytes() == (bundled.folder / "segments" / "TALKS.yaml").read_bytes()
    result = json.loads((out / "rerun.json").read_text(encoding="utf-8"))
    assert (result["comparison"]["identical"], result["comparison"]["compared"]) == (15, 15)


def test_the_guard_notes_and_refuses_what_reaches_for_the_network(tmp_path):
    code = "import socket; socket.create_connection(('127.0.0.1', 9))"
    done, reached = guarded(tmp_path, "-c", code)
    assert done.returncode and "the network is switched off" in done.stderr
    assert reached.startswith("socket.")


def test_a_bundle_with_errors_is_not_decoded(bundled, tmp_path, capsys):
    broken = Path(shutil.copytree(bundled.folder, tmp_path / "bundle"))
    (broken / "en-de" / "TALKS.txt").write_text("one line\n", encoding="utf-8")
    arguments = ["rerun", "--bundle", str(broken), "--campaign", bundled.campaign, "--pair", "en-de"]
    arguments += ["--audio", str(bundled.audio / "talks"), "--out", str(tmp_path / "out")]
    status, said, _ = command(arguments, capsys)
    assert status == 1
    assert "error   TXT01" in said and "MAN04" in said
    status, said, _ = command([*arguments, "--json"], capsys)
    assert (status, json.loads(said)[0]["severity"]) == (1, "error")
    assert not (tmp_path / "out").exists()


def test_a_line_that_differs_is_shown_with_its_place_and_is_no_error(bundled, tmp_path, capsys):
    lines = (bundled.folder / "en-de" / "TALKS.txt").read_text(encoding="utf-8").splitlines()
    lines[9] = "something else"
    other = replace_output(bundled, tmp_path / "bundle", "en-de/TALKS.txt", "".join(f"{line}\n" for line in lines))
    arguments = [*other.arguments(), "--audio", str(bundled.audio / "talks"), "--out", str(tmp_path / "out")]
    status, said, _ = command(arguments, capsys)
    segment = read_segments(other.folder / "segments" / "TALKS.yaml")[9]
    assert status == 0
    assert "identical 14/15 lines" in said
    assert f"  a.wav {segment.start / SAMPLE_RATE:.2f}-{segment.end / SAMPLE_RATE:.2f} s, chrF " in said
    assert "    shipped:  something else" in said


def test_other_recordings_are_cut_by_the_recipes_method_and_compared_with_nothing(bundled, tmp_path, capsys):
    audio = tmp_path / "audio" / "deep"
    audio.mkdir(parents=True)
    noise = np.random.default_rng(3).standard_normal(12 * 8_000).astype(np.float32) * 0.1
    soundfile.write(audio / "neu.flac", noise, 8_000)
    arguments = [*bundled.arguments("en-zh"), "--audio", str(tmp_path / "audio"), "--out", str(tmp_path / "out")]
    status, said, _ = command(arguments, capsys)
    assert status == 0
    assert "segments: 3, 12.0 s, by the method fixed" in said
    assert "not compared" in said
    assert len((tmp_path / "out" / "en-zh.txt").read_text(encoding="utf-8").splitlines()) == 3
    assert json.loads((tmp_path / "out" / "rerun.json").read_text(encoding="utf-8"))["comparison"] is None


def test_given_segments_that_differ_are_compared_recording_by_recording(bundled, tmp_path, capsys):
    given = tmp_path / "their.yaml"
    given.write_text('[{"wav": "x/a.wav", "offset": 1, "duration": 2.5}, {"wav": "b", "offset": 0, "duration": 1}]')
    arguments = [*bundled.arguments(), "--audio", str(bundled.audio / "talks"), "--segments", str(given)]
    status, said, _ = command([*arguments, "--out", str(tmp_path / "out"), "--worst", "1"], capsys)
    assert status == 0
    assert f"segments: 2, 3.5 s, given in {given}" in said
    assert "compared with the shipped en-de/TALKS: identical 0/2 recordings" in said
    assert "and 1 more, which differ less" in said


def test_resegment_uses_the_recipe_where_the_bundle_has_segments(bundled, tmp_path, capsys):
    arguments = [*bundled.arguments(), "--audio", str(bundled.audio / "talks"), "--out", str(tmp_path / "out")]
    status, said, _ = command([*arguments, "--resegment"], capsys)
    assert status == 0
    assert "segments: 10, 50.0 s, by the method fixed" in said
    assert "identical 0/2 recordings" in said


def test_several_test_sets_in_one_folder_need_a_choice(bundled, tmp_path, capsys):
    arguments = [*bundled.arguments(), "--audio", str(bundled.audio), "--out", str(tmp_path / "out")]
    status, _, error = command(arguments, capsys)
    assert status == 2
    assert "holds the recordings of several test sets: TALKS, ACCENT; name one with --testset" in error
    status, said, _ = command([*arguments, "--testset", "ACCENT"], capsys)
    assert status == 0
    assert "the shipped en-de/ACCENT: identical 2/2 lines" in said
    assert "not of the test set: 2 recordings not translated: a.wav, b.wav" in said


def test_a_test_set_of_another_pair_is_translated_and_compared_with_nothing(bundled, tmp_path, capsys):
    arguments = [*bundled.arguments("en-zh"), "--audio", str(bundled.audio / "accent"), "--out", str(tmp_path / "out")]
    status, said, _ = command(arguments, capsys)
    assert status == 0
    assert "the bundle's of ACCENT" in said and "not compared" in said


@pytest.mark.parametrize("dropped", [0, 1])
def test_segments_that_the_organisers_give_come_from_their_list_and_not_from_the_bundle(
    bundled, tmp_path, capsys, dropped
):
    audio = Path(shutil.copytree(bundled.audio / "accent", tmp_path / "audio"))
    listed = [f"- {{wav: speaker.flac, offset: {2 * n}, duration: 2}}\n" for n in range(2 + dropped)]
    (audio / "segments.yaml").write_text("".join(listed), encoding="utf-8")
    arguments = [*bundled.arguments(), "--audio", str(audio), "--out", str(tmp_path / "out")]
    status, said, _ = command(arguments, capsys)
    assert status == 0
    assert f"segments: {2 + dropped}, " in said and f"given in {audio / 'segments.yaml'}" in said
    difference = "segments: 1 given, not in the bundle: speaker.flac 4.00-6.00 s"
    assert (difference in said) == bool(dropped)
    assert ("identical 2/2 lines" in said) == (not dropped)
    result = json.loads((tmp_path / "out" / "rerun.json").read_text(encoding="utf-8"))
    assert len(result["segments_only_in_the_list"]) == dropped and result["segments_only_in_the_bundle"] == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--pair", "en-fr"], "--pair en-fr: campaign probe has no such pair"),
        (["--testset", "TALK"], "--testset TALK: the bundle has no such test set; did you mean 'TALKS'?"),
        (["--testset", "ACCENT"], "1 of its recordings are not in the folder (first: speaker.flac)"),
        (["--segments", "nowhere.yaml"], "nowhere.yaml: no such file"),
        (["--segments", "x.yaml", "--resegment"], "--resegment: contradicts --segments"),
        (["--audio", "nowhere"], "nowhere: no such folder"),
        (["--campaign", "iwslt99"], "campaign 'iwslt99': unknown name"),
    ],
)
def test_impossible_requests_are_refused_by_name_before_decoding(bundled, tmp_path, capsys, options, message):
    arguments = [*bundled.arguments(), "--audio", str(bundled.audio / "talks"), "--out", str(tmp_path / "out")]
    status, _, error = command([*arguments, *options], capsys)
    assert status == 2
    assert message in error
    assert not (tmp_path / "out" / "hypotheses.jsonl").exists()


def test_outputs_never_land_in_the_bundle_or_among_the_recordings(bundled, capsys):
    for out in (bundled.folder / "out", bundled.audio / "talks" / "out"):
        arguments = [*bundled.arguments(), "--audio", str(bundled.audio / "talks"), "--out", str(out)]
        assert command(arguments, capsys)[0] == 2
        assert not out.exists()


def test_another_recording_under_a_known_name_is_recognised_by_its_length(bundled, tmp_path, capsys):
    audio = Path(shutil.copytree(bundled.audio / "talks", tmp_path / "audio"))
    soundfile.write(audio / "a" / "a.wav", np.zeros(SAMPLE_RATE, np.float32), SAMPLE_RATE)
    arguments = [*bundled.arguments(), "--audio", str(audio), "--out", str(tmp_path / "out")]
    status, _, error = command(arguments, capsys)
    assert status == 2
    assert "a.wav: has 16,000 samples at 16 kHz, and the segments of TALKS end at " in error


def test_a_recordings_name_may_be_in_another_unicode_form_than_the_segments(bundled, tmp_path):
    composed, decomposed = (normalize(form, "Gespräch.wav") for form in ("NFC", "NFD"))
    bundle = of_method(Path(shutil.copytree(bundled.folder, tmp_path / "bundle")), bundled, "fixed")
    for name in (composed, decomposed):
        segments = (Segment(recording=name, start=0, end=16_000),)
        for file in (composed, decomposed):
            audio = tmp_path / f"{name}-{file}".encode("unicode_escape").decode().replace("\\", "")
            audio.mkdir()
            soundfile.write(audio / file, np.zeros(SAMPLE_RATE, np.float32), SAMPLE_RATE)
            inputs = choose_inputs(replace(bundle, segments={"TALKS": segments}), audio, None, None, False)
            assert [(r.name, r.path.name) for r in inputs.folder.recordings] == [(name, file)]
            assert inputs.segment_source(inputs.folder, ProbabilityCache(folder=audio))[0] == list(segments)


def of_method(folder: Path, bundled, method: str) -> VerifiedBundle:
    """Return a bundle, unverified, whose recipe segments by a method."""
    recipe = folder.parent / f"{folder.name}.toml"
    recipe.write_text(f'extends = "{bundled.recipe}"\n[segment]\nmethod = "{method}"\n', encoding="utf-8")
    campaign = read_campaign(bundled.campaign)
    return VerifiedBundle(
        folder=folder,
        campaign=campaign,
        recipe=read_recipe(str(recipe), campaign.name),
        versions={},
        segments={t.name: tuple(read_segments(folder / "segments" / f"{t.name}.yaml")) for t in campaign.testsets},
    )


def test_a_method_that_classifies_takes_the_bundles_classifier_and_asks_for_segments_without_one(bundled, tmp_path):
    from segment.classifier.model import build, save_classifier

    bundle = of_method(Path(shutil.copytree(bundled.folder, tmp_path / "bundle")), bundled, "shas")
    with pytest.raises(
        UserError, match=r"segments with shas, and it holds no classifier \(segmenter/\); name the segm"
    ):
        choose_inputs(bundle, bundled.audio / "talks", None, None, True)
    save_classifier(build("tiny", 0), bundle.folder / SEGMENTER)
    inputs = choose_inputs(bundle, bundled.audio / "talks", None, None, True)
    assert isinstance(inputs.segment_source, ByMethod)
    assert inputs.segment_source.about()["classifier"] == tree_digest(bundle.folder / SEGMENTER)
    segments, report = inputs.segment_source(inputs.folder, ProbabilityCache(folder=tmp_path / "probabilities"))
    assert report["method"] == "shas"
    assert all(isinstance(segment, Segment) for segment in segments)
