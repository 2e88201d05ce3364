"""How many processors a process was given, from made-up hierarchies of control groups."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from submission import processors
from submission.processors import given_processors, quotas

ROOT = Path(__file__).parents[2]


def hierarchy(root: Path, groups: str, files: dict[str, str]) -> tuple[Path, Path]:
    """Write a list of control groups, and files of their mounted hierarchies; return the paths of both."""
    root.mkdir(exist_ok=True)
    (root / "cgroup").write_text(groups, encoding="utf-8")
    for name, text in files.items():
        path = root / "mounted" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root / "cgroup", root / "mounted"


def test_quota_of_version_2_is_found_in_every_group_above(tmp_path):
    files = {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "150000 100000\n", "cpu.max": "800000 100000\n"}
    assert quotas(*hierarchy(tmp_path, "0::/a/b\n", files)) == [1.5, 8.0]


def test_quota_of_version_1_is_found_where_the_container_mounts_its_own_group_as_the_root(tmp_path):
    files = {"cpu,cpuacct/cpu.cfs_quota_us": "200000\n", "cpu,cpuacct/cpu.cfs_period_us": "100000\n"}
    groups = "4:memory:/x\n3:cpu,cpuacct:/docker/0123\n0::/docker/0123\n"
    assert quotas(*hierarchy(tmp_path, groups, files)) == [2.0]


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n", "cpu.max": "max 100000\n"},
        {"cpu.max": "nonsense", "cpu/cpu.cfs_quota_us": "0", "cpu/cpu.cfs_period_us": "0"},
    ],
)
def test_no_quota_is_no_cap(tmp_path, files):
    assert quotas(*hierarchy(tmp_path, "1:cpu:/\n0::/\n", files)) == []


def test_quota_caps_the_processors_and_a_fraction_counts_as_one(tmp_path, monkeypatch):
    groups, mounted = hierarchy(tmp_path, "0::/\n", {"cpu.max": "30000 100000\n"})
    monkeypatch.setattr(processors, "GROUPS", groups)
    monkeypatch.setattr(processors, "MOUNTED", mounted)
    assert given_processors() == 1


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="no affinity here")
def test_affinity_caps_the_processors():
    one = min(os.sched_getaffinity(0))
    code = (
        f"import os; os.sched_setaffinity(0, {{{one}}}); from submission.processors import *; print(given_processors())"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"


@pytest.mark.skipif(given_processors() < 2, reason="one processor cannot be capped further")
def test_a_capped_command_sets_its_threads_and_leaves_what_the_user_set(tmp_path, monkeypatch):
    groups, mounted = hierarchy(tmp_path, "0::/\n", {"cpu.max": "50000 100000\n"})
    monkeypatch.setattr(processors, "GROUPS", groups)
    monkeypatch.setattr(processors, "MOUNTED", mounted)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    processors.set_thread_defaults()
    assert (os.environ["OMP_NUM_THREADS"], os.environ["OMP_WAIT_POLICY"]) == ("1", "PASSIVE")
    assert processors.threads_text() == "1 thread"
    monkeypatch.setenv("OMP_NUM_THREADS", "6")
    processors.set_thread_defaults()
    assert processors.threads_text() == "up to 6 threads"
