"""Recovery of a small model: nearer to the original in the same bytes, again after a kill, never worse."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from quantize.artifact_files import RECOVERY_REPORT
from quantize.recovery import recover as recovery
from quantize.recovery import tuning
from quantize.recovery.recover import drawn_held_out, drawn_utterances, recover_system
from quantize.recovery.tunable_model import TunableModel
from submission.errors import UserError
from submission.miniature.model import SMALL
from submission.model.checkpoint import WEIGHTS, read_checkpoint
from submission.model.codecs import Affine
from submission.model.families import read_config
from submission.model.forecast import resolve_codecs
from submission.runtime.loading import load_model
from submission.runtime.prompt import render_prompt
from submission.system.campaign import read_campaign
from submission.system.data_folder import shipped_models
from submission.text.corpus import read_corpus
from tests.quantize.recovery.support import OPTIONS, UTTERANCES, coarse_codecs, pack_coarsely, recover, write_data
from tests.runtime.entropy.support import entropy_codecs, pack
from tests.support.tiny_qwen import build_checkpoint


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return build_checkpoint(tmp_path_factory.mktemp("base"), ["the cat sleeps", "die Katze schläft"], SMALL, 1)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module", params=["affine", "meta", "entropy"])
def packed(request, base, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("packed") / request.param
    if request.param == "entropy":
        return pack(base, out, entropy_codecs(base, 3.0))
    return pack_coarsely(base, out, coarse_codecs(base, meta_bits=8 if request.param == "meta" else None))


@pytest.fixture(scope="module")
def affine(base, tmp_path_factory) -> Path:
    return pack_coarsely(base, tmp_path_factory.mktemp("packed") / "model", coarse_codecs(base))


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_the_model_is_nearer_to_the_original_and_weighs_the_same(base, data, packed, tmp_path):
    out = recover(base, packed, data, tmp_path / "out")
    report = json.loads((out / RECOVERY_REPORT).read_text(encoding="utf-8"))
    assert report["kept"] == "tuned"
    assert report["divergence_after"]["value"] < 0.9 * report["divergence_before"]["value"]
    assert report["curve"][-1] < report["curve"][0]
    before, after = contents(packed), contents(out / "model")
    assert {name: len(text) for name, text in before.items()} == {name: len(text) for name, text in after.items()}
    assert [name for name in before if before[name] != after[name]] == [WEIGHTS]
    assert {p.name for p in out.iterdir()} == {"model", RECOVERY_REPORT}


def test_only_numbers_that_cost_nothing_are_changed(base, data, packed, tmp_path):
    out = recover(base, packed, data, tmp_path / "out")
    before, after = load_file(packed / WEIGHTS), load_file(out / "model" / WEIGHTS)
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert all(before[name].dtype == after[name].dtype for name in before)
    endings = {name.rpartition(".")[2] for name in changed}
    fixed = {"codes", "stream"} | ({"scale", "zero"} if packed.name == "meta" else set())
    assert not {name for name in changed if name.rpartition(".")[2] in fixed and before[name].dtype == torch.uint8}
    assert "weight" in endings and endings & {"scale", "scale_range", "row_scale"}
    assert all(before[name].ndim == 1 for name in changed if name.endswith((".weight", ".bias")))


def test_the_recovered_model_loads_and_computes_what_was_tuned(base, data, affine, tmp_path):
    out = recover(base, affine, data, tmp_path / "out")
    model, _ = load_model(out / "model", torch.float32)
    tuned = TunableModel(out / "model", "cpu")
    weights = {name for name, numbers in tuned.numbers.items() if numbers.change.abs().sum() == 0}
    assert weights == tuned.numbers.keys()  # it starts from what is stored
    assert read_checkpoint(out / "model").codecs == read_checkpoint(affine).codecs
    assert torch.isfinite(model.get_output_embeddings().weight.dequantize(torch.float32)).all()


def test_a_killed_run_resumes_to_the_same_bytes(base, data, affine, tmp_path, monkeypatch):
    monkeypatch.setattr(tuning, "SAVE_EVERY_STEPS", 5)
    whole = recover(base, affine, data, tmp_path / "whole")
    calls = []
    real = tuning.rate_at

    def killed(step: int, steps: int) -> float:
        calls.append(step)
        if step == 8 and calls.count(8) == 1:
            raise KeyboardInterrupt
        return real(step, steps)

    monkeypatch.setattr(tuning, "rate_at", killed)
    out = tmp_path / "resumed"
    with pytest.raises(KeyboardInterrupt):
        recover(base, affine, data, out)
    monkeypatch.setattr(recovery, "write_teacher", None)  # what the original said is there
    recover(base, affine, data, out)
    assert calls == [*range(9), *range(5, OPTIONS.steps)]
    assert contents(out) == contents(whole)


def test_a_model_that_tuning_makes_worse_stays_as_it_was_packed(base, data, affine, tmp_path):
    options = dataclasses.replace(OPTIONS, learning_rate=0.9, steps=2)
    out = recover(base, affine, data, tmp_path / "out", options)
    report = json.loads((out / RECOVERY_REPORT).read_text(encoding="utf-8"))
    assert report["divergence_after"]["value"] > report["divergence_before"]["value"]
    assert report["kept"] == "as packed" and contents(out / "model") == contents(affine)


def test_an_eighth_of_the_audio_is_held_out_and_all_translations_of_the_rest_are_tuned_on(base, data, affine, tmp_path):
    out = recover(base, affine, data, tmp_path / "out", dataclasses.replace(OPTIONS, steps=1))
    report = json.loads((out / RECOVERY_REPORT).read_text(encoding="utf-8"))
    assert report["held_out_utterances"] == 2 * (UTTERANCES // 8)
    assert report["utterances"] == 2 * (UTTERANCES - UTTERANCES // 8)


def test_audio_that_is_held_out_is_not_tuned_on_in_another_language(data):
    utterances = drawn_utterances(read_corpus(data / "train.jsonl"), OPTIONS, "train.jsonl")
    held_out = drawn_held_out(utterances, 1)
    assert len({utterances[index].start for index in held_out}) == UTTERANCES // 8
    tuned_on = {u.start for index, u in enumerate(utterances) if index not in held_out}
    assert tuned_on.isdisjoint(utterances[index].start for index in held_out)
    assert held_out != drawn_held_out(utterances, 2)


def test_of_the_stretches_that_are_drawn_all_translations_by_the_pairs_are_read(data):
    corpus = read_corpus(data / "train.jsonl")
    few = dataclasses.replace(OPTIONS, utterances=16)
    drawn = drawn_utterances(corpus, few, "train.jsonl")
    assert len(drawn) == 32 and [u for u in corpus if u in drawn] == drawn
    german = drawn_utterances(corpus, dataclasses.replace(few, pairs=("en-de",)), "train.jsonl")
    assert {u.start for u in german} == {u.start for u in drawn} and {u.target_lang for u in german} == {"de"}


def test_a_model_beyond_the_memory_is_refused_before_anything_is_read(base, affine, tmp_path, monkeypatch):
    monkeypatch.setattr(recovery, "free_bytes", lambda device: 1 << 20)
    with pytest.raises(UserError, match=r"recovery takes 0\.0 GiB for the model, cpu has 0\.0 free; run this step"):
        recover(base, affine, tmp_path / "no data", tmp_path / "out")


def test_more_utterances_than_there_are_are_refused(base, data, affine, tmp_path):
    options = dataclasses.replace(OPTIONS, utterances=UTTERANCES + 1)
    with pytest.raises(UserError, match=r"quantize\.recovery\.utterances: requests 25 utterances, .* has 24"):
        recover(base, affine, data, tmp_path / "out", options)


def test_the_rate_rises_and_falls_to_nearly_nothing():
    rates = [tuning.rate_at(step, 100) for step in range(100)]
    assert rates.index(max(rates)) == 4 and max(rates) == 1.0 and rates[-1] < 0.02
    assert rates[:5] == sorted(rates[:5]) and rates[5:] == sorted(rates[5:], reverse=True)
    assert tuning.rate_at(0, 1) == 1.0


def test_every_utterance_is_seen_before_one_is_seen_again():
    options = dataclasses.replace(OPTIONS, steps=5, batch_size=4)
    order = [index for batch in tuning._orders(range(10), options) for index in batch]
    assert sorted(order[:10]) == sorted(order[10:20]) == list(range(10)) and order[:10] != order[10:20]


def test_a_pass_with_gradients_is_bounded():
    class Length:
        def __init__(self, tokens: int) -> None:
            self.input_ids = range(tokens)

    examples = [Length(900), Length(100), Length(1100), Length(4000), Length(10)]
    assert list(tuning._parts(range(5), examples)) == [[0, 1], [2], [3], [4]]


def test_a_part_that_speech_does_not_go_through_is_not_tuned(data, tmp_path, monkeypatch):
    monkeypatch.setattr(tuning, "SAVE_EVERY_STEPS", 1)  # Adam has no averages of numbers that get no gradient
    campaign = read_campaign("miniature-gemma4")
    base = shipped_models(campaign)["base"]
    codecs = resolve_codecs(read_config(base), {"*": Affine(bits=4, group_size=32)})
    packed = pack_coarsely(base, tmp_path / "packed", codecs)
    recover_system(
        base,
        packed,
        data,
        data,
        tmp_path,
        options=dataclasses.replace(OPTIONS, steps=4, learning_rate=0.002),
        prompts={pair.name: render_prompt(campaign.prompt, pair.target_language) for pair in campaign.pairs},
        end_token=campaign.model.end_token,
    )
    before, after = load_file(packed / WEIGHTS), load_file(tmp_path / "model" / WEIGHTS)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and not any("vision" in name for name in changed)
    assert any("vision" in name for name in before)
