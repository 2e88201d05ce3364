"""What run.sh of a package does: every test set of the bundle, or one line for each recording of a list."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from evaluate.recordings import packaged
from submission.cli import run
from submission.package.contents import RUNTIME, package_files


def translate(bundled, capsys, *words: str | Path) -> tuple[int, str, str]:
    common = ["--bundle", str(bundled.folder), "--campaign", bundled.campaign]
    status = run(packaged.make_parser(), [*common, *(str(word) for word in words)])
    said = capsys.readouterr()
    return status, said.out, said.err


def shipped(bundled) -> dict[str, bytes]:
    """Return the bundle's outputs by their paths in it."""
    return {f"{path.parent.name}/{path.name}": path.read_bytes() for path in sorted(bundled.folder.glob("??-??/*.txt"))}


def made(out: Path) -> dict[str, bytes]:
    return {f"{path.parent.name}/{path.name}": path.read_bytes() for path in sorted(out.glob("??-??/*.txt"))}


def test_one_command_makes_every_output_of_the_bundle_and_loads_the_model_once(bundled, tmp_path, capsys, monkeypatch):
    from evaluate.decoding import model_loading

    loads = []
    original = model_loading.load_on

    def counted(*arguments):
        loads.append(arguments)
        return original(*arguments)

    monkeypatch.setattr(model_loading, "load_on", counted)
    status, _, said = translate(bundled, capsys, "--audio", bundled.audio, "--output", tmp_path / "out")
    assert status == 0, said
    assert made(tmp_path / "out") == shipped(bundled) != {}
    assert len(loads) == 1


def test_a_finished_run_resumes_at_once_and_other_batches_give_the_same_lines(bundled, tmp_path, capsys):
    words = ("--audio", bundled.audio / "talks", "--lang-pair", "en-de")
    assert translate(bundled, capsys, *words, "--output", tmp_path / "one", "--batch-size", 1)[0] == 0
    again = translate(bundled, capsys, *words, "--output", tmp_path / "one", "--batch-size", 1)
    assert again[0] == 0 and made(tmp_path / "one") == {"en-de/TALKS.txt": shipped(bundled)["en-de/TALKS.txt"]}
    status, _, said = translate(bundled, capsys, *words, "--output", tmp_path / "two", "--batch-size", 0)
    assert status == 2 and "--batch-size 0" in said


def test_a_list_gives_one_line_for_each_recording_short_or_long(bundled, tmp_path, capsys):
    talk = sorted((bundled.audio / "talks").rglob("*.wav"))[0]
    import soundfile

    samples, rate = soundfile.read(talk)
    soundfile.write(tmp_path / "short.wav", samples[: rate * 2], rate)
    listed = tmp_path / "list.txt"
    listed.write_text(f"short.wav\n{talk}\nshort.wav\n", encoding="utf-8")
    words = ("--input", listed, "--lang-pair", "en-de", "--output", tmp_path / "lines.txt")
    status, _, said = translate(bundled, capsys, *words)
    assert status == 0, said
    first, long, third = (tmp_path / "lines.txt").read_text(encoding="utf-8").splitlines()
    assert first == third and long and long != first
    assert not list(tmp_path.glob("*.run"))


def test_a_blank_line_of_a_list_is_a_blank_line_of_the_output(bundled, tmp_path, capsys):
    talk = sorted((bundled.audio / "talks").rglob("*.wav"))[0]
    (tmp_path / os.fsdecode(b"gespr\xe4ch.wav")).symlink_to(talk)
    listed = tmp_path / "list.txt"
    listed.write_bytes(b"\xef\xbb\xbf\r\ngespr\xe4ch.wav\r\n  \r\n" + os.fsencode(talk) + b"\r\n\r\n")
    words = ("--input", listed, "--lang-pair", "en-de", "--output", tmp_path / "lines.txt")
    status, _, said = translate(bundled, capsys, *words)
    assert status == 0, said
    lines = (tmp_path / "lines.txt").read_text(encoding="utf-8").split("\n")
    assert len(lines) == 6 and lines[1] == lines[3] != ""
    assert lines[0] == lines[2] == lines[4] == lines[5] == ""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--input", "none.txt", "--lang-pair", "en-de"], "no such file"),
        (["--input", "list.txt"], "name one pair with --lang-pair"),
        (["--input", "list.txt", "--lang-pair", "en-fr"], "--lang-pair en-fr: campaign "),
        (["--input", "list.txt", "--lang-pair", "en-de"], "lacks 1 of its 1 recording (first: "),
    ],
)
def test_impossible_requests_are_one_line_on_stderr(bundled, tmp_path, capsys, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    Path("list.txt").write_text("missing.wav\n", encoding="utf-8")
    status, out, said = translate(bundled, capsys, *words, "--output", "lines.txt")
    assert (status, out, said.count("\n")) == (2, "", 1) and message in said


def test_an_output_folder_among_the_recordings_is_named_by_its_option(bundled, capsys):
    place = bundled.audio / "out"
    status, out, said = translate(bundled, capsys, "--audio", bundled.audio, "--output", place)
    assert (status, out) == (2, "") and f"error: --output {place}: is inside the input folder" in said


def test_a_folder_for_the_lines_of_a_list_is_refused_before_anything_is_decoded(bundled, tmp_path, capsys):
    (tmp_path / "list.txt").write_text(f"{sorted(bundled.audio.rglob('*.wav'))[0]}\n", encoding="utf-8")
    (tmp_path / "out").mkdir()
    words = ("--input", tmp_path / "list.txt", "--lang-pair", "en-de", "--output", tmp_path / "out")
    status, out, said = translate(bundled, capsys, *words)
    assert (status, out, said.count("\n")) == (2, "", 1) and "is a folder, and a list becomes a file" in said
    assert not list(tmp_path.glob("*.run"))


def test_the_runtime_of_a_package_alone_gives_the_bundles_lines(bundled, tmp_path):
    place = tmp_path / "with blanks und Umläute"
    for name, content in package_files("system").items():
        if name.startswith(f"{RUNTIME}/"):
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_bytes(content)
    audio = shutil.copytree(bundled.audio / "accent", tmp_path / "Töne")
    for path in (*place.rglob("*"), place):
        path.chmod(0o555 if path.is_dir() else 0o444)
    words = ["--bundle", bundled.folder, "--campaign", bundled.campaign, "--audio", audio, "--output", tmp_path / "out"]
    done = subprocess.run(
        [sys.executable, "-P", "-m", "evaluate.recordings.packaged", *words],
        env={"PYTHONPATH": str(place / RUNTIME), "LANG": "C", "PYTHONUTF8": "1", "HF_HUB_OFFLINE": "1"},
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )
    for path in (place, *place.rglob("*")):
        os.chmod(path, 0o755)
    assert done.returncode == 0, done.stderr
    expected = {name: lines for name, lines in shipped(bundled).items() if name.endswith("ACCENT.txt")}
    assert made(tmp_path / "out") == expected != {}
