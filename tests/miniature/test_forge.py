"""Training the base model: its shortcuts equal the stock model, its processes agree, a small one trains in a minute."""

from __future__ import annotations

import json
import threading
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoProcessor, Qwen2AudioForConditionalGeneration

from submission.errors import UserError
from submission.miniature.curriculum import (
    NEW_DOMAIN,
    TrainingExample,
    plan_examples,
    record,
    record_features,
    spoken_words,
)
from submission.miniature.evaluation import EVALUATION_SETS, evaluation_examples
from submission.miniature.forge import Training, forge, shape_named
from submission.miniature.language import split_of
from submission.miniature.model import END, LANGUAGES, PROMPT, SMALL
from submission.miniature.optimiser import Optimiser, ProcessGroup, orthogonalise, rate_scale, single_process
from submission.miniature.training import (
    LogMel,
    TrainingBatch,
    TrainingSet,
    attention_mask,
    encode,
    lay_out,
    translation_loss,
)
from submission.miniature.voice import voices
from tests.support.tiny_qwen import build_checkpoint


@pytest.fixture(scope="module")
def examples() -> list[TrainingExample]:
    return plan_examples(6, seed=3)


@pytest.fixture(scope="module")
def checkpoint(examples: list[TrainingExample], tmp_path_factory: pytest.TempPathFactory) -> Path:
    texts = [text for example in examples for text in example.targets.values()]
    return build_checkpoint(tmp_path_factory.mktemp("base") / "small", texts, SMALL, seed=1)


@pytest.fixture(scope="module")
def processor(checkpoint: Path):
    return AutoProcessor.from_pretrained(checkpoint)


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> Qwen2AudioForConditionalGeneration:
    return Qwen2AudioForConditionalGeneration.from_pretrained(checkpoint, dtype=torch.float32)


@pytest.fixture(scope="module")
def training_set(examples: list[TrainingExample], processor, tmp_path_factory) -> TrainingSet:
    path = tmp_path_factory.mktemp("features") / "features.f16"
    features = record_features(examples, LogMel(processor.feature_extractor), path, workers=1)
    return TrainingSet(examples, features, processor.tokenizer, SMALL.mel_frames)


@pytest.fixture(scope="module")
def batch(training_set: TrainingSet, examples: list[TrainingExample]) -> TrainingBatch:
    return training_set.batch(np.arange(len(examples)), None)


def stock_inputs(processor, examples: list[TrainingExample], code: str) -> dict[str, torch.Tensor]:
    """Return the stock processor's inputs of the examples, with the labels of one language."""
    prompt = PROMPT.format(target_language=LANGUAGES[code])
    texts = [prompt + example.targets[code] + END for example in examples]
    audio = [record(example) for example in examples]
    inputs = processor(text=texts, audio=audio, sampling_rate=16000, padding=True, return_tensors="pt")
    labels = inputs["input_ids"].clone()
    for row, example in zip(labels, examples, strict=True):
        row[: -len(processor.tokenizer(example.targets[code])["input_ids"]) - 1] = -100
    return {**inputs, "labels": labels}


def test_encoder_on_short_batches_equals_the_stock_encoder_on_full_windows(
    model, processor, examples: list[TrainingExample], batch: TrainingBatch
) -> None:
    inputs = stock_inputs(processor, examples, "de")
    captured = []
    tower = model.model.audio_tower
    handle = tower.register_forward_hook(lambda *call: captured.append(call[2].last_hidden_state))
    with torch.no_grad():
        model(**inputs)
        ours, _ = encode(tower, batch.mel, batch.frames)
    handle.remove()
    assert batch.mel.shape[2] < SMALL.mel_frames
    for row, frames in enumerate(batch.frames.tolist()):
        valid = ((frames - 1) // 2 + 1 - 2) // 2 + 1
        torch.testing.assert_close(ours[row, :valid], captured[0][row, :valid], atol=5e-3, rtol=0)


def test_both_translations_in_one_pass_cost_what_the_stock_model_says(
    model, processor, examples: list[TrainingExample], training_set: TrainingSet, batch: TrainingBatch
) -> None:
    total, tokens = 0.0, 0
    with torch.no_grad():
        for code in LANGUAGES:
            inputs = stock_inputs(processor, examples, code)
            counted = int((inputs["labels"] != -100).sum())
            total += float(model(**inputs).loss) * counted
            tokens += counted
        ours = translation_loss(model, encode(model.model.audio_tower, batch.mel, batch.frames)[0], batch, training_set)
    assert float(ours) == pytest.approx(total / tokens, abs=2e-4)


def test_languages_do_not_see_each_other(training_set: TrainingSet, batch: TrainingBatch) -> None:
    layout = lay_out(batch, training_set.before, training_set.audio_id)
    open_to = attention_mask(layout.branch)[:, 0] == 0
    german, chinese = (layout.branch == 1), (layout.branch == 2)
    assert not (open_to & chinese[:, :, None] & german[:, None, :]).any()
    assert not (open_to & german[:, :, None] & chinese[:, None, :]).any()
    for positions, branch in zip(layout.positions, layout.branch, strict=True):
        assert positions[branch == 1].min() == positions[branch == 2].min() == (branch == 0).sum()


def test_examples_are_training_sentences_and_hardly_any_of_the_new_domain() -> None:
    examples = plan_examples(400, seed=1)
    assert len(examples) == 400
    assert sum(example.domain == NEW_DOMAIN for example in examples) <= 10
    assert {example.voice for example in examples} <= {voice.name for voice in voices("train")}
    assert any(len(example.spoken) == 2 for example in examples)


def test_evaluation_sets_hold_held_out_sentences_only() -> None:
    trained = {text for example in plan_examples(2000, seed=1) for text in example.spoken}
    for evaluation_set in EVALUATION_SETS:
        examples = evaluation_examples(evaluation_set, 12, seed=1)
        assert len(examples) == 12
        assert {example.domain for example in examples} <= set(evaluation_set.domains)
        assert trained.isdisjoint(text for example in examples for text in example.spoken)
    assert split_of("The encoder is too new.") in ("train", "heldout")


def test_recordings_depend_on_their_example_alone(examples: list[TrainingExample]) -> None:
    first = [record(example) for example in examples]
    for example, wave in reversed(list(zip(examples, first, strict=True))):
        np.testing.assert_array_equal(record(example), wave)
        assert np.abs(wave).max() <= 0.981


def test_recordings_longer_than_the_window_are_left_out_and_reported(
    examples: list[TrainingExample], processor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    long = TrainingExample(
        domain="daily",
        spoken=("one two three four five six seven eight nine ten " * 4,),
        targets={"de": "x", "zh": "x"},
        voice="frank",
        condition="clean",
        seed=1,
    )
    features = record_features([*examples[:2], long], LogMel(processor.feature_extractor), tmp_path / "f", workers=1)
    assert "left out 1 recording longer than the window" in capsys.readouterr().err
    training_set = TrainingSet([*examples[:2], long], features, processor.tokenizer, SMALL.mel_frames)
    assert sorted(np.concatenate(training_set.batches(1, seed=0))) == [0, 1]


def test_spoken_words_are_lower_case_without_punctuation() -> None:
    assert spoken_words("It's half past Three, isn't it?") == ["it's", "half", "past", "three", "isn't", "it"]


@pytest.mark.parametrize("shape", [(3, 16, 16), (2, 32, 8), (2, 8, 32)])
def test_orthogonalised_matrices_have_singular_values_about_one(shape: tuple[int, int, int]) -> None:
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalise(matrices))
    assert 0.4 < values.min() < values.max() < 1.3
    one_by_one = torch.cat([orthogonalise(matrix[None]) for matrix in matrices])
    torch.testing.assert_close(orthogonalise(matrices), one_by_one, atol=1e-4, rtol=1e-3)


def test_two_processes_take_the_step_that_one_takes() -> None:
    def network() -> torch.nn.Sequential:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Tanh(), torch.nn.Linear(16, 4))

    def train(processes: ProcessGroup, module: torch.nn.Sequential, inputs: torch.Tensor) -> None:
        optimiser = Optimiser(module, muon_rate=0.02, adam_rate=3e-3, weight_decay=0.01)
        for _ in range(3):
            module(inputs[processes.rank :: processes.size]).square().mean().backward()
            optimiser.step(1.0, processes)

    inputs = torch.randn(8, 8, generator=torch.Generator().manual_seed(1))
    single, pair = network(), [network(), network()]
    train(single_process(), single, inputs)
    board, barrier = torch.zeros(2, 1000), threading.Barrier(2)
    teams = [ProcessGroup(rank=rank, size=2, board=board, barrier=barrier) for rank in range(2)]
    threads = [threading.Thread(target=train, args=(processes, pair[processes.rank], inputs)) for processes in teams]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one, first, second in zip(*(module.parameters() for module in (single, *pair)), strict=True):
        assert torch.equal(first, second)
        torch.testing.assert_close(one, first, atol=1e-4, rtol=1e-3)


def test_learning_rate_rises_and_falls_to_zero() -> None:
    scales = [rate_scale(step, 200) for step in range(200)]
    assert scales[0] == pytest.approx(0.05)
    assert max(scales) == 1.0
    assert scales[-1] < 0.01
    assert all(later <= earlier for earlier, later in pairwise(scales[20:]))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"steps": 1, "batch_size": 9, "workers": 2}, "9 does not divide among 2 workers"),
        ({"steps": 1, "recordings": 10, "batch_size": 20}, "10 recordings are fewer than a batch of 20"),
    ],
)
def test_impossible_settings_are_refused_by_name(settings: dict[str, int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Training(**settings)


def test_unknown_shape_is_refused_with_the_names_that_exist() -> None:
    with pytest.raises(UserError, match="use one of small, miniature, small-gemma4, gemma4"):
        shape_named("huge")


def test_forge_never_writes_over_a_folder(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("x", encoding="utf-8")
    with pytest.raises(UserError, match="not empty"):
        forge(tmp_path, SMALL, Training(steps=1))


def test_a_small_model_learns_within_a_minute(tmp_path: Path) -> None:
    training = Training(steps=40, listening_share=0.5, recordings=160, batch_size=16, workers=1)
    report = forge(tmp_path / "base", SMALL, training, evaluation_sentences=0, command="as tested")
    losses = {row["step"]: row for row in report["losses"]}
    assert losses[20]["words"] < 0.6 * losses[10]["words"]
    assert losses[40]["translation"] < 0.9 * losses[30]["translation"]
    assert json.loads((tmp_path / "base" / "forge.json").read_text(encoding="utf-8")) == report
    trained = Qwen2AudioForConditionalGeneration.from_pretrained(tmp_path / "base")
    assert trained.dtype == torch.bfloat16
