"""Batches: full at a budget, and smaller where memory runs out."""

from __future__ import annotations

import re
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from evaluate.decoding.batching import form_batches, in_parts, is_out_of_memory
from evaluate.decoding.hypotheses import read_hypotheses, recover_journal
from submission.errors import UserError
from submission.system.recipe.decoding_options import DecodeOptions
from submission.text.segments import SAMPLE_RATE, Segment

PROMPT = "<|audio_bos|><|AUDIO|><|audio_eos|>Translate this speech to German:\n"
OPTIONS = DecodeOptions(dtype="float32", num_beams=1, max_new_tokens=8, batch_size=8)


def run(tiny, segments, recordings, out, options=OPTIONS):
    from evaluate.decoding.decode import decode

    return decode(*tiny, segments, recordings, PROMPT, options, out, end_token="<|im_end|>")


def cut(lengths):
    return [Segment(recording="a.wav", start=5, end=5 + length) for length in lengths]


def test_batches_hold_like_lengths_the_longest_first():
    assert form_batches(cut([3, 9, 3, 7, 9]), replace(OPTIONS, batch_size=2)) == [[1, 4], [3, 0], [2]]


@given(
    st.lists(st.integers(1, 30 * SAMPLE_RATE), max_size=40),
    st.integers(1, 9),
    st.integers(1, 4),
    st.floats(0.1, 200),
)
def test_a_batch_is_within_rows_and_budget_and_every_segment_is_in_one(lengths, rows, beams, budget):
    options = replace(OPTIONS, batch_size=rows, num_beams=beams, batch_seconds=budget)
    batches = form_batches(cut(lengths), options)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        longest = lengths[batch[0]]
        assert longest == max(lengths[i] for i in batch)
        assert len(batch) <= rows
        assert len(batch) == 1 or len(batch) * longest * beams <= budget * SAMPLE_RATE
    firsts = [lengths[batch[0]] for batch in batches]
    assert firsts == sorted(firsts, reverse=True)


def test_beams_count_against_the_budget():
    segments = cut([SAMPLE_RATE] * 8)
    sizes = {
        beams: len(form_batches(segments, replace(OPTIONS, num_beams=beams, batch_seconds=8))[0]) for beams in (1, 2, 9)
    }
    assert sizes == {1: 8, 2: 4, 9: 1}


def raise_on_a_gpu() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def raise_on_a_processor() -> None:
    torch.empty(1 << 55, dtype=torch.uint8)


@contextmanager
def room_for(model, rows, fail=raise_on_a_gpu):
    """Let the model run out of memory at more than so many rows."""

    def check(module, args, kwargs):
        if len(kwargs["input_ids"]) > rows:
            fail()

    hook = model.register_forward_pre_hook(check, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()


@pytest.mark.parametrize("fail", [raise_on_a_gpu, raise_on_a_processor])
def test_where_memory_runs_out_batches_shrink_and_the_texts_stay(tiny, segments, recordings, tmp_path, capfd, fail):
    run(tiny, segments, recordings, tmp_path / "whole")
    with room_for(tiny[0], 3, fail):
        summary = run(tiny, segments, recordings, tmp_path / "shrunk")
    assert (tmp_path / "shrunk").read_bytes() == (tmp_path / "whole").read_bytes()
    assert summary.decoded == len(segments)
    said = [line for line in capfd.readouterr().err.splitlines() if "memory" in line]
    assert said == [
        "decode: out of memory with 8 segments at once, continuing with 4",
        "decode: out of memory with 4 segments at once, continuing with 2",
    ]


def test_beams_run_out_of_memory_sooner(tiny, segments, recordings, tmp_path, capfd):
    options = replace(OPTIONS, num_beams=2, batch_size=4)
    run(tiny, segments, recordings, tmp_path / "whole", options)
    with room_for(tiny[0], 4):
        run(tiny, segments, recordings, tmp_path / "shrunk", options)
    assert (tmp_path / "shrunk").read_bytes() == (tmp_path / "whole").read_bytes()
    assert capfd.readouterr().err.count("out of memory") == 1


def test_a_single_segment_that_does_not_fit_is_an_error_and_what_is_finished_stays(
    tiny, segments, recordings, tmp_path
):
    alone = form_batches(segments, OPTIONS)[-1][-1]
    one = [segments[alone]]
    run(tiny, one, recordings, tmp_path / "h", OPTIONS)
    line = (tmp_path / "h").read_bytes().replace(b"/0000", segment_suffix(segments, alone))
    (tmp_path / "h").write_bytes(line)
    with room_for(tiny[0], 0), pytest.raises(UserError, match="decode: one segment alone does not fit into memory"):
        run(tiny, segments, recordings, tmp_path / "h")
    assert (tmp_path / "h").read_bytes() == line
    run(tiny, segments, recordings, tmp_path / "h")
    assert len(read_hypotheses(tmp_path / "h")) == len(segments)


def segment_suffix(segments, index) -> bytes:
    from submission.text.segments import segment_ids

    return re.search("/[0-9]+$", segment_ids(segments)[index])[0].encode()


def test_parts_that_were_finished_before_memory_ran_out_are_in_the_journal(tiny, segments, recordings, tmp_path):
    calls = 0

    def fail_late(module, args, kwargs):
        nonlocal calls
        calls += kwargs["input_ids"].shape[1] > 1  # the first step of a part
        if calls > 3:
            raise_on_a_gpu()

    options = replace(OPTIONS, batch_size=2)
    hook = tiny[0].register_forward_pre_hook(fail_late, with_kwargs=True)
    try:
        with pytest.raises(UserError, match="does not fit"):
            run(tiny, segments, recordings, tmp_path / "h", options)
    finally:
        hook.remove()
    assert len(recover_journal(tmp_path / "h")) == 6
    run(tiny, segments, recordings, tmp_path / "whole", options)
    run(tiny, segments, recordings, tmp_path / "h", options)
    assert (tmp_path / "h").read_bytes() == (tmp_path / "whole").read_bytes()


def test_another_error_is_not_taken_for_a_lack_of_memory():
    from evaluate.decoding.batching import Capacity

    def fail(part):
        raise RuntimeError("expected scalar type Float but found Half")

    with pytest.raises(RuntimeError, match="scalar type"):
        list(in_parts([1, 2, 3, 4], Capacity(rows=4, label="x"), fail))
    assert not is_out_of_memory(RuntimeError("no memory of that"))
