from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import PartialState
from safetensors.torch import load_file
from transformers import AutoProcessor, Qwen2AudioForConditionalGeneration

from submission.errors import UserError
from submission.model.families import read_config
from submission.runtime.audio import read_slice
from submission.runtime.prompt import IGNORED, build_inputs, encode, extract_features, render_prompt
from submission.store.digests import tree_digest
from submission.text.corpus import read_corpus, write_corpus
from tests.train.finetuning_inputs import TASK, FinetuningInputs, options
from train.batches import Utterances, collate_targets, render_prompts
from train.callbacks import COMPLETE, last_complete
from train.corpora.decoded_audio import DecodedAudio
from train.dev_evaluation import DevEvaluation, corpus_bleu
from train.finetune import finetune
from train.model import TargetLoss, load_adapted, target_modules

KILLED_AT_STEP = 4
EARLY_STEP = 2
KILLED = """
import sys
from pathlib import Path
from tests.support.killing import kill_when
from tests.train.finetuning_inputs import TASK, options
from train import callbacks
from train.finetune import finetune

base, corpus, data, out = map(Path, sys.argv[1:5])
step, callbacks.MOST_LOST_SECONDS = int(sys.argv[5]), float(sys.argv[6])
kill_when(out, f"checkpoints/checkpoint-{step}/{callbacks.COMPLETE}")
finetune(base, corpus, data, TASK, options(), out)
"""


@pytest.fixture(scope="module")
def finished(inputs: FinetuningInputs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("finished")
    finetune(inputs.base, inputs.corpus, inputs.data, TASK, options(), out)
    return out


def test_the_artifact_holds_no_checkpoint_no_pickle_and_no_time(finished: Path) -> None:
    names = sorted(str(path.relative_to(finished)) for path in finished.rglob("*") if path.is_file())
    curves = ["curve.csv", "curve.png", "curve.svg"]
    assert names == [
        *(f"adapter/adapter_{x}" for x in ("config.json", "model.safetensors")),
        *curves,
        "finetuning_report.json",
        "log.jsonl",
    ]
    config = json.loads((finished / "adapter/adapter_config.json").read_text(encoding="utf-8"))
    assert config["base_model_name_or_path"] == "small"
    lines = [json.loads(line) for line in (finished / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {key for line in lines for key in line} == {
        "step",
        "loss",
        "learning_rate",
        "grad_norm",
        "eval_loss",
        "eval_bleu_de",
        "eval_bleu_zh",
    }
    assert [line["step"] for line in lines if "eval_loss" in line] == [0, 4, 8]


def test_training_lowers_the_loss(finished: Path) -> None:
    losses = [
        loss
        for _, loss in json.loads((finished / "finetuning_report.json").read_text(encoding="utf-8"))["dev_loss_by_step"]
    ]
    assert losses[-1] < losses[0] - 0.5


def test_two_runs_give_the_same_bytes(inputs: FinetuningInputs, finished: Path, tmp_path: Path) -> None:
    finetune(inputs.base, inputs.corpus, inputs.data, TASK, options(), tmp_path)
    assert tree_digest(tmp_path) == tree_digest(finished)


def test_features_from_data_workers_and_decoded_speeches_are_the_kept_ones(
    inputs: FinetuningInputs, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("train.finetune.KEPT_FEATURES_BYTES", 0)
    finetune(inputs.base, inputs.corpus, inputs.data, TASK, options(), tmp_path)
    assert tree_digest(tmp_path) == tree_digest(finished)


def killed_run(inputs: FinetuningInputs, out: Path, step: int, most_lost_seconds: float = 1e9) -> str:
    """Fine-tune into `out` and kill the process at the complete checkpoint of a step; return what it printed."""
    words = [inputs.base, inputs.corpus, inputs.data, out, step, most_lost_seconds]
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, *map(str, words)], capture_output=True, text=True, cwd=Path.cwd(), check=False
    )
    assert killed.returncode == -9, killed.stderr
    return killed.stderr


def test_a_checkpoint_comes_in_time_and_resumes_like_the_planned_ones(
    inputs: FinetuningInputs, finished: Path, tmp_path: Path
) -> None:
    printed = killed_run(inputs, tmp_path, EARLY_STEP, most_lost_seconds=0)
    assert "finetune: step 2 of 8, loss " in printed
    logged = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["step"] for line in logged][:2] == [0, 2] and "loss" in logged[1]
    finetune(inputs.base, inputs.corpus, inputs.data, TASK, options(), tmp_path)
    assert tree_digest(tmp_path) == tree_digest(finished)


def test_a_killed_run_resumes_and_ends_with_the_same_bytes(
    inputs: FinetuningInputs, finished: Path, tmp_path: Path
) -> None:
    killed_run(inputs, tmp_path, KILLED_AT_STEP)
    assert (tmp_path / f"checkpoints/checkpoint-{KILLED_AT_STEP}").is_dir()
    assert not (tmp_path / "adapter").exists()
    assert (tmp_path / f"checkpoints/checkpoint-{KILLED_AT_STEP}/{COMPLETE}").read_text(encoding="utf-8") == "1\n"
    finetune(inputs.base, inputs.corpus, inputs.data, TASK, options(), tmp_path)
    assert tree_digest(tmp_path) == tree_digest(finished)


def test_a_run_killed_while_its_checkpoints_were_removed_is_finished(finished: Path, tmp_path: Path) -> None:
    out = shutil.copytree(finished, tmp_path / "out")
    (out / "checkpoints/checkpoint-8").mkdir(parents=True)
    (out / f"checkpoints/checkpoint-8/{COMPLETE}").touch()  # the mark is there, the state is not
    absent = tmp_path / "absent"  # with nothing to train on, it is not trained again
    report = finetune(absent, absent, absent, TASK, options(), out)
    assert report == json.loads((finished / "finetuning_report.json").read_text(encoding="utf-8"))
    assert tree_digest(out) == tree_digest(finished)
    assert not (out / "checkpoints").exists()


def test_a_checkpoint_of_another_number_of_processes_is_refused(tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoints/checkpoint-4"
    checkpoint.mkdir(parents=True)
    (checkpoint / COMPLETE).write_text("2\n", encoding="utf-8")
    absent = tmp_path / "absent"  # refused before anything is read
    with pytest.raises(
        UserError, match=r"checkpoint-4: was written by another number of processes: 2, this run has 1.*as many"
    ):
        finetune(absent, absent, absent, TASK, options(), tmp_path)
    assert checkpoint.is_dir()


def test_a_checkpoint_without_its_mark_does_not_count(tmp_path: Path) -> None:
    for step in (4, 8, 12):
        (tmp_path / f"checkpoint-{step}").mkdir()
        if step < 12:
            (tmp_path / f"checkpoint-{step}/{COMPLETE}").touch()
    assert last_complete(tmp_path) == tmp_path / "checkpoint-8"
    assert not (tmp_path / "checkpoint-12").exists()


def test_the_loss_is_the_stock_models_at_less_cost(inputs: FinetuningInputs) -> None:
    processor = AutoProcessor.from_pretrained(inputs.base)
    stock = Qwen2AudioForConditionalGeneration.from_pretrained(inputs.base, dtype=torch.float32).eval()
    rng = torch.Generator().manual_seed(0)
    waveforms = [(0.1 * torch.randn(n, generator=rng)).numpy() for n in (16_000, 30_000)]
    prompts = [render_prompt(TASK.prompt, name) for name in ("German", "Chinese")]
    targets = ["der Hund", "狗在睡觉"]
    batch = build_inputs(processor, waveforms, prompts, targets)
    expected = stock(**batch).loss
    examples = [
        encode(processor, extract_features(processor, w), p, t)
        for w, p, t in zip(waveforms, prompts, targets, strict=True)
    ]
    short = collate_targets(examples, processor.tokenizer.pad_token_id)
    assert short["input_features"].shape[-1] < batch["input_features"].shape[-1] / 2
    adapted = load_adapted(inputs.base, options()).eval()
    target_loss = TargetLoss(adapted.get_base_model())
    for tensors in (batch, short):
        labels = tensors.pop("labels")
        assert abs(target_loss(adapted, tensors, labels) - expected) < 1e-5
        assert abs(target_loss(adapted, tensors, labels, 1) / (labels != IGNORED).sum() - expected) < 1e-5
    assert adapted(**batch).logits.shape[:2] == batch["input_ids"].shape  # the model itself is as it was


@pytest.mark.parametrize(
    ("roles", "count"), [(("mlp",), 6), (("attn.q", "lm_head"), 3), (("audio",), 12), (("projector",), 1)]
)
def test_adapters_go_to_the_linears_of_a_role_and_nowhere_else(
    inputs: FinetuningInputs, roles: tuple[str, ...], count: int
) -> None:
    model = load_adapted(inputs.base, options(roles=roles))
    adapted = {name.rpartition(".lora_A")[0] for name, _ in model.named_parameters() if ".lora_A." in name}
    assert adapted == {f"base_model.model.{path}" for path in target_modules(read_config(inputs.base), roles)}
    assert len(adapted) == count
    assert all((".lora_" in name) == p.requires_grad for name, p in model.named_parameters())


@pytest.mark.parametrize(("role", "hint"), [("atn", "attn"), ("embedding", "known"), ("norm", "known")])
def test_a_role_without_linears_is_refused(inputs: FinetuningInputs, role: str, hint: str) -> None:
    with pytest.raises(UserError, match=f"{role}.*{hint}"):
        target_modules(read_config(inputs.base), ["mlp", role])


def test_bf16_with_gradient_checkpointing_trains_float32_adapters(inputs: FinetuningInputs, tmp_path: Path) -> None:
    choices = options(dtype="bfloat16", gradient_checkpointing=True, epochs=1)
    report = finetune(inputs.base, inputs.corpus, inputs.data, TASK, choices, tmp_path)
    first, last = (loss for _, loss in report["dev_loss_by_step"])
    assert last < first
    weights = load_file(tmp_path / "adapter/adapter_model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}


def test_a_diverging_run_stops_and_says_what_to_change(inputs: FinetuningInputs, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"step \d+: the loss is nan; lower finetune.learning_rate"):
        finetune(inputs.base, inputs.corpus, inputs.data, TASK, options(learning_rate=1e20), tmp_path)


def test_the_best_checkpoint_is_kept_where_the_recipe_asks_for_it(inputs: FinetuningInputs, tmp_path: Path) -> None:
    for keep in ("last", "best"):
        (tmp_path / keep).mkdir()
        choices = options(keep=keep, learning_rate=0.3, dropout=0.0, epochs=1, save_every_steps=2, bleu_utterances=0)
        finetune(inputs.base, inputs.corpus, inputs.data, TASK, choices, tmp_path / keep)
    best, last = (
        json.loads((tmp_path / keep / "finetuning_report.json").read_text(encoding="utf-8"))
        for keep in ("best", "last")
    )
    losses = {step: loss for step, loss in best["dev_loss_by_step"] if step}
    assert (best["kept_step"], last["kept_step"]) == (2, 4)
    assert losses[2] < losses[4]  # the rate is far too high
    name = "adapter/adapter_model.safetensors"
    assert (tmp_path / "best" / name).read_bytes() != (tmp_path / "last" / name).read_bytes()


def test_what_is_trained_on_is_not_watched(inputs: FinetuningInputs, tmp_path: Path) -> None:
    train, dev = (read_corpus(inputs.corpus / f"{part}.jsonl") for part in ("train", "dev"))
    write_corpus(tmp_path / "train.jsonl", [*train, *dev[:2]])
    write_corpus(tmp_path / "dev.jsonl", dev)
    (tmp_path / "out").mkdir()
    report = finetune(inputs.base, tmp_path, inputs.data, TASK, options(epochs=1), tmp_path / "out")
    assert report["utterances"] == {"train": 18, "dev": 2}
    write_corpus(tmp_path / "train.jsonl", dev)
    (tmp_path / "again").mkdir()
    with pytest.raises(UserError, match="everything in dev.jsonl is in train.jsonl too"):
        finetune(inputs.base, tmp_path, inputs.data, TASK, options(), tmp_path / "again")


def test_bleu_is_that_of_greedy_translations(inputs: FinetuningInputs, tmp_path: Path) -> None:
    processor = AutoProcessor.from_pretrained(inputs.base)
    model = Qwen2AudioForConditionalGeneration.from_pretrained(inputs.base, dtype=torch.float32).eval()
    prompts = render_prompts(TASK.prompt, TASK.languages)
    dev = sorted(read_corpus(inputs.corpus / "dev.jsonl"), key=lambda u: u.end - u.start)

    made = Utterances(dev, processor, DecodedAudio(inputs.data, tmp_path), prompts, TASK.end_token, keep=False)
    watched = DevEvaluation(made, 3, 2, 0)
    longest = max(len(processor.tokenizer.encode(u.target)) for u in dev)
    texts = {"de": [], "zh": []}
    for u in dev:
        waveform = read_slice(inputs.data / u.audio, u.start, u.end)
        batch = build_inputs(processor, [waveform], [prompts[u.target_lang]])
        answer = model.generate(**batch, do_sample=False, max_new_tokens=2 * longest)[0].tolist()
        answer = answer[batch["input_ids"].shape[1] :]
        texts[u.target_lang].append(processor.tokenizer.decode(answer, skip_special_tokens=True))
    assert watched.translated == [0, 1, 2, 3]
    assert sorted(watched.translate([0, 1, 2, 3], model, False)) == sorted(texts["de"] + texts["zh"])
    scores = watched.bleu(Accelerator(cpu=True), model, synced=False)
    references = [[u.target for u in dev if u.target_lang == language] for language in ("de", "zh")]
    assert scores == {x: corpus_bleu(x, texts[x], lines) for x, lines in zip(("de", "zh"), references, strict=True)}
    assert DevEvaluation(made, 3, 0, 0).bleu(Accelerator(cpu=True), model, synced=False) == {}


def test_bleu_of_chinese_counts_characters() -> None:
    assert corpus_bleu("zh", ["狗在睡觉。"], ["狗在睡觉。"]) == 100
    assert 0 < corpus_bleu("zh", ["狗在睡觉。"], ["猫在睡觉。"]) < 100  # as words the two share nothing
    assert corpus_bleu("de", ["狗在睡觉。"], ["猫在睡觉。"]) == 0


def test_a_batch_that_processes_cannot_share_evenly_is_refused(
    inputs: FinetuningInputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PartialState._shared_state, "num_processes", 3)
    with pytest.raises(UserError, match="4 utterances cannot be shared evenly by 3 processes"):
        finetune(inputs.base, inputs.corpus, inputs.data, TASK, options(), tmp_path)


def test_an_inverted_index_is_the_same_example_without_labels(inputs: FinetuningInputs, tmp_path: Path) -> None:
    processor = AutoProcessor.from_pretrained(inputs.base)
    prompts = render_prompts(TASK.prompt, TASK.languages)
    dev, audio = read_corpus(inputs.corpus / "dev.jsonl"), DecodedAudio(inputs.data, tmp_path)
    made = Utterances(dev, processor, audio, prompts, TASK.end_token, keep=True)
    pad = processor.tokenizer.pad_token_id
    some, none = (collate_targets([made[index]], pad) for index in (1, ~1))
    assert (some["labels"] != IGNORED).any() and (none["labels"] == IGNORED).all()
    assert torch.equal(some["input_ids"], none["input_ids"])
    adapted = load_adapted(inputs.base, options())
    loss = TargetLoss(adapted.get_base_model())(adapted, none, none.pop("labels"), 1)
    loss.backward()
    assert loss.item() == 0
    assert all(not p.grad.any() for p in adapted.parameters() if p.requires_grad)


def test_a_half_downloaded_base_is_refused_by_name(inputs: FinetuningInputs, tmp_path: Path) -> None:
    base = shutil.copytree(inputs.base, tmp_path / "base")
    whole = (base / "model.safetensors").read_bytes()
    (base / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="model.safetensors"):
        finetune(base, inputs.corpus, inputs.data, TASK, options(), tmp_path)
    (base / "model.safetensors").write_bytes(whole)
    (base / "tokenizer.json").unlink()
    with pytest.raises(UserError, match="has no tokenizer"):
        finetune(base, inputs.corpus, inputs.data, TASK, options(), tmp_path)
