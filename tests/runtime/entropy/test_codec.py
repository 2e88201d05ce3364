from __future__ import annotations

import dataclasses
import functools
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import Qwen2AudioForConditionalGeneration

from quantize.packing.unpack import unpack
from quantize.solvers.feedback import Moments
from quantize.solvers.fitting import solve_affine
from submission.bundle.checks import weights as checks
from submission.bundle.description import derive_facts
from submission.bundle.untrusted.bundle_view import BundleView
from submission.errors import UserError
from submission.model.codecs import Affine, codec_parts, parse_codec
from submission.model.codecs.entropy.codec import Entropy
from submission.model.codecs.entropy.layout import Grid, fixed_bytes
from submission.model.families import read_config
from submission.model.safetensors_header import read_header
from submission.model.solvers import technique_of
from submission.runtime.loading import load_for_inference
from submission.runtime.packed import PackedEmbedding, PackedLinear, PackedTensor, prepack_linears
from submission.runtime.products.byte_tiles import PrepackedTiles
from submission.runtime.products.int8_kernels import PrepackedCodes
from submission.runtime.quantizer import register
from submission.system.campaign import read_campaign
from submission.system.recipe.recipe_files import read_recipe
from tests.runtime.entropy.support import EMBEDDING, UP, base_checkpoint, encoded, entropy_codecs, pack, random_weight

ROOT = Path(__file__).parents[3]
SHAPE = (300, 130)
WEIGHT = random_weight(*SHAPE)


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return base_checkpoint(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def codecs(base):
    return entropy_codecs(base)


@pytest.fixture(scope="module")
def packed_once(base, codecs, tmp_path_factory) -> Path:
    return pack(base, tmp_path_factory.mktemp("bundle") / "model", codecs)


@pytest.fixture
def packed(packed_once, tmp_path) -> Path:
    """A copy that a test may break."""
    folder = tmp_path / "bundle/model"
    folder.mkdir(parents=True)
    for path in packed_once.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


@pytest.fixture(scope="module", params=[False, True], ids=["free", "trellis"])
def parts(request) -> tuple[Entropy, dict[str, torch.Tensor]]:
    return encoded(WEIGHT, trellis=request.param)


def load(folder: Path, dtype: torch.dtype = torch.float32):
    register()
    return Qwen2AudioForConditionalGeneration.from_pretrained(folder, dtype=dtype)


# --- the contract of a codec ---


def test_it_stores_the_parts_that_it_declares_and_uses_its_budget(parts):
    codec, found = parts
    declared = codec_parts("w", codec, SHAPE)
    assert {name: tuple(part.shape) for name, part in found.items()} == {name: s for name, (_, s) in declared.items()}
    assert [found[name].dtype for name in declared] == [torch.uint8, torch.float16, torch.float16]
    used = int(found["stream"].nonzero().max()) + 1
    assert 0.999 * codec.budget_bytes - 8 <= used <= codec.budget_bytes


def test_a_weight_is_code_times_scales_rounded_once(parts):
    codec, found = parts
    whole = codec.decode(found, SHAPE, torch.float32)
    step = found["row_scale"].double()[:, None] * found["column_scale"].double()
    codes = (whole.double() / step).round()
    assert torch.equal((codes * step).float(), whole)
    assert int(codes.abs().max()) > 127  # exceptions are exact
    assert float((whole - WEIGHT).square().sum() / WEIGHT.square().sum()) < 0.01
    assert torch.equal(codec.decode(found, SHAPE, torch.bfloat16), whole.bfloat16())


@given(st.integers(0, 299), st.integers(1, 300), st.lists(st.integers(0, 299), min_size=1, max_size=40), st.booleans())
@settings(max_examples=30, deadline=None)
def test_rows_are_those_of_the_whole_weight(begin, end, numbers, trellis):
    codec, found = encoded_once(trellis)
    whole = codec.decode(found, SHAPE, torch.float32)
    assert torch.equal(codec.decode(found, SHAPE, torch.float32, slice(begin, end)), whole[begin:end])
    rows = torch.tensor(numbers)
    assert torch.equal(codec.decode(found, SHAPE, torch.float32, rows), whole[rows])
    codes = codec.scaled_codes(found, SHAPE)
    assert torch.equal(codes.dequantize(torch.float32, slice(begin, end)), whole[begin:end])
    assert torch.equal(codes.dequantize(torch.float32, rows), whole[rows])


@functools.cache
def encoded_once(trellis):
    return encoded(WEIGHT, trellis=trellis)


@pytest.mark.parametrize("elements", [1, 1000, 1 << 20])
def test_blocks_are_the_whole_weight_in_order(parts, elements):
    codec, found = parts
    blocks = list(codec.blocks(found, SHAPE, torch.float32, elements))
    assert [rows.start for rows, _ in blocks[1:]] == [rows.stop for rows, _ in blocks[:-1]]
    assert torch.equal(torch.cat([b for _, b in blocks]), codec.decode(found, SHAPE, torch.float32))


@pytest.mark.parametrize("trellis", [False, True])
def test_rows_of_a_weight_of_several_blocks_are_found(trellis):
    weight = random_weight(4100, 33)
    codec, found = encoded(weight, trellis=trellis)
    whole = codec.decode(found, (4100, 33), torch.float32)
    rows = torch.tensor([4099, 0, 2049, 2050, 0])
    assert torch.equal(codec.decode(found, (4100, 33), torch.float32, rows), whole[rows])
    assert torch.equal(codec.decode(found, (4100, 33), torch.float32, slice(2040, 2060)), whole[2040:2060])


def test_a_budget_that_holds_no_stream_is_refused_with_what_is_needed():
    least = fixed_bytes(*SHAPE)
    with pytest.raises(UserError, match=rf"w: {least - 1} bytes do not hold a stream of 300 × 130 codes.*{least}"):
        codec_parts("w", Entropy(budget_bytes=least - 1), SHAPE)
    with pytest.raises(UserError, match="w: entropy has no budget of bytes"):
        codec_parts("w", Entropy(), SHAPE)


def test_sizes_of_any_shape_that_a_file_claims_take_no_time():
    assert fixed_bytes(1 << 20, 1 << 20) > 1 << 20
    for rows, columns in ((90, 70), (4100, 3), (5000, 11008), (1, 1), (4096, 64)):
        grid = Grid(rows=rows, columns=columns)
        assert grid.lanes == sum(block.lanes for block in grid.blocks())


def test_names_differ_by_budget_and_its_words_do_not():
    first, second = Entropy(budget_bytes=1000), Entropy(budget_bytes=1001)
    assert first.name != second.name and Entropy().name == "entropy"
    assert parse_codec({"kind": "entropy", "budget_bytes": 1000}, "x") == first
    assert parse_codec(first.to_dict(), "x") == first and parse_codec({"kind": "entropy"}, "x") == Entropy()
    words = technique_of(first, "feedback")
    assert words == technique_of(second, "feedback")
    assert words.startswith(
        "Error-feedback (steps by reverse water-filling) quantization to entropy-coded integer codes"
    )
    assert technique_of(Affine(bits=4, group_size=64), "feedback").startswith("Least-squares quantization to 4 bits")


def test_a_trellis_is_named_and_described_and_written_in_the_configuration():
    codec = Entropy(trellis=True, budget_bytes=1000)
    assert codec.name == "entropy-trellis-1000" and Entropy(trellis=True).name == "entropy-trellis"
    assert parse_codec({"kind": "entropy", "trellis": True, "budget_bytes": 1000}, "x") == codec
    assert parse_codec(codec.to_dict(), "x") == codec and codec.to_dict()["trellis"] is True
    assert "trellis-coded" in technique_of(codec, "feedback") and codec.summary != Entropy().summary
    with pytest.raises(UserError, match="x: trellis: expected true or false"):
        parse_codec({"kind": "entropy", "trellis": "yes"}, "x")


def test_a_trellis_loses_a_fifth_less_in_the_same_bytes():
    weight = torch.randn(512, 256, generator=torch.Generator().manual_seed(5))
    errors = []
    for trellis in (False, True):
        codec, found = encoded(weight, 3.0, trellis=trellis)
        errors.append(float((codec.decode(found, (512, 256), torch.float32) - weight).square().mean()))
    assert errors[1] < 0.8 * errors[0]


def test_moments_give_other_steps_and_a_smaller_weighted_error():
    generator = torch.Generator().manual_seed(3)
    inputs = torch.randn(500, 130, generator=generator) * torch.rand(130, generator=generator).mul(4).exp()
    second = inputs.t() @ inputs / 500
    weight = random_weight(*SHAPE, outliers=0)

    def loss(moments):
        codec, found = encoded(weight, 3.0, moments)
        error = weight - codec.decode(found, SHAPE, torch.float32)
        return float(((error @ second) * error).sum())

    aware = loss(Moments(second_moment=lambda: second, importance=torch.ones(300)))
    assert aware < 0.5 * loss(Moments())


def test_the_solver_serves_affine_codecs_without_moments():
    solution = solve_affine(WEIGHT, 4, 64, moments=Moments())
    assert solution.codes.shape == WEIGHT.shape and int(solution.codes.max()) <= 15


# --- parts from an untrusted file ---


@pytest.mark.parametrize(
    ("part", "change", "said"),
    [
        ("stream", lambda p: p[:4].fill_(7), "stream: header: expected b'E[CT]01'"),
        ("stream", lambda p: p[600].add_(1), "stream: "),
        ("stream", lambda p: p[-1].fill_(1), "stream: padding: a byte is not zero"),
        ("row_scale", lambda p: p[2].fill_(float("nan")), "row_scale: holds a number that is not positive and finite"),
        ("row_scale", lambda p: p[2].fill_(0), "row_scale: holds a number that is not positive and finite"),
        ("column_scale", lambda p: p[2].fill_(float("-inf")), "column_scale: holds a number that is not positive"),
    ],
)
def test_parts_that_it_never_writes_are_refused_by_name(parts, packed, part, change, said):
    codec, found = parts
    broken = {name: p.clone() for name, p in found.items()}
    change(broken[part])
    with pytest.raises(ValueError, match=f"^{said}"):
        codec.check(broken, SHAPE)
    weights = load_file(packed / "model.safetensors")
    change(weights[f"{UP}.{part}"])
    save_file(weights, packed / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=f"up_proj.weight.{said}"):
        load(packed)


def test_parts_that_encoding_made_pass_their_check(parts):
    codec, found = parts
    codec.check(found, SHAPE)


# --- whole models ---


def test_a_model_takes_the_bytes_of_its_budgets(packed, codecs):
    sizes = read_header(packed / "model.safetensors").tensors
    for name, codec in codecs.items():
        if codec.kind == "entropy":
            assert sizes[f"{name}.stream"].shape == (codec.budget_bytes,)


def test_packing_again_gives_the_same_bytes(base, codecs, packed, tmp_path):
    again = pack(base, tmp_path / "again", codecs)
    assert (again / "model.safetensors").read_bytes() == (packed / "model.safetensors").read_bytes()


def faults(folder: Path) -> list[tuple[str, str]]:
    view = BundleView(folder, read_campaign("miniature"))
    return [*checks.wrong_tensors(view), *checks.undecodable_weight(view)]


def test_verification_finds_nothing_in_a_good_model_and_names_a_damaged_stream(packed):
    assert faults(packed.parent) == []
    weights = load_file(packed / "model.safetensors")
    weights[f"{UP}.stream"][2000] ^= 1
    save_file(weights, packed / "model.safetensors", metadata={"format": "pt"})
    ((where, what),) = faults(packed.parent)
    assert where == "model" and what.startswith(f"'{UP}': stream: ") and "damaged" in what


def test_streams_are_checked_on_a_bare_python(packed):
    program = """
import sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from submission.bundle.checks import weights
from submission.bundle.untrusted.bundle_view import BundleView
from submission.system.campaign import read_campaign
view = BundleView(Path(sys.argv[1]), read_campaign("miniature"))
print([*weights.undecodable_weight(view)], {"numpy", "numba", "torch"} & sys.modules.keys())
"""
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program, str(packed.parent), str(ROOT)], capture_output=True, text=True
    )
    assert done.stdout == "[] set()\n", done.stderr


def plain_model(folder: Path, dtype: torch.dtype):
    return load(folder, dtype).dequantize()


def test_stock_from_pretrained_computes_what_a_plain_model_of_the_decoded_weights_does(packed):
    model, plain = load(packed), plain_model(packed, torch.float32)
    ids = torch.randint(0, 20, (2, 5), generator=torch.Generator().manual_seed(0))
    assert isinstance(model.get_input_embeddings(), PackedEmbedding)
    with torch.inference_mode():
        assert torch.allclose(model(input_ids=ids).logits, plain(input_ids=ids).logits, atol=1e-5)
        options = {"max_new_tokens": 4, "do_sample": False}
        assert torch.equal(model.generate(ids, **options), plain.generate(ids, **options))


def test_saving_it_gives_the_same_bytes_before_and_after_prepacking(packed, tmp_path):
    model = load(packed, torch.bfloat16)
    for name in ("plain", "prepacked"):
        model.save_pretrained(tmp_path / name)
        for file in ("model.safetensors", "config.json"):
            assert (tmp_path / name / file).read_bytes() == (packed / file).read_bytes()
        assert prepack_linears(model) > 0


def test_unpacked_it_is_the_checkpoint_of_the_decoded_weights(packed, tmp_path):
    unpack(packed, tmp_path / "plain")
    expected = plain_model(packed, torch.bfloat16).state_dict()
    found = load(tmp_path / "plain", torch.bfloat16).state_dict()
    assert all(torch.equal(value, found[name]) for name, value in expected.items())


def test_a_prepacked_model_computes_nearly_the_same(packed):
    model, plain = load(packed, torch.bfloat16), plain_model(packed, torch.float32)
    ids = torch.randint(0, 20, (2, 5), generator=torch.Generator().manual_seed(0))
    linears = [module for module in model.modules() if isinstance(module, PackedLinear)]
    coded = [module for module in linears if module.weight.codec.kind == "entropy"]
    assert prepack_linears(model) >= len(coded) > 5
    assert all(isinstance(module.weight.prepacked, PrepackedCodes | PrepackedTiles) for module in coded)
    assert model.get_input_embeddings().weight.prepacked is not None
    with torch.inference_mode():
        exact, fast = plain(input_ids=ids).logits, model(input_ids=ids).logits.float()
    assert (fast - exact).norm() < 0.05 * exact.norm()


def test_a_small_model_in_float32_becomes_plain_layers_of_the_decoded_weights(packed, codecs):
    model, _ = load_for_inference(packed, "float32")
    assert not any(isinstance(module, PackedTensor) for module in model.modules())
    parts, shape = load_file(packed / "model.safetensors"), tuple(model.get_input_embeddings().weight.shape)
    found = {suffix: parts[f"{EMBEDDING}.{suffix}"] for suffix in ("stream", "row_scale", "column_scale")}
    assert torch.equal(model.get_input_embeddings().weight, codecs[EMBEDDING].decode(found, shape, torch.float32))


def test_a_stream_that_cannot_be_decoded_is_named_when_it_is_prepacked(packed, monkeypatch):
    model = load(packed, torch.bfloat16)

    def damaged(*args, **kwargs):
        raise ValueError("payload: the block at row 0, column 0 cannot be decoded; the file is damaged")

    monkeypatch.setattr("submission.model.codecs.entropy.stream.OpenedStream.decode", damaged)
    with pytest.raises(UserError, match=r"packed model: .*\.weight\.stream: payload: the block"):
        prepack_linears(model)


def test_it_is_described_in_its_own_words_once_for_all_budgets(packed, codecs):
    recipe = read_recipe("primary", "miniature")
    recipe = dataclasses.replace(recipe, quantize=dataclasses.replace(recipe.quantize, solver="feedback"))
    facts = derive_facts(read_config(packed), 1, read_campaign("miniature"), recipe)
    lines = [line for line in facts.techniques if "entropy-coded" in line]
    assert len({codec.name for codec in codecs.values() if codec.kind == "entropy"}) > 2 == len(lines)
    said = "Error-feedback (steps by reverse water-filling) quantization to entropy-coded"
    assert lines[0].startswith(f"{said} integer codes") and lines[1].startswith(f"{said} trellis-coded integers")
    assert codecs[EMBEDDING].trellis and "embedding" in lines[1] and "embedding" not in lines[0]
