from __future__ import annotations

import dataclasses
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from transformers import AutoModelForCausalLM, Gemma2Config, LlamaConfig

from quantize.packing.pack import pack_checkpoint
from quantize.ranking import sensitivity
from quantize.ranking.sensitivity import BATCH_SIZE, analyse, encode_swaps, pack_base, rank_layers, swapped_codecs
from quantize.ranking.sweep import Swaps, last_states, sweep_batch
from submission.errors import UserError
from submission.miniature.model import PROMPT, SMALL
from submission.model.codecs import Affine
from submission.model.families import read_config
from submission.model.forecast import resolve_codecs
from submission.runtime.examples import form_batches, load_examples
from submission.runtime.loading import load_model
from submission.runtime.loss import difference, make_batch, mean_loss, measure_losses
from submission.runtime.packed import PackedLinear, PackedTensor
from submission.runtime.prompt import render_prompt
from submission.store.digests import tree_digest
from submission.system.recipe.quantize_options import Override, QuantizeOptions
from submission.text.corpus import Utterance, read_corpus, write_corpus
from tests.quantize.support import END, PROMPTS, RANKED_RULES, ranked_options
from tests.support.launching import HANG_SECONDS
from tests.support.tiny_qwen import build_checkpoint

TEXTS = {
    "de": ["der Hund schläft", "die Katze sieht den Hund", "ein Haus", "der alte Hund und die Katze", "ja"],
    "zh": ["狗在睡觉", "猫看见狗", "一座房子", "一只老狗和一只猫", "是"],
}
SHAPE = dataclasses.replace(SMALL, name="four layers", layers=4, audio_layers=3)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    base: Path
    corpus: Path
    data: Path

    def analyse(self, out: Path, chosen: QuantizeOptions | None = None, **changes) -> dict:
        out.mkdir(exist_ok=True)
        arguments = {"prompts": PROMPTS, "end_token": END, "dtype": "float32", "device": "cpu", "batch_size": 4}
        analyse(self.base, self.corpus, self.data, out, options=chosen or ranked_options(), **(arguments | changes))
        return json.loads((out / "ranking.json").read_text(encoding="utf-8"))

    def examples(self, processor) -> list:
        prompts = {pair[-2:]: prompt for pair, prompt in PROMPTS.items()}
        return load_examples(read_corpus(self.corpus / "dev.jsonl"), self.data, processor, prompts, END, label="dev")


@pytest.fixture(scope="module")
def ground(tmp_path_factory) -> Ground:
    """A random model of four layers and a dev set of ten utterances of noise, two languages each."""
    root = tmp_path_factory.mktemp("ground")
    build_checkpoint(root / "base", [text for texts in TEXTS.values() for text in texts] * 9, SHAPE, seed=3)
    for name in ("data", "corpus"):
        (root / name).mkdir()
    rng, utterances = np.random.default_rng(0), []
    for number in range(10):
        samples = 8_000 + 5_000 * number
        soundfile.write(root / f"data/{number}.wav", 0.1 * rng.standard_normal(samples), 16_000)
        for language, texts in TEXTS.items():
            utterances.append(
                Utterance(
                    id=f"noise/{number}",
                    audio=f"{number}.wav",
                    start=0,
                    end=samples,
                    source="noise",
                    target=texts[number % len(texts)],
                    source_lang="en",
                    target_lang=language,
                    recording=f"{number}.wav",
                )
            )
    write_corpus(root / "corpus/dev.jsonl", utterances)
    return Ground(base=root / "base", corpus=root / "corpus", data=root / "data")


@pytest.fixture(scope="module")
def ranking(ground, tmp_path_factory) -> dict:
    return ground.analyse(tmp_path_factory.mktemp("whole") / "out")


@pytest.mark.parametrize("role", ["mlp", "attn.v", "audio.mlp"])
@pytest.mark.parametrize("rules", [RANKED_RULES, {}], ids=["packed", "plain"])
def test_one_sweep_gives_what_running_every_model_gives(ground, tmp_path, role, rules):
    chosen = ranked_options(role, codecs=rules)
    model, processor = load_model(pack_base(ground.base, tmp_path, chosen), "float32")
    swaps = encode_swaps(ground.base, model, swapped_codecs(read_config(ground.base), chosen), chosen.solver)
    examples, pad = ground.examples(processor), processor.tokenizer.pad_token_id
    modules = dict(model.named_modules())
    for indices in form_batches(examples, 6)[:2]:
        batch = make_batch([examples[index] for index in indices], pad, "cpu")
        swept = sweep_batch(model, swaps, batch)
        assert dict(model.named_modules()) == modules
        naive = [naive_sums(model, batch)]
        for layer in sorted(swaps.by_layer):
            with swaps.apply(model, layer):
                naive.append(naive_sums(model, batch))
        tokens = torch.bincount(batch.rows)
        torch.testing.assert_close(swept / tokens, torch.stack(naive) / tokens, rtol=0, atol=1e-6)
        assert (swept[1:] - swept[0]).abs().amin() > 1e-5


def naive_sums(model, batch) -> torch.Tensor:
    with torch.inference_mode():
        logits = model(**batch.inputs, use_cache=False).logits[batch.rows, batch.positions]
    return batch.sum_by_utterance(torch.nn.functional.cross_entropy(logits, batch.ids, reduction="none"))


@pytest.mark.parametrize(
    "config",
    [
        LlamaConfig(num_key_value_heads=2),
        Gemma2Config(sliding_window=4, head_dim=16),  # reads from its layers whether they see the whole sequence
    ],
    ids=["llama", "gemma2"],
)
def test_a_sweep_knows_no_architecture(config):
    sizes = {"vocab_size": 60, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3}
    for name, value in {**sizes, "num_attention_heads": 4, "num_key_value_heads": 2, "pad_token_id": 0}.items():
        setattr(config, name, value)
    config = type(config).from_dict(config.to_dict() | {"layer_types": None})
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    by_layer = {}
    for number in (0, 2):
        up = model.model.layers[number].mlp.up_proj
        packed = PackedTensor(Affine(bits=2, group_size=32), tuple(up.weight.shape), dtype=torch.float32, device="cpu")
        packed.codes.random_(0, 256)
        packed.scale.fill_(0.1)
        packed.zero.fill_(1.5)
        by_layer[number] = {"mlp.up_proj": PackedLinear(packed, up.bias)}
    swaps = Swaps(stack="model.layers", by_layer=by_layer)
    inputs = {"input_ids": torch.randint(1, 60, (3, 11)), "attention_mask": torch.ones(3, 11, dtype=torch.int64)}
    inputs["attention_mask"][1, 7:] = 0
    with torch.inference_mode():
        states = list(last_states(model, swaps, inputs))
        expected = [model.model(**inputs, use_cache=False).last_hidden_state]
        for number in by_layer:
            with swaps.apply(model, number):
                expected.append(model.model(**inputs, use_cache=False).last_hidden_state)
    seen = inputs["attention_mask"].bool()
    for ours, theirs in zip(states, expected, strict=True):
        torch.testing.assert_close(ours[seen], theirs[seen], rtol=1e-5, atol=1e-6)
    assert not torch.allclose(states[0][seen], states[1][seen], atol=1e-3)


def test_each_change_is_that_of_the_system_with_this_override(ground, ranking, tmp_path):
    chosen, losses = ranked_options(), {}
    for layer in (None, 0, 3):
        overrides = [] if layer is None else [Override(role="mlp", layers=(layer,), codec=chosen.ranked.codec)]
        folder = tmp_path / f"{layer}"
        folder.mkdir()
        codecs = resolve_codecs(read_config(ground.base), RANKED_RULES, overrides)
        pack_checkpoint(ground.base, folder, codecs, solver="hqq")
        model, processor = load_model(folder, "float32")
        german = ground.examples(processor)[::2]
        pad = processor.tokenizer.pad_token_id
        losses[layer] = measure_losses(model, german, pad, batch_size=3, label="loss")
    base = ranking["base"]["pairs"]["en-de"]
    assert base["value"] == pytest.approx(mean_loss(losses[None]).value, abs=1e-6)
    assert base["standard_error"] == pytest.approx(mean_loss(losses[None]).standard_error, abs=1e-6)
    for layer in (0, 3):
        expected, found = difference(losses[layer], losses[None]), ranking["layers"][layer]["pairs"]["en-de"]
        assert found["value"] == pytest.approx(expected.value, abs=1e-6)
        assert found["standard_error"] == pytest.approx(expected.standard_error, abs=1e-6)


def test_the_artifact_says_what_was_measured(ranking):
    assert (ranking["role"], ranking["solver"], ranking["codec"]["bits"]) == ("mlp", "hqq", 2)
    assert ranking["pairs"].keys() == {"en-de", "en-zh"}
    assert ranking["pairs"]["en-de"]["utterances"] == 10
    assert [entry["layer"] for entry in ranking["layers"]] == [0, 1, 2, 3]
    means = [entry["mean"]["value"] for entry in ranking["layers"]]
    assert means == [pytest.approx(sum(p["value"] for p in e["pairs"].values()) / 2) for e in ranking["layers"]]
    assert [means[layer] for layer in ranking["order"]] == sorted(means)


def test_only_the_ranking_and_its_pictures_stay(ground, tmp_path):
    ground.analyse(tmp_path / "out", ranked_options(bits=3))
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"ranking.json", "sensitivity.svg", "sensitivity.png"}


def test_the_batch_size_changes_no_figure(ground, ranking, tmp_path):
    other = ground.analyse(tmp_path / "out", batch_size=7)
    assert other["order"] == ranking["order"]
    for ours, theirs in zip(other["layers"], ranking["layers"], strict=True):
        assert ours["mean"]["value"] == pytest.approx(theirs["mean"]["value"], abs=1e-6)


class Killed(Exception):
    pass


def test_a_killed_analysis_resumes_and_gives_the_same_bytes(ground, tmp_path, monkeypatch):
    ground.analyse(tmp_path / "whole")
    swept = []

    def until_killed(model, swaps, batch):
        if len(swept) == 3:
            raise Killed
        swept.append(batch)
        return sweep_batch(model, swaps, batch)

    monkeypatch.setattr(sensitivity, "sweep_batch", until_killed)
    with pytest.raises(Killed):
        ground.analyse(tmp_path / "out")
    with (tmp_path / "out/losses.0.jsonl").open("a", encoding="utf-8") as file:
        file.write("[3, [[0.25, 1")  # torn

    def count(model, swaps, batch):
        swept.append(batch)
        return sweep_batch(model, swaps, batch)

    monkeypatch.setattr(sensitivity, "sweep_batch", count)
    ground.analyse(tmp_path / "out")
    assert len(swept) == 5  # batches of 4 of 20 utterances, none of them twice
    assert tree_digest(tmp_path / "out") == tree_digest(tmp_path / "whole")


def test_a_journal_of_other_batches_is_not_resumed(ground, ranking, tmp_path, monkeypatch):
    def kill(model, swaps, batch):
        raise Killed

    (tmp_path / "out").mkdir()
    head = {"batch_size": 5, "layers": [0, 1, 2, 3], "utterances": 20}
    lines = [head, [0, [[9.0] * 4] * 5]]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "out/losses.0.jsonl").write_text(text, encoding="utf-8")
    assert ground.analyse(tmp_path / "out") == ranking


@pytest.mark.slow
def test_two_processes_give_the_bytes_of_one(ground, tmp_path):
    ground.analyse(tmp_path / "one", batch_size=BATCH_SIZE)
    (tmp_path / "two").mkdir()
    script = tmp_path / "script.py"
    script.write_text(
        "from pathlib import Path\n"
        "from quantize.ranking.sensitivity import analyse\n"
        "from tests.quantize.support import END, PROMPTS, ranked_options\n"
        f"ground = [Path(part) for part in {[str(p) for p in (ground.base, ground.corpus, ground.data)]}]\n"
        f"analyse(*ground, Path({str(tmp_path / 'two')!r}), options=ranked_options(), prompts=PROMPTS, end_token=END,"
        " dtype='float32', device='cpu')\n",
        encoding="utf-8",
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    environment = os.environ | {
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "OMP_NUM_THREADS": str(torch.get_num_threads()),
    }
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=HANG_SECONDS)
    assert done.returncode == 0, done.stderr
    assert tree_digest(tmp_path / "two") == tree_digest(tmp_path / "one")


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        (ranked_options("lm_head"), "'lm_head' is in no layer"),
        (ranked_options("norm"), "'norm' is never packed"),
        (ranked_options(bits=4), "'mlp' is stored as affine4g128 already"),
    ],
)
def test_an_override_that_cannot_be_ranked_is_refused_by_name(ground, tmp_path, chosen, said):
    with pytest.raises(UserError, match=said):
        ground.analyse(tmp_path / "out", chosen)
    assert not any((tmp_path / "out").iterdir())


def test_a_dev_set_that_lacks_a_pair_is_refused(ground, tmp_path):
    prompts = PROMPTS | {"en-it": render_prompt(PROMPT, "Italian")}
    with pytest.raises(UserError, match="0 utterances of en-it"):
        ground.analyse(tmp_path / "out", prompts=prompts)
    with pytest.raises(UserError, match=r"noise/0 is translated to 'zh', expected one of \['de'\]"):
        ground.analyse(tmp_path / "out", prompts={"en-de": PROMPTS["en-de"]})


def numbers(*rows: list[float]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def test_layers_are_ordered_by_the_mean_over_pairs_and_ties_by_number():
    sums = numbers([9, 9, 9, 9], [11, 11, 9, 9], [9, 9, 10, 10], [9, 9, 9, 9], [10, 10, 9, 9])
    pairs = ["a", "a", "b", "b"]
    ranking = rank_layers(sums, torch.tensor([2, 2, 1, 1]), pairs, [0, 1, 0, 1], [4, 5, 6, 7])
    # Per token: layer 4 costs 1 and 0, layer 5 0 and 1, layer 6 nothing, layer 7 a half and 0.
    assert ranking["order"] == [6, 7, 4, 5]
    assert [entry["mean"]["value"] for entry in ranking["layers"]] == [0.5, 0.5, 0.0, 0.25]


def test_the_error_of_the_mean_knows_that_pairs_share_their_audio():
    tokens = torch.tensor([1, 1, 1, 1])
    sums = numbers([0, 0, 0, 0], [1, 3, 1, 3])
    same, apart = (
        rank_layers(sums, tokens, ["a", "a", "b", "b"], places, [0])["layers"][0]
        for places in ([0, 1, 0, 1], [0, 1, 2, 3])
    )
    assert same["pairs"] == apart["pairs"]
    alone = same["pairs"]["a"]["standard_error"]
    assert same["mean"]["standard_error"] == pytest.approx(alone)  # the second pair adds nothing new
    assert apart["mean"]["standard_error"] == pytest.approx(alone / math.sqrt(3))  # four of +-1/4, 4 / 3 * 4 / 16


def test_a_loss_that_is_no_number_is_refused_by_its_layer():
    sums = numbers([1, 1], [1, math.nan])
    with pytest.raises(UserError, match="layer 3: its loss is not finite"):
        rank_layers(sums, torch.tensor([1, 1]), ["a", "a"], [0, 1], [3])
