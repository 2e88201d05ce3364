from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from threading import Lock

import pytest
import torch
from safetensors.torch import load_file, save_file

from quantize.packing.pack import JOURNAL, encode, pack_checkpoint, pack_system, read_tensor
from quantize.solvers.bound import bind_solver
from quantize.solvers.hqq import solve_hqq
from submission.errors import UserError
from submission.miniature.model import SMALL
from submission.model.checkpoint import Located, read_checkpoint
from submission.model.codecs import affine as affine_module
from submission.model.codecs.dtypes import torch_dtype
from submission.model.families import read_config, tensors
from submission.model.forecast import companion_files, forecast, resolve_codecs
from submission.store.digests import tree_digest
from tests.quantize.support import OVERRIDES, RULES, affine, codecs_of
from tests.support.tiny_qwen import build_checkpoint

UP = "language_model.model.layers.0.mlp.up_proj.weight"
NORM = "language_model.model.norm.weight"


SOLVE_FOR = bind_solver("hqq")


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return build_checkpoint(tmp_path_factory.mktemp("base"), ["the cat sleeps", "die Katze schläft"], SMALL, 1)


@pytest.fixture
def copy(base, tmp_path) -> Path:
    return Path(shutil.copytree(base, tmp_path / "copy"))


def pack(folder: Path, out: Path) -> dict:
    out.mkdir()
    return pack_checkpoint(folder, out, codecs_of(folder), solver="hqq")


def change(folder: Path, edit) -> None:
    path = folder / "model.safetensors"
    weights = {name: tensor.clone() for name, tensor in load_file(path).items()}
    edit(weights)
    save_file(weights, path, metadata={"format": "pt"})


def test_the_model_weighs_what_the_forecast_says_to_the_byte(base, tmp_path):
    report = pack(base, tmp_path / "out")
    other = sum(path.stat().st_size for path in companion_files(base))
    cast = forecast(read_config(base), RULES, OVERRIDES, other_bytes=other)
    assert sum(path.stat().st_size for path in (tmp_path / "out").iterdir()) == cast.total_bytes
    assert (tmp_path / "out" / "model.safetensors").stat().st_size == cast.weights_bytes
    assert report["total_bytes"] == cast.total_bytes and report["weights_bytes"] == cast.weights_bytes
    assert report["parameters"] == cast.parameters


def test_every_tensor_is_packed_by_the_solver_or_kept_as_it_was(base, tmp_path):
    report = pack(base, tmp_path / "out")
    before, after = load_file(base / "model.safetensors"), load_file(tmp_path / "out" / "model.safetensors")
    codecs = codecs_of(base)
    for spec in tensors(read_config(base)):
        codec = codecs.get(spec.name)
        if codec is None:
            assert torch.equal(after.pop(spec.name), before[spec.name]), spec.name
            continue
        for suffix, part in codec.encode(before[spec.name].float(), solve_hqq).items():
            assert torch.equal(after.pop(f"{spec.name}.{suffix}"), part), spec.name
        assert report["packed"][spec.name]["codec"] == codec.name
    assert not after and set(report["packed"]) == set(codecs)


def test_the_report_says_what_packing_did_to_each_weight(base, tmp_path):
    packed = pack(base, tmp_path / "out")["packed"]
    four = packed["language_model.model.layers.0.self_attn.q_proj.weight"]
    three = packed["language_model.model.layers.1.mlp.up_proj.weight"]
    assert four["codec"] == "affine4g64" and four["bytes"] == 128 * 64 + 2 * 2 * 128 * 2
    assert 0.006 < four["relative_mse"] < 0.009 < 0.03 < three["relative_mse"] < 0.04


def test_a_weight_larger_than_the_solver_sees_is_packed_in_blocks_of_rows(monkeypatch):
    weight = torch.randn(50, 128, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(affine_module, "SOLVE_ELEMENTS", 20 * 128 + 5)
    whole = encode("w", weight, affine(3, 64), SOLVE_FOR)
    blocks = [encode("w", weight[rows], affine(3, 64), SOLVE_FOR) for rows in (slice(20), slice(20, 40), slice(40, 50))]
    for name, part in whole.items():
        assert torch.equal(part, torch.cat([block[name] for block in blocks]))


def test_packing_twice_gives_the_same_bytes(base, tmp_path):
    pack(base, tmp_path / "a")
    pack(base, tmp_path / "b")
    assert tree_digest(tmp_path / "a") == tree_digest(tmp_path / "b")


def test_shards_and_new_names_give_the_bytes_of_one_file(base, copy, tmp_path):
    weights = load_file(copy / "model.safetensors")
    (copy / "model.safetensors").unlink()
    renamed = {
        name.replace("language_model.model.", "model.language_model.").replace("language_model.lm_head", "lm_head"): t
        for name, t in weights.items()
    }
    names = sorted(renamed)
    shards = {"model-1-of-2.safetensors": names[::2], "model-2-of-2.safetensors": names[1::2]}
    for file, chosen in shards.items():
        save_file({name: renamed[name] for name in chosen}, copy / file, metadata={"format": "pt"})
    index = {"weight_map": {name: file for file, chosen in shards.items() for name in chosen}}
    (copy / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    assert pack(copy, tmp_path / "sharded")["left_out"] == []
    pack(base, tmp_path / "single")
    assert tree_digest(tmp_path / "sharded") == tree_digest(tmp_path / "single")


def rename_dtype(folder: Path, name: str) -> None:
    config = read_config(folder) | {"dtype": name}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")


def test_a_kept_tensor_of_another_dtype_than_the_configuration_says_is_refused(copy, tmp_path):
    change(copy, lambda weights: weights.update({NORM: weights[NORM].float()}))
    with pytest.raises(UserError, match=f"{NORM} is kept as it is, in F32, and config.json says BF16"):
        pack(copy, tmp_path / "out")


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_kept_tensors_keep_the_checkpoints_dtype(copy, tmp_path, dtype):
    change(copy, lambda weights: weights.update({name: t.to(dtype) for name, t in weights.items()}))
    rename_dtype(copy, str(dtype).removeprefix("torch."))
    pack(copy, tmp_path / "out")
    assert load_file(tmp_path / "out" / "model.safetensors")[NORM].dtype == dtype


def test_files_beside_the_weights_are_copied_or_named(copy, tmp_path):
    (copy / "README.md").write_text("made at home", encoding="utf-8")
    report = pack(copy, tmp_path / "out")
    assert report["left_out"] == ["README.md"]
    assert "tokenizer.json" in report["copied"] and "generation_config.json" in report["copied"]
    for name in report["copied"]:
        assert (tmp_path / "out" / name).read_bytes() == (copy / name).read_bytes()
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"config.json", "model.safetensors", *report["copied"]}


def test_a_packed_model_is_read_as_complete(base, tmp_path):
    pack(base, tmp_path / "out")
    assert read_checkpoint(tmp_path / "out").codecs == codecs_of(base)


def poison(weights: dict[str, torch.Tensor], name: str) -> None:
    weights[name].view(-1)[5] = float("inf")


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda w: poison(w, UP), f"{UP}: 1 numbers are not finite"),
        (lambda w: poison(w, NORM), f"{NORM}: 1 numbers are not finite"),
        (lambda w: w.pop(UP), f"1 tensors missing: {UP}"),
        (lambda w: w.update({"adapter.weight": torch.ones(2)}), "1 tensors not part of this model: adapter.weight"),
        (lambda w: w.update({UP: w[UP][:, :64].clone()}), f"{UP}: expected the shape [128, 128], got [128, 64]"),
        (lambda w: w.update({UP: torch.full((128, 128), 3e4).bfloat16() + torch.eye(128)}), "beyond float16"),
        (lambda w: w.update({UP: torch.ones((128, 128), dtype=torch.int8)}), "expected the dtype"),
    ],
)
def test_a_checkpoint_that_cannot_be_packed_is_refused_by_its_tensor(copy, tmp_path, edit, said):
    change(copy, edit)
    with pytest.raises(UserError) as caught:
        pack(copy, tmp_path / "out")
    assert said in str(caught.value)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("position", [0, 1 << 18, (1 << 18) + 6])
def test_one_number_that_is_not_finite_is_found_wherever_it_lies(tmp_path, dtype, position):
    numbers = torch.full(((1 << 18) + 7,), torch.finfo(dtype).max, dtype=dtype)
    numbers[3] = torch.finfo(dtype).smallest_normal / 2
    names = {torch_dtype(name): name for name in ("BF16", "F16", "F32", "F64")}

    path = tmp_path / "model.safetensors"

    def read() -> torch.Tensor:
        save_file({"w": numbers}, path)
        begin = path.stat().st_size - numbers.nbytes
        return read_tensor(Located(path=path, offset=begin, dtype=names[dtype], shape=tuple(numbers.shape)), "w")

    assert torch.equal(read(), numbers)
    for value in (float("nan"), float("inf"), float("-inf")):
        numbers[position] = value
        with pytest.raises(UserError, match="w: 1 numbers are not finite"):
            read()


def test_a_packed_model_is_not_packed_again(base, tmp_path):
    pack(base, tmp_path / "out")
    with pytest.raises(UserError, match="is packed already"):
        pack(tmp_path / "out", tmp_path / "again")


class Killed(Exception):
    """Stands for a kill: nothing of ours catches it."""


def killing_solver(monkeypatch, after: int) -> list[str]:
    """Let packing die after some weights; return the list that fills with the solver's calls."""
    calls: list[str] = []
    counting = Lock()

    def dying(weight, bits, group_size):
        with counting:  # several weights are solved at once
            if len(calls) == after:
                raise Killed
            calls.append(f"{bits} bits")
        return solve_hqq(weight, bits, group_size)

    monkeypatch.setattr("quantize.solvers.hqq.solve_hqq", dying)
    return calls


def test_a_killed_run_resumes_after_the_last_weight_that_is_on_the_disk(base, tmp_path, monkeypatch):
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    whole.mkdir()
    torn.mkdir()
    pack_system(base, whole, codecs_of(base), "hqq")
    with monkeypatch.context() as patch:
        killing_solver(patch, 7)
        with pytest.raises(Killed):
            pack_system(base, torn, codecs_of(base), "hqq")
    with (torn / JOURNAL).open("a") as journal:
        journal.write('["language_model.lm_h')  # an incomplete line
    with monkeypatch.context() as patch:
        calls = killing_solver(patch, -1)
        pack_system(base, torn, codecs_of(base), "hqq")
    assert len(calls) == len(codecs_of(base)) - 7
    assert tree_digest(torn) == tree_digest(whole)


def test_a_journal_of_another_layout_is_not_believed(base, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        killing_solver(patch, 7)
        with pytest.raises(Killed):
            pack_system(base, tmp_path, codecs_of(base), "hqq")
    other = resolve_codecs(read_config(base), {"*": affine(2, 64)})
    calls = killing_solver(monkeypatch, -1)
    pack_system(base, tmp_path, other, "hqq")
    assert len(calls) == len(other)


def test_a_process_that_is_killed_in_packing_loses_only_the_weights_it_was_at(base, tmp_path):
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    whole.mkdir()
    torn.mkdir()
    pack_system(base, whole, codecs_of(base), "hqq")
    child = f"""
import itertools, os, signal
from pathlib import Path
import torch
from quantize.packing.pack import pack_system
from quantize.solvers import hqq
from tests.quantize.support import codecs_of
solve_hqq, calls = hqq.solve_hqq, itertools.count()
def dying(weight, bits, group_size):
    if next(calls) == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return solve_hqq(weight, bits, group_size)
hqq.solve_hqq = dying
torch.set_num_threads(2)
base = Path({str(base)!r})
pack_system(base, Path({str(torn)!r}), codecs_of(base), "hqq")
"""
    died = subprocess.run([sys.executable, "-c", child], cwd=Path(__file__).parents[2], check=False)
    assert died.returncode == -signal.SIGKILL
    assert len((torn / JOURNAL).read_text().splitlines()) in (4, 5), "one more than the other thread was at"
    pack_system(base, torn, codecs_of(base), "hqq")
    assert tree_digest(torn) == tree_digest(whole)


def test_a_system_that_packs_nothing_is_the_checkpoint(base, tmp_path):
    pack_system(base, tmp_path, {}, "hqq")
    before, after = load_file(base / "model.safetensors"), load_file(tmp_path / "model" / "model.safetensors")
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    assert read_config(tmp_path / "model") == read_config(base)
