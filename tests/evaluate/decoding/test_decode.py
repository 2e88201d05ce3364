"""Decoding: one hypothesis a segment, the same in any batch and after a killed run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from evaluate.decoding.batching import form_batches
from evaluate.decoding.hypotheses import read_hypotheses
from submission.errors import UserError
from submission.system.recipe.decoding_options import DecodeOptions
from submission.text.characters import plain_line
from submission.text.segments import SAMPLE_RATE, Segment, segment_ids
from tests.support.launching import HANG_SECONDS

ROOT = Path(__file__).parents[3]
PROMPT = "<|audio_bos|><|AUDIO|><|audio_eos|>Translate this speech to German:\n"
END = "<|im_end|>"
OPTIONS = DecodeOptions(dtype="float32", num_beams=1, max_new_tokens=8, batch_size=4)


def run(tiny, segments, recordings, out, options=OPTIONS):
    from evaluate.decoding.decode import decode

    return decode(*tiny, segments, recordings, PROMPT, options, out, end_token=END)


@pytest.fixture(scope="module")
def undisturbed(tiny, segments, recordings, tmp_path_factory) -> Path:
    """Return the file of a run with OPTIONS over all segments."""
    out = tmp_path_factory.mktemp("undisturbed") / "hypotheses.jsonl"
    run(tiny, segments, recordings, out)
    return out


def test_hypotheses_stand_in_the_order_of_the_segments_under_their_ids(undisturbed, segments):
    assert [h.segment for h in read_hypotheses(undisturbed)] == segment_ids(segments)


def test_the_tiny_model_has_something_to_say(undisturbed):
    hypotheses = read_hypotheses(undisturbed)
    assert len({h.text for h in hypotheses}) > 5
    assert len({h.flags for h in hypotheses}) > 1
    assert hypotheses[-1].text == hypotheses[3].text  # the same segment twice


@pytest.mark.parametrize("beams", [1, 3])
def test_one_by_one_equals_batched(tiny, segments, recordings, tmp_path, beams):
    options = replace(OPTIONS, num_beams=beams)
    for batch_size in (1, 3, 16):
        run(tiny, segments, recordings, tmp_path / f"{batch_size}", replace(options, batch_size=batch_size))
    assert (tmp_path / "1").read_bytes() == (tmp_path / "3").read_bytes() == (tmp_path / "16").read_bytes()


def test_each_token_of_a_batch_is_as_likely_as_alone(tiny, segments, recordings):
    import torch
    from transformers import GenerationConfig

    from submission.runtime.audio import read_slice
    from submission.runtime.prompt import Example, build_inputs, collate, encode, extract_features

    model, processor = tiny
    waveforms = [read_slice(recordings[s.recording], s.start, s.end) for s in segments[:6]]
    inputs = build_inputs(processor, waveforms, [PROMPT] * 6)
    audio = processor.tokenizer.convert_tokens_to_ids(processor.audio_token)  # of which an answer holds none
    settings = GenerationConfig(
        max_new_tokens=8, pad_token_id=processor.tokenizer.pad_token_id, do_sample=False, suppress_tokens=[audio]
    )
    with torch.inference_mode():
        given = model.generate(**inputs, generation_config=settings, return_dict_in_generate=True, output_logits=True)
    answers = given.sequences[:, inputs["input_ids"].shape[1] :]
    batched = torch.stack(given.logits, dim=1).log_softmax(-1).gather(-1, answers[..., None])[..., 0]
    for waveform, answer, scores in zip(waveforms, answers, batched, strict=True):
        example = encode(processor, extract_features(processor, waveform), PROMPT)
        ids = torch.cat([example.input_ids, answer])
        whole = Example(audio=example.audio, input_ids=ids, prompt_tokens=example.prompt_tokens)
        batch = collate([whole], processor.tokenizer.pad_token_id, "right", labels=False)
        with torch.inference_mode():
            logits = model(**batch).logits[0, example.prompt_tokens - 1 : -1]
        alone = logits.log_softmax(-1).gather(-1, answer[:, None])[:, 0]
        assert torch.allclose(scores, alone, atol=2e-4)


@pytest.mark.parametrize("beams", [2, 4])
def test_beams_in_batches_are_the_librarys_own_one_by_one_and_flagged_where_they_do_not_end(
    tiny, segments, recordings, tmp_path, beams, undisturbed
):
    from evaluate.decoding.generation import generation_settings
    from submission.runtime.audio import read_slice
    from submission.runtime.prompt import build_inputs

    model, processor = tiny
    options = replace(OPTIONS, num_beams=beams, batch_size=5, batch_seconds=20)
    run(tiny, segments, recordings, tmp_path / "h", options)
    found, settings = read_hypotheses(tmp_path / "h"), generation_settings(processor, options, END)
    for segment, hypothesis in zip(segments, found, strict=True):
        inputs = build_inputs(
            processor, [read_slice(recordings[segment.recording], segment.start, segment.end)], [PROMPT]
        )
        answer = model.generate(**inputs, generation_config=settings)[0, inputs["input_ids"].shape[1] :].tolist()
        assert ("truncated" in hypothesis.flags) == (settings.eos_token_id not in answer)
        assert hypothesis.text == plain_line(processor.tokenizer.decode(answer, skip_special_tokens=True))
    assert {"truncated" in hypothesis.flags for hypothesis in found} == {True, False}
    assert [h.text for h in found] != [h.text for h in read_hypotheses(undisturbed)]


def test_the_encoder_reads_the_longest_segment_of_a_batch_and_texts_are_those_of_whole_windows(
    tiny, segments, recordings, tmp_path
):
    from evaluate.decoding.generation import generation_settings
    from submission.runtime.audio import read_slice
    from submission.runtime.prompt import build_inputs

    model, processor = tiny
    frames = []
    handle = model.model.audio_tower.conv1.register_forward_pre_hook(lambda _, given: frames.append(given[0].shape[-1]))
    run(tiny, segments, recordings, tmp_path / "h")
    handle.remove()
    lengths = [max(segments[i].end - segments[i].start for i in batch) for batch in form_batches(segments, OPTIONS)]
    hop = processor.feature_extractor.hop_length
    assert [0 <= read - -(-length // hop) <= 3 for read, length in zip(frames, lengths, strict=True)] == [True] * 4
    settings = generation_settings(processor, OPTIONS, END)
    for segment, hypothesis in zip(segments, read_hypotheses(tmp_path / "h"), strict=True):
        waveform = read_slice(recordings[segment.recording], segment.start, segment.end)
        whole = build_inputs(processor, [waveform], [PROMPT])
        assert whole["input_features"].shape[-1] == processor.feature_extractor.nb_max_frames
        answer = model.generate(**whole, generation_config=settings)[0, whole["input_ids"].shape[1] :].tolist()
        assert hypothesis.text == plain_line(processor.tokenizer.decode(answer, skip_special_tokens=True))


def test_a_segment_too_short_for_the_model_gets_a_blank_line(tiny, recordings, tmp_path):
    segments = [Segment(recording="a.wav", start=100, end=100 + length) for length in (1, 399, 20_000)]
    summary = run(tiny, segments, recordings, tmp_path / "h", replace(OPTIONS, batch_size=2))
    hypotheses = read_hypotheses(tmp_path / "h")
    assert [(h.text, h.flags) for h in hypotheses[:2]] == [("", ("blank", "too_short"))] * 2
    assert "too_short" not in hypotheses[2].flags
    assert summary.flags["too_short"] == 2


def test_a_segment_over_the_encoders_window_is_flagged_as_clipped(tiny, recordings, tmp_path):
    window = 8 * SAMPLE_RATE
    segments = [Segment(recording="b.wav", start=7, end=7 + length) for length in (window + 1, window)]
    run(tiny, segments, recordings, tmp_path / "h")
    long, full = read_hypotheses(tmp_path / "h")
    assert ("clipped" in long.flags, "clipped" in full.flags) == (True, False)
    assert long.text == full.text


def test_an_unfinished_hypothesis_is_flagged_as_truncated_and_a_finished_one_is_not(
    tiny, segments, recordings, tmp_path
):
    run(tiny, segments, recordings, tmp_path / "short", replace(OPTIONS, max_new_tokens=1))
    run(tiny, segments, recordings, tmp_path / "long", replace(OPTIONS, max_new_tokens=24))
    short, long = read_hypotheses(tmp_path / "short"), read_hypotheses(tmp_path / "long")
    assert sum("truncated" in h.flags for h in short) > sum("truncated" in h.flags for h in long)
    finished = [(s, n) for s, n in zip(short, long, strict=True) if "truncated" not in s.flags]
    assert all(s.text == n.text for s, n in finished)


def test_no_segments_give_an_empty_file(tiny, recordings, tmp_path):
    run(tiny, [], recordings, tmp_path / "h")
    assert (tmp_path / "h").read_bytes() == b""
    assert read_hypotheses(tmp_path / "h") == []


def test_the_checkpoints_own_generation_settings_do_not_count_and_come_back(
    tiny, segments, recordings, tmp_path, undisturbed
):
    from transformers import GenerationConfig

    model = tiny[0]
    own = model.generation_config
    sampling = GenerationConfig(do_sample=True, temperature=9.0, repetition_penalty=9.0, max_new_tokens=3)
    model.generation_config = sampling
    try:
        run(tiny, segments, recordings, tmp_path / "h")
        assert model.generation_config is sampling
    finally:
        model.generation_config = own
    assert (tmp_path / "h").read_bytes() == undisturbed.read_bytes()


def test_nothing_is_printed_by_the_libraries(tiny, segments, recordings, tmp_path, capfd):
    run(tiny, segments[:4], recordings, tmp_path / "h")
    captured = capfd.readouterr()
    assert captured.out == ""
    assert all(line.startswith("decode:") for line in captured.err.splitlines())


def test_a_missing_recording_is_named_before_anything_is_decoded(tiny, segments, recordings, tmp_path):
    with pytest.raises(UserError, match=r"1 of 2 recordings of the segments are missing \(first: b\.wav\)"):
        run(tiny, segments, {"a.wav": recordings["a.wav"]}, tmp_path / "h")
    assert not (tmp_path / "h").exists()


def test_a_segment_past_the_recordings_end_is_refused_with_both_numbers(tiny, recordings, tmp_path):
    segments = [Segment(recording="a.wav", start=0, end=320_001)]
    with pytest.raises(UserError, match="a segment ends at sample 320001, the recording at 320000"):
        run(tiny, segments, recordings, tmp_path / "h")


def test_an_unknown_end_token_is_refused(tiny, segments, recordings, tmp_path):
    from evaluate.decoding.decode import decode

    with pytest.raises(UserError, match="end token"):
        decode(*tiny, segments, recordings, PROMPT, OPTIONS, tmp_path / "h", end_token="<|stop|>")


def test_one_process_resumes_the_work_of_several(tiny, segments, recordings, tmp_path, undisturbed):
    out, lines = tmp_path / "h", undisturbed.read_text(encoding="utf-8").splitlines(keepends=True)
    batches = [[lines[i] for i in batch] for batch in form_batches(segments, OPTIONS)]
    assert len(batches) == 4
    journals = {"h": batches[0], "h.1": batches[1], "h.2": batches[2][:2]}
    for name, kept in journals.items():
        (tmp_path / name).write_text("".join(kept) + '{"flags": [', encoding="utf-8")
    summary = run(tiny, segments, recordings, out)
    assert out.read_bytes() == undisturbed.read_bytes()
    assert summary.decoded == len(segments) - 8
    assert [path.name for path in tmp_path.iterdir()] == ["h"]


SHARED = """
import json, sys
from pathlib import Path
from evaluate.decoding.decode import decode
from submission.store.launch import process_group
from submission.system.recipe.decoding_options import DecodeOptions
from submission.runtime.loading import load_model
from submission.text.segments import Segment
given = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
model, processor = load_model(Path(given["checkpoint"]), "float32")
recordings = {name: Path(path) for name, path in given["recordings"].items()}
segments = [Segment(recording=r, start=s, end=e) for r, s, e in given["segments"]]
options = DecodeOptions(**given["options"])
prompt, end = given["prompt"], given["end"]
with process_group():
    for out in given["out"]:
        outcome = decode(model, processor, segments, recordings, prompt, options, Path(out), end_token=end)
        assert outcome.segments == len(segments)
"""


def test_two_processes_give_the_file_of_one_fresh_or_resumed(checkpoint, segments, recordings, tmp_path, undisturbed):
    lines = undisturbed.read_text(encoding="utf-8").splitlines(keepends=True)
    batches = [[lines[i] for i in batch] for batch in form_batches(segments, OPTIONS)]
    begun, resumed = tmp_path / "begun", tmp_path / "resumed"
    begun.mkdir()
    resumed.mkdir()
    for name, kept in {"h": batches[3], "h.1": batches[0][:1], "h.4": batches[1]}.items():  # of five, once
        (resumed / name).write_text("".join(kept) + kept[0][:9], encoding="utf-8")
    given = {
        "checkpoint": str(checkpoint),
        "recordings": {name: str(path) for name, path in recordings.items()},
        "segments": [(s.recording, s.start, s.end) for s in segments],
        "options": asdict(OPTIONS),
        "prompt": PROMPT,
        "end": END,
        "out": [str(begun / "h"), str(resumed / "h")],
    }
    (tmp_path / "given.json").write_text(json.dumps(given), encoding="utf-8")
    (tmp_path / "shared.py").write_text(SHARED, encoding="utf-8")
    words = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
    done = subprocess.run(
        [*words, str(tmp_path / "shared.py"), str(tmp_path / "given.json")],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        timeout=HANG_SECONDS,
    )
    assert done.returncode == 0, done.stderr
    for folder in (begun, resumed):
        assert (folder / "h").read_bytes() == undisturbed.read_bytes()
        assert [path.name for path in folder.iterdir()] == ["h"]


@pytest.mark.parametrize("kept", [0, 1, 5.5, 8, 14.9])
def test_a_torn_file_is_continued_to_the_same_bytes(tiny, segments, recordings, tmp_path, undisturbed, kept):
    out, lines = tmp_path / "h", undisturbed.read_text(encoding="utf-8").splitlines(keepends=True)
    order = [lines[i] for batch in form_batches(segments, OPTIONS) for i in batch]
    whole = int(kept)
    torn = order[whole][: int(len(order[whole]) * (kept - whole))]
    out.write_text("".join(order[:whole]) + torn, encoding="utf-8")
    summary = run(tiny, segments, recordings, out)
    assert out.read_bytes() == undisturbed.read_bytes()
    assert summary.decoded == len(segments) - whole // 4 * 4


def test_hypotheses_of_other_segments_are_not_taken_over(tiny, segments, recordings, tmp_path, undisturbed):
    out = tmp_path / "h"
    out.write_bytes(undisturbed.read_bytes())
    with pytest.raises(UserError, match="holds 14 hypotheses of other segments"):
        run(tiny, segments[:1], recordings, out)


CHILD = """
import json, os, signal, sys
from pathlib import Path
from evaluate.decoding import decode as decoding
from submission.system.recipe.decoding_options import DecodeOptions
from submission.runtime.loading import load_model
from submission.text.segments import Segment
given = json.loads(sys.argv[1])
model, processor = load_model(Path(given["checkpoint"]), "float32")
recordings = {name: Path(path) for name, path in given["recordings"].items()}
segments = [Segment(recording=r, start=s, end=e) for r, s, e in given["segments"]]
options = DecodeOptions(**given["options"])
append, batches = decoding.append, iter(range(1, 4))

def append_until_the_third_batch(journal, hypotheses):
    append(journal, hypotheses)
    if next(batches) == 3:
        os.kill(os.getpid(), signal.SIGKILL)

decoding.append = append_until_the_third_batch
out = Path(given["out"])
decoding.decode(model, processor, segments, recordings, given["prompt"], options, out, end_token=given["end"])
"""


def test_a_run_killed_in_its_work_is_continued_to_the_same_bytes(checkpoint, tiny, segments, recordings, tmp_path):
    options, many = replace(OPTIONS, batch_size=2), segments * 6
    out = tmp_path / "h"
    given = {
        "checkpoint": str(checkpoint),
        "recordings": {name: str(path) for name, path in recordings.items()},
        "segments": [(s.recording, s.start, s.end) for s in many],
        "options": asdict(options),
        "prompt": PROMPT,
        "end": END,
        "out": str(out),
    }
    child = [sys.executable, "-c", CHILD, json.dumps(given)]
    killed = subprocess.run(child, cwd=ROOT, capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert out.read_bytes().count(b"\n") == 6
    summary = run(tiny, many, recordings, out, options)
    assert summary.decoded == len(many) - 6
    run(tiny, many, recordings, tmp_path / "undisturbed", options)
    assert out.read_bytes() == (tmp_path / "undisturbed").read_bytes()
