"""Moments of a small model's weights on utterances: what they are by definition, of which positions, and again."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from quantize.calibration import model_moments
from quantize.calibration.model_moments import MOMENTS, MomentsFolder, calibrate, drawn
from quantize.calibration.moments import input_path, output_path
from quantize.solvers.feedback import factorize
from submission.errors import UserError
from submission.miniature.model import SMALL, build_checkpoint
from submission.model.families import family_of, read_config, tensors
from submission.runtime.examples import load_examples
from submission.runtime.families import runtime_of
from submission.runtime.loading import load_model
from submission.runtime.loss import make_batch
from submission.system.recipe import MomentsOptions
from submission.text.corpus import Utterance, read_corpus, write_corpus
from tests.support.recordings import write_noise

LANGUAGES = {"de": "German", "zh": "Chinese"}
PROMPTS = {f"en-{code}": f"<|audio_bos|><|AUDIO|><|audio_eos|>{name}:" for code, name in LANGUAGES.items()}
OPTIONS = MomentsOptions(pairs=("en-de", "en-zh"), source="dev", utterances=0, gradient_utterances=3, seed=1)
SECONDS = (1.0, 0.5, 1.5, 0.7, 1.2)
PROJECTOR = "multi_modal_projector.linear.weight"


def corpus() -> list[Utterance]:
    found, start = [], 0
    for number, seconds in enumerate(SECONDS):
        end = start + round(16_000 * seconds)
        found += [
            Utterance(
                id=f"{number}-{code}",
                audio="dev/talk.wav",
                start=start,
                end=end,
                source="the cat",
                target="die Katze schläft" if number % 2 else "Katze",
                source_lang="en",
                target_lang=code,
                recording="talk",
            )
            for code in LANGUAGES
        ]
        start = end
    return found


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return build_checkpoint(tmp_path_factory.mktemp("base"), ["the cat sleeps", "die Katze schläft"], SMALL, 1)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """dev.jsonl and, below the same folder, the recording that it cuts."""
    folder = tmp_path_factory.mktemp("data")
    write_corpus(folder / "dev.jsonl", corpus())
    write_noise(folder / "dev" / "talk.wav", seconds=10)
    return folder


def run(base: Path, data: Path, out: Path, options: MomentsOptions = OPTIONS) -> MomentsFolder:
    out.mkdir(exist_ok=True)
    calibrate(base, data, data, out, options=options, prompts=PROMPTS, end_token="<|im_end|>")
    return MomentsFolder(out)


@pytest.fixture(scope="module")
def made(base, data, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("made")
    run(base, data, out)
    return out


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_every_weight_that_can_be_packed_has_moments_of_its_shape(base, made):
    folder = MomentsFolder(made)
    for spec in tensors(read_config(base)):
        if spec.packable:
            moments = folder.read(spec.name)
            assert (
                moments.read_second_moment().shape == (spec.shape[1],) * 2
                and moments.importance.shape == spec.shape[:1]
            )
            assert moments.importance.sum() > 0 and moments.read_second_moment().diagonal().sum() > 0
            assert factorize(moments.read_second_moment(), spec.shape[1]).feedback is not None


def test_weights_that_read_one_input_share_a_file(made):
    inputs = MomentsFolder(made).inputs
    layer = "language_model.model.layers.0"
    assert len({inputs[f"{layer}.self_attn.{part}_proj.weight"] for part in "qkv"}) == 1
    assert inputs[f"{layer}.mlp.gate_proj.weight"] == inputs[f"{layer}.mlp.up_proj.weight"]
    assert inputs[f"{layer}.mlp.gate_proj.weight"] != inputs[f"{layer}.mlp.down_proj.weight"]


@pytest.mark.parametrize("name", [PROJECTOR, "audio_tower.layers.0.fc2.weight"])
def test_padding_of_audio_and_of_batches_is_left_out(base, data, made, name):
    """One utterance at a time, its positions alone, gives what batches give."""
    model, processor = load_model(base, torch.float32)
    chosen = list(read_corpus(data / "dev.jsonl"))
    turned = [next(u for u in chosen if u.id == f"{n}-{('de', 'zh')[n % 2]}") for n in range(len(SECONDS))]
    prompts = {pair.partition("-")[2]: prompt for pair, prompt in PROMPTS.items()}
    config = read_config(base)
    family, seen = family_of(config), []
    path = family.module_name(name).removesuffix(".weight")
    model.get_submodule(path).register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()[0]))
    stack = next(s for s in family.stacks if s.name == ("projector" if name == PROJECTOR else "audio"))
    rows = []
    for example in load_examples(turned, data, processor, prompts, "<|im_end|>", label="test"):
        model.base_model(**make_batch([example], 0, "cpu").inputs, use_cache=False)
        rows.append(seen.pop()[: stack.positions(example.audio.frames, len(example.input_ids))])
    inputs = torch.cat(rows).double()
    expected = inputs.t() @ inputs / len(inputs)
    assert torch.allclose(MomentsFolder(made).read(name).read_second_moment().double(), expected, rtol=1e-3, atol=1e-6)


def test_the_token_that_stands_for_audio_counts_like_one_that_is_never_read(base, made):
    config = read_config(base)
    importance = MomentsFolder(made).read("language_model.model.embed_tokens.weight").importance
    assert importance[runtime_of(config).audio_token(config)] == importance.min() < importance.max()


def test_calibrating_twice_gives_the_same_bytes(base, data, made, tmp_path):
    run(base, data, tmp_path / "again")
    assert files(tmp_path / "again") == files(made)


def test_a_killed_run_measures_only_what_is_missing(base, data, made, tmp_path, monkeypatch):
    out = tmp_path / "out"
    run(base, data, out)
    gone = "language_model.model.layers.0.mlp.down_proj"
    input_path(out, gone).unlink()
    (out / MOMENTS).unlink()
    groups = []
    collect = model_moments.collect_input_moments
    monkeypatch.setattr(model_moments, "collect_input_moments", lambda g, *rest: groups.append(g) or collect(g, *rest))
    monkeypatch.setattr(model_moments, "collect_gradient_moments", None)
    run(base, data, out)
    assert [[weight.input_key for weight in group] for group in groups] == [[gone]] and files(out) == files(made)


def test_second_moments_beyond_memory_are_taken_in_several_passes(base, data, made, tmp_path, monkeypatch):
    monkeypatch.setattr(model_moments, "GROUP_BYTES", 1 << 16)
    run(base, data, tmp_path / "out")
    assert files(tmp_path / "out") == files(made)


def test_without_gradients_weights_have_importances_of_one_scale(base, data, tmp_path):
    folder = run(base, data, tmp_path / "out", dataclasses.replace(OPTIONS, fisher=False))
    embedding = "language_model.model.embed_tokens.weight"
    assert folder.read(embedding).read_second_moment() is None and not folder.fisher
    importance = folder.read(embedding).importance
    assert importance.min() < importance.max()
    linear = folder.read(PROJECTOR).importance
    assert linear.min() == linear.max() > 0
    report = json.loads((tmp_path / "out" / MOMENTS).read_text(encoding="utf-8"))
    assert report["gradient_utterances"] == 0 and report["utterances"] == len(SECONDS)


def test_more_utterances_than_there_are_are_refused(base, data, tmp_path):
    with pytest.raises(UserError, match=r"quantize\.moments\.utterances: requests 300 utterances"):
        run(base, data, tmp_path / "out", dataclasses.replace(OPTIONS, utterances=300))


def test_a_sample_keeps_the_order_and_is_whole_where_it_is_larger():
    assert drawn(list("abcdef"), 9, 1) == list("abcdef")
    assert drawn(list("abcdef"), 3, 1) == sorted(drawn(list("abcdef"), 3, 1))


def test_output_files_are_by_weight(made):
    assert output_path(made, PROJECTOR).is_file()
