"""Fallbacks: which are tried on a failed hypothesis, and that the kept text is never a worse one."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from evaluate.decoding.failures import FAILURES, REPEATING
from evaluate.decoding.fallbacks import best_candidate, join_texts, quietest_sample, resolve
from evaluate.decoding.hypotheses import FLAGS, ScoredCandidate, read_hypotheses
from submission.system.fallbacks import FALLBACKS
from submission.system.recipe.decoding_options import DecodeOptions
from submission.text.segments import SAMPLE_RATE

PROMPT = "<|audio_bos|><|AUDIO|><|audio_eos|>Translate this speech to German:\n"
END = "<|im_end|>"
PLAIN = DecodeOptions(dtype="float32", num_beams=1, max_new_tokens=24, batch_size=8)
WITH_FALLBACKS = replace(PLAIN, fallbacks=tuple(sorted(FALLBACKS)))


def run(tiny, segments, recordings, out, options):
    from evaluate.decoding.decode import decode

    summary = decode(*tiny, segments, recordings, PROMPT, options, out, end_token=END)
    return summary, read_hypotheses(out)


@pytest.fixture(scope="module")
def plain(tiny, segments, recordings, tmp_path_factory):
    return run(tiny, segments, recordings, tmp_path_factory.mktemp("plain") / "h", PLAIN)[1]


@pytest.fixture(scope="module")
def fallback_file(tiny, segments, recordings, tmp_path_factory):
    out = tmp_path_factory.mktemp("fallbacks") / "h"
    run(tiny, segments, recordings, out, WITH_FALLBACKS)
    return out


def test_hypotheses_without_failure_stay_unchanged(plain, fallback_file):
    again = read_hypotheses(fallback_file)
    failed = [bool(set(p.flags) & set(FAILURES)) for p in plain]
    assert 0 < sum(failed) < len(plain)
    for p, m, fails in zip(plain, again, failed, strict=True):
        assert (m.fallback is not None) == fails
        assert fails or m == p


def test_a_line_holds_the_plain_result_the_tried_fallbacks_and_the_kept_one(plain, fallback_file):
    for p, m in zip(plain, read_hypotheses(fallback_file), strict=True):
        if m.fallback is None:
            continue
        assert (m.fallback.text, m.fallback.original.flags, m.plain_flags) == (p.text, p.flags, p.flags)
        assert set(m.fallback.tried) <= set(FALLBACKS)
        if m.fallback.kept:
            assert m.flags == m.fallback.tried[m.fallback.kept].flags
        else:
            assert (m.text, m.flags) == (p.text, p.flags)


def test_at_least_one_is_replaced_and_no_replacement_fails(fallback_file):
    kept = [m for m in read_hypotheses(fallback_file) if m.fallback and m.fallback.kept]
    assert kept
    assert not any(set(m.flags) & set(FAILURES) for m in kept)


def test_the_summary_counts_replaced_hypotheses(tiny, segments, recordings, tmp_path, fallback_file):
    out = tmp_path / "h"
    out.write_bytes(fallback_file.read_bytes())
    summary, hypotheses = run(tiny, segments, recordings, out, WITH_FALLBACKS)
    assert summary.decoded == 0
    assert sum(summary.fallbacks.values()) == sum(h.fallback is not None for h in hypotheses)
    assert "replaced by fallback" in str(summary)


def test_a_fallback_depends_on_no_other_segment(tiny, segments, recordings, tmp_path, fallback_file):
    out = tmp_path / "h"
    run(tiny, segments, recordings, out, replace(WITH_FALLBACKS, batch_size=1))
    assert out.read_bytes() == fallback_file.read_bytes()


def test_only_fallbacks_of_the_recipe_are_tried(tiny, segments, recordings, tmp_path):
    _, hypotheses = run(tiny, segments, recordings, tmp_path / "h", replace(PLAIN, fallbacks=("no_repeat",)))
    assert {name for h in hypotheses if h.fallback for name in h.fallback.tried} == {"no_repeat"}


def test_the_score_is_the_mean_log_probability_of_text_and_end_under_the_plain_model(
    tiny, segments, recordings, fallback_file
):
    from submission.runtime.audio import read_slice
    from submission.runtime.prompt import build_inputs

    model, processor = tiny
    hypotheses = read_hypotheses(fallback_file)
    number = next(n for n, h in enumerate(hypotheses) if h.fallback and h.fallback.kept)
    hypothesis, segment = hypotheses[number], segments[number]
    waveform = read_slice(recordings[segment.recording], segment.start, segment.end)
    inputs = build_inputs(processor, [waveform], [PROMPT], [hypothesis.text], end_token=END)
    with torch.inference_mode():
        loss = model(**inputs).loss
    assert hypothesis.fallback.tried[hypothesis.fallback.kept].score == pytest.approx(-float(loss), abs=1e-3)


@contextmanager
def silenced(model, processor, factor):
    """Make the model end at once in about every case where the end token has a chance."""
    end = processor.tokenizer.convert_tokens_to_ids(END)
    row = model.lm_head.weight[end].clone()
    with torch.no_grad():
        model.lm_head.weight[end] *= factor
    try:
        yield
    finally:
        with torch.no_grad():
            model.lm_head.weight[end] = row


def test_a_blank_is_decoded_again_and_stays_where_the_model_is_surer_of_it(tiny, segments, recordings, tmp_path):
    with silenced(*tiny, 30):
        _, plain = run(tiny, segments, recordings, tmp_path / "plain", PLAIN)
        _, again = run(tiny, segments, recordings, tmp_path / "fallbacks", WITH_FALLBACKS)
    blanks = [m for p, m in zip(plain, again, strict=True) if "empty_on_speech" in p.flags]
    assert blanks
    for m in blanks:
        assert set(m.fallback.tried) <= {"length", "split"}
        better = [
            c.score
            for c in m.fallback.tried.values()
            if c.score > m.fallback.original.score and not set(c.flags) & set(FAILURES)
        ]
        assert bool(m.fallback.kept) == bool(better)
        assert bool(m.text) == bool(better)


CANDIDATE = st.builds(
    ScoredCandidate,
    flags=st.sets(st.sampled_from(FLAGS), max_size=3).map(lambda flags: tuple(sorted(flags))),
    score=st.floats(-9, 0) | st.just(float("nan")),
)


@given(CANDIDATE, st.dictionaries(st.sampled_from(sorted(FALLBACKS)), CANDIDATE))
def test_what_is_kept_does_not_fail_and_is_the_likeliest_of_those(original, tried):
    kept = best_candidate(original, tried)
    good = {n: c for n, c in tried.items() if not set(c.flags) & {*FAILURES, "blank"} and c.score == c.score}
    if not set(original.flags) & set(REPEATING):
        good = {name: candidate for name, candidate in good.items() if candidate.score > original.score}
    assert bool(kept) == bool(good)
    assert not kept or tried[kept].score == max(candidate.score for candidate in good.values())


def test_a_segment_is_split_where_it_is_quietest_near_the_middle():
    waveform = np.random.default_rng(0).standard_normal(6 * SAMPLE_RATE).astype(np.float32)
    waveform[: SAMPLE_RATE // 2] = 0  # quieter, but at the edge
    waveform[int(3.6 * SAMPLE_RATE) : int(3.8 * SAMPLE_RATE)] *= 0.01
    assert 3.6 * SAMPLE_RATE <= quietest_sample(waveform) <= 3.8 * SAMPLE_RATE


@pytest.mark.parametrize("samples", [0, 1, 700, 3_000, 16_000, 100_001])
def test_silence_is_split_in_the_middle(samples):
    assert abs(quietest_sample(np.zeros(samples, dtype=np.float32)) - samples // 2) <= 160


def test_halves_are_joined_as_their_script_does_it():
    assert join_texts("Guten Tag.", "Wie geht's?") == "Guten Tag. Wie geht's?"
    assert join_texts("你好。", "你好吗?") == "你好。你好吗?"
    assert join_texts("", "Ja.") == "Ja." == join_texts("Ja.", "")


def test_the_line_of_a_hypothesis_with_fallback_has_its_fields(fallback_file):
    records = [json.loads(line) for line in fallback_file.read_text(encoding="utf-8").splitlines()]
    assert {frozenset(record) for record in records} == {
        frozenset({"flags", "segment", "text"}),
        frozenset({"flags", "segment", "text", "fallback", "without_fallback", "fallbacks_tried"}),
    }


def test_every_fallback_of_the_registry_exists_and_is_described():
    for name, fallback in FALLBACKS.items():
        assert callable(resolve(name)) and fallback.summary


def test_a_recipe_with_an_unknown_fallback_names_the_known_ones():
    with pytest.raises(ValueError, match="'luck' is unknown; choose from length, no_repeat, penalty, split"):
        replace(PLAIN, fallbacks=("luck",))
