"""Moments of a small model's weights on utterances: what they are by definition, of which positions, and again."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from pathlib import Path

import pytest
import torch

from quantize.calibration import activations, moment_files
from quantize.calibration.layerwise import LayerwiseModel
from quantize.calibration.layerwise_moments import LayerwiseMoments, MomentsBatch
from quantize.calibration.model_moments import (
    SCRATCH,
    MomentsFolder,
    calibrate,
    drawn,
    make_batches,
    observed_weights,
    positions_of,
    token_counts,
)
from quantize.calibration.moment_files import (
    output_path,
    read_importance,
    read_second_moment,
    write_factor,
    write_importance,
)
from quantize.calibration.moments import (
    GradientMoments,
    InputMoments,
    ObservedWeight,
    Run,
    collect_gradient_moments,
    collect_input_moments,
)
from quantize.calibration.shrinkage import shrunk_importance
from quantize.calibration.utterance_choice import choose_utterances
from quantize.solvers.feedback import DAMPING, Moments, factorize
from submission.errors import UserError
from submission.miniature.model import SMALL
from submission.model.families import family_of, read_config, tensors
from submission.runtime.examples import load_examples
from submission.runtime.families import runtime_of
from submission.runtime.loading import load_model
from submission.runtime.loss import make_batch
from submission.system.recipe.quantize_options import MomentsOptions
from submission.text.corpus import Utterance, read_corpus, write_corpus
from tests.support.recordings import write_noise
from tests.support.tiny_qwen import build_checkpoint

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


def assert_factor_of(moments: Moments, second_moment: torch.Tensor) -> None:
    """Hold a factor L against H, float64: L L^T is H with 1 % of the mean diagonal added to its own."""
    factor = moments.read_factor(len(second_moment))
    lower = factor.feedback.double() * factor.diagonal
    mean = float(second_moment.diagonal().mean())
    expected = second_moment + DAMPING * mean * torch.eye(len(second_moment), dtype=torch.float64)
    assert torch.allclose(lower @ lower.t(), expected, rtol=1e-4, atol=1e-5 * mean)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_every_weight_that_can_be_packed_has_moments_of_its_shape(base, made):
    folder = MomentsFolder(made)
    for spec in tensors(read_config(base)):
        if spec.packable:
            moments = folder.read(spec.name)
            factor = moments.read_factor(spec.shape[1])
            assert factor.feedback.shape == (spec.shape[1],) * 2 and factor.diagonal.shape == spec.shape[1:]
            assert moments.importance.shape == spec.shape[:1]
            assert moments.importance.sum() > 0 and (factor.diagonal > 0).all()
            assert torch.equal(factor.feedback, factor.feedback.tril())


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
    assert_factor_of(MomentsFolder(made).read(name), inputs.t() @ inputs / len(inputs))


def test_the_token_that_stands_for_audio_counts_like_one_that_is_never_read(base, made):
    config = read_config(base)
    importance = MomentsFolder(made).read("language_model.model.embed_tokens.weight").importance
    assert importance[runtime_of(config).audio_token(config)] == importance.min() < importance.max()


def test_calibrating_twice_gives_the_same_bytes(base, data, made, tmp_path):
    run(base, data, tmp_path / "again")
    assert files(tmp_path / "again") == files(made)


def test_moments_are_those_of_the_whole_model(base, data, made, tmp_path):
    """The same batches through the library's forward and backward pass, every weight in memory.

    Layer by layer the operations are the same; what differs is the order in which the graph adds gradients of branches.
    """
    model, processor = load_model(base, torch.float32)
    layerwise = LayerwiseModel(base, dtype=torch.float32, device="cpu")
    chosen = choose_utterances(read_corpus(data / "dev.jsonl"), OPTIONS, "dev.jsonl")
    prompts = {pair.partition("-")[2]: prompt for pair, prompt in PROMPTS.items()}
    examples = load_examples(chosen, data, processor, prompts, "<|im_end|>", label="test")
    traced = drawn(len(examples), OPTIONS.gradient_utterances, OPTIONS.seed)
    rest = [number for number in range(len(examples)) if number not in traced]
    pad = processor.tokenizer.pad_token_id
    first, others = (make_batches(layerwise.checkpoint, [examples[n] for n in group], pad) for group in (traced, rest))

    def logits(batch: MomentsBatch) -> torch.Tensor:
        states = model.base_model(**batch.targets.inputs, use_cache=False).last_hidden_state
        return runtime_of(layerwise.checkpoint.config).logits(model, batch.targets.pick(states))

    family = family_of(layerwise.checkpoint.config)
    weights = [
        dataclasses.replace(w, module=model.get_submodule(family.module_name(w.name).removesuffix(".weight")))
        for w in observed_weights(layerwise)
    ]
    whole = Run(logits=logits, positions=positions_of(layerwise.checkpoint))
    collect_input_moments(weights, whole, first + others, tmp_path)
    counts, generator = token_counts(layerwise.checkpoint, examples), torch.Generator().manual_seed(OPTIONS.seed)
    collect_gradient_moments(model, weights, whole, first, tmp_path, generator=generator, token_counts=counts)
    for weight in weights:
        measured = MomentsFolder(made).read(weight.name)
        assert_factor_of(measured, read_second_moment(tmp_path, weight.input_key).double())
        expected = read_importance(tmp_path, weight.name)
        assert torch.allclose(measured.importance, expected, rtol=1e-4, atol=1e-6 * float(expected.max())), weight.name


def test_one_process_adds_up_in_the_order_of_the_batches(base, data, made, tmp_path, monkeypatch):
    """To the byte: products of one batch after the other, and squares of gradients likewise, in two halves."""
    rows: dict[str, list[torch.Tensor]] = {}
    gradients: dict[str, list[torch.Tensor]] = {}
    add, add_gradients = InputMoments.add, GradientMoments._add

    def noting(self: InputMoments, key: str, inputs: torch.Tensor) -> None:
        rows.setdefault(key, []).append(inputs.detach().clone())
        add(self, key, inputs)

    def noting_gradients(self: GradientMoments, weight: ObservedWeight, values: torch.Tensor, *others) -> None:
        gradients.setdefault(weight.name, []).append(values.clone())
        add_gradients(self, weight, values, *others)

    monkeypatch.setattr(InputMoments, "add", noting)
    monkeypatch.setattr(GradientMoments, "_add", noting_gradients)
    options = dataclasses.replace(OPTIONS, gradient_utterances=5)  # two batches
    folder = run(base, data, tmp_path / "out", options)
    (tmp_path / "expected").mkdir()
    for name in (PROJECTOR, "language_model.model.layers.1.mlp.down_proj.weight"):
        key = folder.inputs[name]
        total = (rows[key][0].t() @ rows[key][0]).addmm_(rows[key][1].t(), rows[key][1])
        positions = sum(map(len, rows[key]))
        write_factor(tmp_path / "expected", key, factorize(total / positions, len(total)), positions)
        first, last = gradients[name]  # of four utterances and of one
        halves = [first[half::2].flatten(0, 1).square().sum(dim=0, dtype=torch.float64) for half in (0, 1)]
        halves[1] = halves[1] + last.flatten(0, 1).square().sum(dim=0, dtype=torch.float64)
        targets = json.loads((tmp_path / "out" / "moments.json").read_text(encoding="utf-8"))["target_tokens"]
        importance = shrunk_importance(torch.stack(halves) / targets)
        write_importance(tmp_path / "expected", name, importance, targets)
    expected = files(tmp_path / "expected")
    assert len(expected) == 4 and expected.items() <= files(tmp_path / "out").items()


class Killed(BaseException):
    """Stands for the end of a process."""


def test_a_run_killed_again_and_again_comes_to_the_same_bytes(base, data, made, tmp_path, monkeypatch):
    """Killed at every ninth file of activations, moments or gradients that it would write."""
    write, out, left, kills = moment_files.write_tensors, tmp_path / "out", 0, 0

    def until_killed(path: Path, tensors: dict[str, torch.Tensor]) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise Killed
        write(path, tensors)

    for module in (activations, moment_files):
        monkeypatch.setattr(module, "write_tensors", until_killed)
    while not (out / "moments.json").exists():
        kills, left = kills + 1, 9
        with contextlib.suppress(Killed):
            run(base, data, out)
    assert kills > 8 and files(out) == files(made)


def test_a_run_killed_late_does_not_load_the_layers_that_are_done(base, data, made, tmp_path, monkeypatch):
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(LayerwiseMoments, "backward", lambda *_: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            run(base, data, out)
    loaded = []
    layer = LayerwiseModel.layer
    monkeypatch.setattr(LayerwiseModel, "layer", lambda self, *at: loaded.append(at) or layer(self, *at))
    run(base, data, out)
    of_a_stack = [0, 1, 0]  # forward, for the inputs of the last layer, then backward
    assert loaded == [(stack, layer) for stack in ("text", "audio") for layer in of_a_stack]
    assert files(out) == files(made) and not (out / SCRATCH).exists()


def test_without_gradients_weights_have_importances_of_one_scale(base, data, tmp_path):
    folder = run(base, data, tmp_path / "out", dataclasses.replace(OPTIONS, fisher=False))
    embedding = "language_model.model.embed_tokens.weight"
    assert folder.read(embedding).read_factor(8).feedback is None and not folder.fisher
    importance = folder.read(embedding).importance
    assert importance.min() < importance.max()
    linear = folder.read(PROJECTOR).importance
    assert linear.min() == linear.max() > 0
    report = json.loads((tmp_path / "out" / "moments.json").read_text(encoding="utf-8"))
    assert report["gradient_utterances"] == 0 and report["utterances"] == len(SECONDS)


def test_more_utterances_than_there_are_are_refused(base, data, tmp_path):
    with pytest.raises(UserError, match=r"quantize\.moments\.utterances: requests 300 utterances"):
        run(base, data, tmp_path / "out", dataclasses.replace(OPTIONS, utterances=300))


def test_a_sample_keeps_the_order_and_is_whole_where_it_is_larger():
    assert drawn(6, 9, 1) == list(range(6))
    assert drawn(6, 3, 1) == sorted(drawn(6, 3, 1)) and len(drawn(6, 3, 1)) == 3


def test_output_files_are_by_weight(made):
    assert output_path(made, PROJECTOR).is_file()
