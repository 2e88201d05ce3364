"""The store: complete or not there, under kills, races and damage."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from submission.errors import UserError
from submission.store.store import Input, Stage, Store

ROOT = Path(__file__).parents[3]

# A stage that writes four files slowly and counts how often it has been started; killed where a fourth word says when.
SLOW = """
import sys, time
from pathlib import Path
from submission.store.digests import write_text
from submission.store.store import Stage, Store
from tests.support.killing import kill_when

def make(folder):
    with open(sys.argv[2], "a") as starts:
        starts.write("x")
    for number in range(4):
        path = folder / f"{number}.txt"
        if not path.exists():
            time.sleep(0.15)
            write_text(path, f"file {number}\\n")

for pattern in sys.argv[4:]:
    kill_when(Path(sys.argv[1]), pattern)
stage = Stage(name="slow", revision=1, options={}, inputs={})
print(Store(root=Path(sys.argv[1])).obtain(stage, make, resume=sys.argv[3] == "resume"))
"""
STAGE = Stage(name="slow", revision=1, options={}, inputs={})


def start(store: Path, starts: Path, mode: str = "fresh", *kill: str) -> subprocess.Popen:
    command = [sys.executable, "-c", SLOW, str(store), str(starts), mode, *kill]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def finish(process: subprocess.Popen) -> str:
    out, _ = process.communicate()
    assert process.returncode == 0
    return out.strip()


def digest(store: Path) -> str:
    return Store(root=store).record(STAGE).digest


def stage(**changes) -> Stage:
    defaults = {"name": "s", "revision": 1, "options": {"a": 1}, "inputs": {"x": Input(digest="0", path=Path("x"))}}
    return Stage(**defaults | changes)


def write_one(folder: Path) -> None:
    (folder / "out.txt").write_text("one\n", encoding="utf-8")


def test_key_covers_name_part_revision_options_and_inputs_and_nothing_else():
    variants = [
        stage(),
        stage(name="t"),
        stage(part="p"),
        stage(revision=2),
        stage(options={"a": 2}),
        stage(inputs={"x": Input(digest="1", path=Path("x"))}),
    ]
    assert len({v.key for v in variants}) == len(variants)
    assert stage(command="python -m other").key == stage().key
    assert stage(options={"b": 1, "a": 2}).key == stage(options={"a": 2, "b": 1}).key
    assert stage(inputs={"x": Input(digest="0", path=Path("elsewhere"))}).key == stage().key


def test_a_stage_function_receives_the_values_that_the_key_hashes_and_where_its_inputs_lie(tmp_path):
    store, received = Store(root=tmp_path / "store"), []
    first = stage(name="first", inputs={}, options={})
    inputs = {
        "first": first.artifact,
        "part": Input(digest="p", path=Path("below"), stage=first),
        "data": Input(digest="d", path=tmp_path / "data"),
    }
    second = stage(name="second", options={"a": (1, 2), "b": {"c": None}}, inputs=inputs)

    def work(options, inputs, out):
        received.append((options, inputs))
        options["b"]["c"] = "changed"
        write_one(out)

    with pytest.raises(UserError, match="stage first: is not built"):
        store.build(second, work)
    artifact = store.build(first, lambda options, inputs, out: write_one(out))
    store.build(second, work)
    where = {"first": artifact, "part": artifact / "below", "data": tmp_path / "data"}
    assert received == [({"a": [1, 2], "b": {"c": "changed"}}, where)]
    assert second.options["b"] == {"c": None}
    assert store.record(second).inputs == {"first": first.key, "part": "p", "data": "d"}


def test_second_use_is_cached_and_not_made_again(tmp_path, capsys):
    store = Store(root=tmp_path / "store", journal=tmp_path / "journal.jsonl")
    first = store.obtain(stage(), write_one)
    second = store.obtain(stage(), lambda folder: pytest.fail("made twice"))
    assert first == second
    statuses = [json.loads(line)["status"] for line in (tmp_path / "journal.jsonl").read_text().splitlines()]
    assert statuses == ["built", "cached"]
    assert "s: cached in" in capsys.readouterr().err


def test_failing_stage_leaves_no_artifact(tmp_path):
    store = Store(root=tmp_path)

    def fail(folder: Path) -> None:
        write_one(folder)
        raise UserError("here", "broken", "fix it")

    with pytest.raises(UserError):
        store.obtain(stage(), fail)
    assert store.record(stage()) is None
    with pytest.raises(UserError, match="is not built"):
        store.need(stage())


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> str:
    """Return the digest of the slow stage's artifact where nothing kills it."""
    place = tmp_path_factory.mktemp("undisturbed")
    finish(start(place / "store", place / "starts"))
    return digest(place / "store")


@pytest.mark.parametrize("last", ["0.txt", "2.txt", "3.txt", "artifact.json"])
@pytest.mark.parametrize("mode", ["fresh", "resume"])
def test_killed_stage_leaves_no_artifact_and_the_next_run_gives_the_same_digest(tmp_path, undisturbed, mode, last):
    killed = start(tmp_path / "store", tmp_path / "starts", mode, f"partial/*/{last}")
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    assert not list((tmp_path / "store").glob("objects/*"))
    finish(start(tmp_path / "store", tmp_path / "starts", mode))
    assert digest(tmp_path / "store") == undisturbed
    assert (tmp_path / "starts").read_text() == "xx"


def test_two_builds_at_once_make_one_artifact(tmp_path):
    builds = [start(tmp_path / "store", tmp_path / "starts") for _ in range(3)]
    folders = {finish(build) for build in builds}
    assert len(folders) == 1
    assert (tmp_path / "starts").read_text() == "x"
    names = sorted(p.name for p in Path(folders.pop()).iterdir())
    assert names == ["0.txt", "1.txt", "2.txt", "3.txt", "artifact.json"]


def test_damaged_artifact_is_set_aside_and_built_again(tmp_path, capsys):
    store = Store(root=tmp_path)
    folder = store.obtain(stage(), write_one)
    (folder / "out.txt").write_text("o", encoding="utf-8")
    assert (store.obtain(stage(), write_one) / "out.txt").read_text() == "one\n"
    assert (tmp_path / "damaged" / stage().key / "out.txt").read_text() == "o"
    assert "damaged (out.txt)" in capsys.readouterr().err


def flip(path: Path) -> None:
    """Change a bit of a file, its size and times as they were: what a disk does."""
    data, status = bytearray(path.read_bytes()), path.stat()
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def copy_input(options: dict, inputs: dict[str, Path], out: Path) -> None:
    (out / "out.txt").write_bytes(b"".join((p / "out.txt").read_bytes() for p in inputs.values()))


def chain() -> tuple[Stage, Stage, Stage, Stage]:
    """Return first -> second -> third, and beside them one that reads nothing."""
    first = stage(name="first", inputs={}, command="python -m first")
    second = stage(name="second", inputs={"a": first.artifact}, command="python -m second")
    # Known by a part and not by the key, as parts of the data folder are.
    part = Input(digest="part", path=Path(), stage=second)
    return first, second, stage(name="third", inputs={"b": part}, command="python -m third"), stage(inputs={})


def build_all(store: Store) -> None:
    first, second, third, other = chain()
    for each in (first, other):
        store.build(each, lambda options, inputs, out: write_one(out))
    for each in (second, third):
        store.build(each, copy_input)


def run_python(code: str, *words: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code, *words], cwd=ROOT, capture_output=True, text=True, check=False)


def test_a_stage_does_not_work_with_an_input_that_changed_on_the_disk(tmp_path):
    store = Store(root=tmp_path)
    build_all(store)
    first, second, third, other = chain()
    fourth = stage(name="fourth", inputs={"a": third.artifact, "b": first.artifact}, command="python -m fourth")
    flip(store.folder(first) / "out.txt")
    os.utime(store.folder(first) / "out.txt", (0, 0))  # this process has read it before
    with pytest.raises(UserError, match="is not what its stage wrote") as refused:
        store.build(fourth, lambda *_: pytest.fail("worked"))
    # The damaged artifact and everything made from it are gone, nothing else, and the advice builds them in order.
    assert "first and what was made from it (second, third) moved" in refused.value.what
    commands = "`python -m first`, `python -m second`, `python -m third`"
    assert refused.value.fix.startswith(f"run {commands} and then this command again")
    assert [store.record(each) is None for each in (first, second, third, other)] == [True, True, True, False]
    assert sorted(p.name for p in (tmp_path / "damaged").iterdir()) == sorted(s.key for s in (first, second, third))
    build_all(store)
    assert (store.build(fourth, copy_input) / "out.txt").read_text() == "one\none\n"


def test_a_flipped_bit_that_leaves_size_and_times_is_found_by_the_next_process(tmp_path):
    store = Store(root=tmp_path)
    build_all(store)
    code = (
        "import sys; from pathlib import Path; from tests.submission.store.test_store import *\n"
        "from submission.errors import UserError\n"
        "try: print(Store(root=Path(sys.argv[1])).read(chain()[1]))\nexcept UserError as error: print(error)"
    )
    assert run_python(code, str(tmp_path)).stdout.strip() == str(store.folder(chain()[1]))
    flip(store.folder(chain()[1]) / "out.txt")
    assert "out.txt: is not what its stage wrote; second and what was made" in run_python(code, str(tmp_path)).stdout
    assert store.record(chain()[0]) is not None and store.record(chain()[2]) is None


def test_a_part_of_an_artifact_that_is_not_read_may_be_damaged(tmp_path):
    def write_two(folder: Path) -> None:
        for name in ("read", "unread"):
            (folder / name).mkdir()
            write_one(folder / name)

    store, first = Store(root=tmp_path), stage(name="first", inputs={})
    store.obtain(first, write_two)
    (store.folder(first) / "unread" / "out.txt").write_text("two\n", encoding="utf-8")
    second = stage(name="second", inputs={"a": Input(digest="x", path=Path("read"), stage=first)})
    assert (store.build(second, copy_input) / "out.txt").read_text() == "one\n"


def test_what_is_found_truncated_takes_along_what_was_made_from_it(tmp_path, capsys):
    store = Store(root=tmp_path)
    build_all(store)
    first, second, third, other = chain()
    (store.folder(second) / "out.txt").write_text("", encoding="utf-8")
    store.build(second, copy_input)
    assert "with what was made from it (third) and built again" in capsys.readouterr().err
    assert [store.record(each) is None for each in (first, second, third, other)] == [False, False, True, False]


@pytest.mark.parametrize("torn", ["", '{"key": "', "[]", "{}", "\x00\x00"])
def test_an_artifact_whose_record_is_torn_is_not_built_and_is_set_aside(tmp_path, capsys, torn):
    store = Store(root=tmp_path)
    folder = store.obtain(stage(), write_one)
    whole = (folder / "artifact.json").read_bytes()
    (folder / "artifact.json").write_text(torn, encoding="utf-8")
    assert store.record(stage()) is None
    with pytest.raises(UserError, match="is not built"):
        store.need(stage())
    assert (
        json.loads((store.obtain(stage(), write_one) / "artifact.json").read_bytes()).keys() == json.loads(whole).keys()
    )
    assert (tmp_path / "damaged" / stage().key / "out.txt").read_text() == "one\n"
    assert "damaged (artifact.json)" in capsys.readouterr().err


def test_digest_does_not_know_the_time_the_machine_or_the_library_versions(tmp_path):
    one, two = Store(root=tmp_path / "one"), Store(root=tmp_path / "two")
    one.obtain(stage(), write_one)
    time.sleep(0.05)
    two.obtain(stage(), write_one)
    assert one.record(stage()).digest == two.record(stage()).digest


def test_journal_belongs_to_one_build_and_knows_how_long_it_takes(tmp_path, monkeypatch):
    store = Store(root=tmp_path, journal=tmp_path / "journals" / "system.jsonl")
    assert store.read_journal() == ([], None)
    store.obtain(stage(), write_one)
    assert store.read_journal()[1] is None
    monkeypatch.setattr("submission.store.store.time.time", lambda: 1_000.0)
    store.begin_journal()
    store.obtain(stage(), write_one)
    store.obtain(stage(), write_one)
    for clock, seconds in ((1_025.5, 25.5), (999.0, None)):  # set back
        monkeypatch.setattr("submission.store.store.time.time", lambda clock=clock: clock)
        uses, found = store.read_journal()
        assert [(use.stage, use.status) for use in uses] == [("s", "cached")] and found == seconds


def test_what_a_killed_writer_left_beside_a_file_is_not_published(tmp_path):
    store = Store(root=tmp_path)
    partial = tmp_path / "partial" / stage().key / "adapter"
    partial.mkdir(parents=True)
    (partial / ".config.json.x1y2.aside").write_text("torn", encoding="utf-8")
    store.obtain(stage(), write_one, resume=True)
    assert sorted(store.record(stage()).files) == ["out.txt"]


def test_journal_line_torn_by_a_kill_is_passed_over(tmp_path):
    store = Store(root=tmp_path, journal=tmp_path / "journal.jsonl")
    store.begin_journal()
    store.obtain(stage(), write_one)
    with store.journal.open("a", encoding="utf-8") as file:
        file.write('{"stage": "to')
    assert [use.stage for use in store.read_journal()[0]] == ["s"]
    for name in ("lost", "third"):  # the first one's line continues the torn one
        store.obtain(stage(name=name), write_one)
    assert [use.stage for use in store.read_journal()[0]] == ["s", "third"]
