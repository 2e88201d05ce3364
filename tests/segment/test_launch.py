"""Sharing recordings between processes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from segment.segmentation import share_of
from submission.store.launch import Launch, launched


@given(st.lists(st.floats(0, 7200), max_size=30), st.integers(1, 5))
def test_every_recording_is_one_processs(seconds, processes):
    shares = [share_of(Launch(rank=rank, processes=processes), seconds) for rank in range(processes)]
    assert sorted(i for share in shares for i in share) == list(range(len(seconds)))
    assert all(share == sorted(share) for share in shares)


def test_the_longest_recording_does_not_wait_behind_others():
    shares = [share_of(Launch(rank=rank, processes=2), [60, 60, 7200, 60]) for rank in range(2)]
    assert shares == [[2], [0, 1, 3]]


def test_a_launcher_says_which_process_this_is(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert launched() == Launch(rank=0, processes=1)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "29500")
    assert launched() == Launch(rank=1, processes=3)
