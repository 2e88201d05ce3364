from __future__ import annotations

import json

import pytest

from submission.benchmarking import describe_machine, peak_of_this_process, resident_bytes, run_benches
from submission.errors import UserError


def test_the_machine_is_described_in_plain_values():
    machine = describe_machine()
    assert machine["cores"] >= 1 and machine["memory_bytes"] > 1 << 28 and machine["processor"]
    assert json.loads(json.dumps(machine)) == machine


def test_the_peak_is_no_less_than_what_is_resident():
    held = bytearray(b"\1") * (64 << 20)
    assert peak_of_this_process() >= resident_bytes() > len(held)


def bench(passed):
    def measure(work):
        assert list(work.iterdir()) == []
        return {"passed": passed, "text": f"said\nof {passed}", "seconds": 1.5}

    return measure


@pytest.mark.parametrize(
    ("passed", "status", "verdict"), [(True, 0, "passed"), (False, 1, "NOT passed"), (None, 0, "not measured")]
)
def test_a_bench_that_is_not_passed_shows_in_the_status_and_one_that_is_not_measured_does_not(
    passed, status, verdict, tmp_path, capsys
):
    out = tmp_path / "new" / "figures.json"
    assert run_benches({"fine": bench(True), "other": bench(passed)}, [], out) == status
    assert f"other: {verdict}\n  said\n  of {passed}\n" in capsys.readouterr().out
    record = json.loads(out.read_text())
    assert record["benches"]["other"] == {"passed": passed, "text": f"said\nof {passed}", "seconds": 1.5}
    assert list(out.parent.iterdir()) == [out]


def test_only_the_named_are_run_and_an_unknown_one_is_refused_before_any(tmp_path):
    benches = {"fine": bench(True), "other": bench(False)}
    assert run_benches(benches, ["fine"], tmp_path / "figures.json") == 0
    with pytest.raises(UserError, match="bench othr: unknown; did you mean 'other'"):
        run_benches(benches, ["fine", "othr"], tmp_path / "more.json")
    assert not (tmp_path / "more.json").exists()


def test_a_folder_in_place_of_the_file_is_refused_before_anything_is_measured(tmp_path):
    def never(work):
        raise AssertionError("measured")

    with pytest.raises(UserError, match="is a folder; name a file"):
        run_benches({"never": never}, [], tmp_path)
