"""Translation of a folder of recordings: lists of segments in every dialect, one line a segment, resumed runs."""

from __future__ import annotations

import fcntl
import json
import os
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from evaluate.decoding.audio_files import readable_in_pieces
from evaluate.decoding.hypotheses import read_hypotheses
from segment.testset import read_folder
from submission.errors import UserError
from submission.runtime.audio import read_audio, seeks
from submission.store.digests import describe_files
from submission.text.segments import SAMPLE_RATE, Segment, read_segments
from tests.evaluate.recordings.support import GIVEN, YAML, arguments, command
from tests.support.launching import HANG_SECONDS

ROOT = Path(__file__).parents[3]


def test_given_segments_of_any_dialect_become_one_line_each_in_the_order_of_the_paths(bundled, audio, tmp_path, capsys):
    (tmp_path / "any.yaml").write_text(YAML, encoding="utf-8")
    out = tmp_path / "out"
    options = ["--segments", str(tmp_path / "any.yaml")]
    status, said, _ = command([*arguments(bundled, audio, out), *options], capsys)
    assert status == 0
    assert f"segments: 3, 3.5 s, given in {tmp_path / 'any.yaml'}" in said
    assert read_segments(out / "segments.yaml") == GIVEN
    lines = (out / "en-de.txt").read_bytes().decode("utf-8").split("\n")
    assert (lines[0], lines[3:]) == ("", [""])  # too short to have speech: a blank line
    assert any(lines)
    assert lines[:3] == [hypothesis.text for hypothesis in read_hypotheses(out / "hypotheses.jsonl")]
    report = json.loads((out / "translation_report.json").read_text(encoding="utf-8"))
    assert report["flags"]["too_short"] == 1
    assert [recording["name"] for recording in report["run"]["recordings"]] == ["a.wav", "b.wav"]


def test_a_foreign_file_order_and_a_yaml_among_the_recordings_count(bundled, audio, tmp_path, capsys):
    (audio / "FILE_ORDER").write_bytes(b"\xef\xbb\xbfb.wav\r\na\r\n")
    (audio / "segments.yaml").write_text(YAML, encoding="utf-8")
    status, said, _ = command(arguments(bundled, audio, tmp_path / "out"), capsys)
    assert status == 0
    assert f"given in {audio / 'segments.yaml'}" in said
    assert read_segments(tmp_path / "out" / "segments.yaml") == [*GIVEN[1:], GIVEN[0]]


def test_a_method_that_is_named_counts_more_than_a_yaml_among_the_recordings(bundled, audio, tmp_path, capsys):
    (audio / "segments.yaml").write_text(YAML, encoding="utf-8")
    status, said, _ = command([*arguments(bundled, audio, tmp_path / "out"), "--method", "fixed"], capsys)
    assert status == 0
    assert "segments: 10, 50.0 s, by the method fixed" in said
    assert re.search(r"  a\.wav +4 segments, +20\.0 s recorded, speech", said)


def test_a_checkpoint_is_translated_with_as_well_as_a_packed_model(bundled, checkpoint, audio, tmp_path, capsys):
    status, said, _ = command([*arguments(bundled, audio, tmp_path / "out", model=checkpoint), "--json"], capsys)
    assert status == 0
    assert json.loads(said)["segments"] == 10


def test_compressed_recordings_are_decoded_once_and_give_the_samples_that_they_give_by_themselves(tmp_path):
    rng = np.random.default_rng(5)
    for name, rate in (("a.mp3", 22_050), ("b.wav", 8_000), ("c.wav", 16_000)):
        soundfile.write(tmp_path / name, rng.standard_normal(rate) * 0.1, rate)
    segments = [Segment(recording=name, start=0, end=9_000) for name in ("a.mp3", "b.wav", "c.wav")]
    folder = read_folder(tmp_path)
    paths = readable_in_pieces(folder, segments, tmp_path / "aside")
    assert [path.parent.name == "aside" for path in paths.values()] == [True, True, False]
    for recording in folder.recordings:
        assert np.array_equal(read_audio(paths[recording.name]), read_audio(recording.path))
        assert seeks(paths[recording.name])
    assert readable_in_pieces(folder, segments[1:], tmp_path / "aside")["b.wav"] == tmp_path / "b.wav"


def compressed(folder: Path) -> Path:
    """Fill a folder with two recordings of 4 s that are decoded aside."""
    folder.mkdir()
    for name in ("a.mp3", "b.mp3"):
        soundfile.write(folder / name, np.random.default_rng(5).standard_normal(88_200) * 0.1, 22_050)
    return folder


def test_a_disk_too_full_for_decoded_recordings_is_named_before_they_are_segmented(
    bundled, tmp_path, capsys, monkeypatch
):
    usage = shutil.disk_usage(tmp_path)._replace(free=400_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    out = tmp_path / "out"
    status, _, said = command(arguments(bundled, compressed(tmp_path / "audio"), out), capsys)
    assert status == 2
    assert re.search(r"out: has 400,000 bytes free, and 2 recordings decoded take 51\d,\d{3} while they are", said)
    assert not (out / "segmentation.json").exists()


def test_a_disk_that_fills_up_while_recordings_are_decoded_is_named(tmp_path):
    folder = read_folder(compressed(tmp_path / "audio"))
    segments = [Segment(recording=recording.name, start=0, end=9_000) for recording in folder.recordings]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(UserError, match=r"samples of a\.mp3 cannot be written .* bytes are free"):
            readable_in_pieces(folder, segments, tmp_path / "aside")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_recordings_without_speech_leave_an_empty_file_and_are_named(bundled, tmp_path, capsys):
    (tmp_path / "audio").mkdir()
    soundfile.write(tmp_path / "audio" / "silence.wav", np.zeros(3 * SAMPLE_RATE, np.float32), SAMPLE_RATE)
    out = tmp_path / "out"
    status, said, _ = command([*arguments(bundled, tmp_path / "audio", out), "--method", "vad"], capsys)
    assert status == 0
    assert "no segments: 1 recording not translated: silence.wav" in said
    assert (out / "en-de.txt").read_bytes() == b""
    assert read_segments(out / "segments.yaml") == []


def test_a_killed_run_resumes_and_writes_the_bytes_of_an_undisturbed_one(bundled, audio, tmp_path, capsys):
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    assert command(arguments(bundled, audio, whole), capsys)[0] == 0
    shutil.copytree(whole, torn)
    journal = (whole / "hypotheses.jsonl").read_bytes()
    (torn / "hypotheses.jsonl").write_bytes(journal[: len(journal) // 2])
    (torn / "en-de.txt").unlink()
    status, said, _ = command(arguments(bundled, audio, torn), capsys)
    assert status == 0
    assert "decoded: 10 segments (" in said
    assert describe_files(torn) == describe_files(whole)
    status, said, _ = command(arguments(bundled, audio, torn), capsys)
    assert status == 0
    assert "decoded: everything by an earlier run" in said
    assert describe_files(torn) == describe_files(whole)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--pair", "en-zh"], 'its pair is "en-de", and not "en-zh"'),
        (["--method", "vad"], 'its segments is {"batch_size"'),
    ],
)
def test_a_folder_that_holds_another_run_is_refused_with_what_differs(
    bundled, audio, tmp_path, capsys, change, message
):
    out = tmp_path / "out"
    assert command(arguments(bundled, audio, out), capsys)[0] == 0
    before = describe_files(out)
    status, _, error = command([*arguments(bundled, audio, out), *change], capsys)
    assert status == 2
    assert message in error
    assert describe_files(out) == before


def test_a_changed_recording_makes_another_run(bundled, audio, tmp_path, capsys):
    out = tmp_path / "out"
    assert command(arguments(bundled, audio, out), capsys)[0] == 0
    soundfile.write(audio / "a" / "a.wav", np.full(SAMPLE_RATE, 0.1, np.float32), SAMPLE_RATE)
    status, _, error = command(arguments(bundled, audio, out), capsys)
    assert status == 2
    assert "holds another run: its recordings is [" in error


def test_a_run_that_decoded_nothing_gives_its_place_to_another(bundled, audio, tmp_path, capsys):
    out, yaml = tmp_path / "out", tmp_path / "x.yaml"
    options = ["--segments", str(yaml)]
    yaml.write_text("- {wav: a.wav, offset: 19, duration: 5}\n", encoding="utf-8")
    status, _, error = command([*arguments(bundled, audio, out), *options], capsys)
    assert status == 2
    assert "x.yaml entry 1: a.wav: 19 s to 24 s does not lie within the recording's 20 s" in error
    yaml.write_text("- {wav: a.wav, offset: 17, duration: 3}\n", encoding="utf-8")
    assert command([*arguments(bundled, audio, out), *options], capsys)[0] == 0
    assert len(read_segments(out / "segments.yaml")) == 1


def test_a_folder_with_something_else_in_it_is_left_alone(bundled, audio, tmp_path, capsys):
    (tmp_path / "thesis.txt").write_text("years of work", encoding="utf-8")
    status, _, error = command(arguments(bundled, audio / "a", tmp_path), capsys)
    assert status == 2
    assert "holds other files than those of a run: " in error
    assert not (tmp_path / "run.json").exists()


def test_two_processes_never_write_into_one_folder(bundled, audio, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    with (out / ".lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        status, _, error = command(arguments(bundled, audio, out), capsys)
    assert status == 2
    assert "another process uses it" in error


def torchrun(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone", "-m", "evaluate"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [*words, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=HANG_SECONDS, cwd=ROOT)


def test_two_launched_processes_write_the_files_of_one_fresh_or_resumed(bundled, audio, tmp_path, capsys):
    alone, started, resumed = tmp_path / "alone", tmp_path / "begun", tmp_path / "resumed"
    assert command(arguments(bundled, audio, alone), capsys)[0] == 0
    shutil.copytree(alone, resumed)
    lines = (alone / "hypotheses.jsonl").read_bytes().splitlines(keepends=True)
    for name in ("hypotheses.jsonl", "en-de.txt", "translation_report.json"):
        (resumed / name).unlink()
    (resumed / "hypotheses.jsonl.1").write_bytes(b"".join(lines[:2]) + lines[2][:5])  # the first process had none yet
    for out in (started, resumed):
        done = torchrun(arguments(bundled, audio, out))
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("written: ") == 1
        assert describe_files(out) == describe_files(alone)


def test_two_launched_processes_read_compressed_recordings_each_for_itself(bundled, audio, tmp_path, capsys):
    for path in sorted(audio.rglob("*.wav")):
        samples, rate = soundfile.read(path)
        soundfile.write(path.with_suffix(".mp3"), samples, rate)
        path.unlink()
    alone, together = tmp_path / "alone", tmp_path / "together"
    assert command(arguments(bundled, audio, alone), capsys)[0] == 0
    (together / "samples7").mkdir(parents=True)  # of a killed run of more processes
    (together / "samples7" / "0000.w64").touch()
    shutil.copy(alone / "run.json", together)
    done = torchrun(arguments(bundled, audio, together))
    assert done.returncode == 0, done.stderr
    assert describe_files(together) == describe_files(alone) and not (together / "samples7").exists()


def test_an_unrelated_folder_is_never_taken_for_that_of_a_killed_run(bundled, audio, tmp_path, capsys):
    for name in ("samples/mine.wav", "samples_of_my_thesis/x.txt", "segments.yaml"):
        out = tmp_path / name.replace("/", "-")
        (out / name).parent.mkdir(parents=True)
        (out / name).write_text("years of work", encoding="utf-8")
        status, _, error = command(arguments(bundled, audio, out), capsys)
        assert status == 2 and "other files than those of a run" in error
        assert (out / name).read_text(encoding="utf-8") == "years of work"


def test_launched_processes_leave_the_folder_of_another_run_alone(bundled, audio, tmp_path, capsys):
    out = tmp_path / "out"
    assert command(arguments(bundled, audio, out), capsys)[0] == 0
    before = describe_files(out)
    soundfile.write(audio / "a" / "a.wav", np.full(SAMPLE_RATE, 0.1, np.float32), SAMPLE_RATE)
    done = torchrun(arguments(bundled, audio, out))
    assert done.returncode != 0 and "holds another run: its recordings is [" in done.stderr
    assert "Connection reset" not in done.stderr and "RuntimeError" not in done.stderr
    assert describe_files(out) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--method", "shas"], "method shas: has no classifier (config.json, model.safetensors); name one with"),
        (["--method", "shas", "--classifier", "nowhere"], "nowhere: has no classifier"),
        (["--method", "vad", "--segments", "x.yaml"], "--method: contradicts --segments"),
        (
            ["--campaign", "iwslt26", "--recipe", "primary"],
            "has a window of 8 s, the model of campaign iwslt26",
        ),
        (["--model", "BUNDLE"], "is a bundle, expected a model"),
        (["--model", "nowhere"], "nowhere: no such folder"),
        (["--pair", "de-en"], "--pair de-en: campaign probe has no such pair"),
    ],
)
def test_errors_are_reported_before_any_audio_is_read(bundled, audio, tmp_path, capsys, options, message):
    (audio / "one.yaml").write_text(YAML, encoding="utf-8")
    options = [option.replace("BUNDLE", str(bundled.folder)) for option in options]
    status, _, error = command([*arguments(bundled, audio, tmp_path / "out"), *options], capsys)
    assert status == 2
    assert message in error
    assert not (tmp_path / "out").exists()


def test_of_several_yaml_files_none_is_guessed(bundled, audio, tmp_path, capsys):
    for name in ("one.yaml", "two.yml"):
        (audio / name).write_text(YAML, encoding="utf-8")
    status, _, error = command(arguments(bundled, audio, tmp_path / "out"), capsys)
    assert status == 2
    assert "has 2 YAML files (one.yaml, two.yml); name the right one with --segments" in error


def test_a_recording_that_was_cut_off_on_its_way_is_refused(bundled, audio, tmp_path, capsys):
    path = audio / "a" / "a.wav"
    path.write_bytes(path.read_bytes()[:500_000])
    status, _, error = command(arguments(bundled, audio, tmp_path / "out"), capsys)
    assert status == 2
    assert "a.wav: lacks " in error
