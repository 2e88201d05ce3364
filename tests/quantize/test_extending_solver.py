"""docs/extending/solver.md, followed: its solver works everywhere by its file and its line; solvers get side data."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
import torch

from quantize.packing.pack import pack_checkpoint
from quantize.solvers.bound import bind_solver
from quantize.solvers.hqq import solve_hqq
from submission.bundle.description import derive_facts
from submission.errors import UserError
from submission.miniature.model import SMALL
from submission.model.codecs import Affine
from submission.model.families import read_config
from submission.model.forecast import resolve_codecs
from submission.model.solvers import SOLVERS, Solver, technique_of
from submission.system.campaign import read_campaign
from submission.system.recipe.quantize_options import QuantizeOptions
from submission.system.recipe.recipe_files import read_recipe
from submission.system.schema import parse
from tests.support.extending import ROOT, import_source, titled_blocks
from tests.support.tiny_qwen import build_checkpoint

FILE = "quantize/solvers/minmax.py"
FOUR = Affine(bits=4, group_size=64)


@pytest.fixture
def page_solver(monkeypatch) -> str:
    """The name of the page's solver, which is in the registry."""
    blocks = titled_blocks("solver.md")
    import_source(monkeypatch, FILE, blocks[FILE])
    ((name, solver),) = eval("{" + blocks["the line"] + "}", {"Solver": Solver}).items()
    monkeypatch.setitem(SOLVERS, name, solver)
    return name


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return build_checkpoint(tmp_path_factory.mktemp("base"), ["the cat sleeps"], SMALL, 1)


def test_the_page_gives_a_solver_to_whoever_follows_it(tmp_path):
    blocks = titled_blocks("solver.md")
    for package in ("submission", "quantize"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("*.safetensors"))
    (tmp_path / FILE).write_text(blocks[FILE], encoding="utf-8")
    registry = tmp_path / "submission/model/solvers.py"
    text, head = registry.read_text(encoding="utf-8"), "SOLVERS: dict[str, Solver] = {\n"
    assert head in text
    registry.write_text(text.replace(head, head + blocks["the line"]), encoding="utf-8")
    program = f"""
import tomllib, torch
from submission.model.solvers import SOLVERS, parse_solver
name = parse_solver(tomllib.loads({blocks["recipe"]!r})["quantize"]["solver"], "recipe")
print(SOLVERS[name].function("affine")(torch.eye(4), 2, 4).codes.tolist())
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == "[[3, 0, 0, 0], [0, 3, 0, 0], [0, 0, 3, 0], [0, 0, 0, 3]]\n", done.stderr


def test_its_error_is_above_hqqs_and_below_a_step(page_solver):
    weight = torch.randn(32, 150, generator=torch.Generator().manual_seed(0))
    errors = {}
    for name in (page_solver, "hqq"):
        parts = FOUR.encode(weight, bind_solver(name)("w", FOUR))
        errors[name] = float((FOUR.decode(parts, (32, 150), torch.float32) - weight).square().mean())
    assert errors["hqq"] < errors[page_solver] < 0.02


def test_it_packs_a_model_and_the_description_names_it(page_solver, base, tmp_path):
    report = pack_checkpoint(base, tmp_path, resolve_codecs(read_config(base), {"*": FOUR}), solver=page_solver)
    assert report["solver"] == page_solver and len(report["packed"]) > 10
    recipe = read_recipe("primary", "miniature")
    recipe = dataclasses.replace(recipe, quantize=dataclasses.replace(recipe.quantize, solver=page_solver))
    facts = derive_facts(read_config(tmp_path), 1, read_campaign("miniature"), recipe)
    assert facts.techniques[0].startswith(
        "Round-to-nearest quantization to 4 bits, float16 scale and zero-point per 64"
    )


def test_recipes_know_it_by_name(page_solver):
    table = tomllib.loads('solver = "minmax"\n[codecs]\nmlp = { kind = "affine", bits = 4, group_size = 64 }')
    assert parse(QuantizeOptions, table, "recipe").solver == "minmax"
    with pytest.raises(UserError, match=r"recipe: solver: unknown solver 'minimax'; did you mean 'minmax'\?"):
        parse(QuantizeOptions, table | {"solver": "minimax"}, "recipe")
    with pytest.raises(UserError, match="recipe: solver: expected the name of a solver, got 4"):
        parse(QuantizeOptions, table | {"solver": 4}, "recipe")
    with pytest.raises(UserError, match="recipe: solver: missing; write solver = a text"):
        parse(QuantizeOptions, {key: table[key] for key in table if key != "solver"}, "recipe")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Ternary(Affine):
    """A codec whose interface no solver of the project serves."""

    kind: Literal["ternary"] = "ternary"
    interface: ClassVar[str] = "ternary"


def test_a_solver_that_does_not_serve_a_codec_is_refused_with_those_that_do(monkeypatch):
    codec = Ternary(bits=2, group_size=64)
    monkeypatch.setitem(SOLVERS, "three", Solver(technique="Three", functions={"ternary": "nowhere:solve"}))
    with pytest.raises(
        ValueError, match=r"'hqq' finds no codes for ternary2g64 \(codecs.mlp\); solvers that do: three"
    ):
        QuantizeOptions(solver="hqq", codecs={"mlp": codec})
    with pytest.raises(UserError, match=r"'hqq' finds no codes for ternary2g64 \(w\); solvers that do: three"):
        bind_solver("hqq")("w", codec)
    assert technique_of(codec, "hqq").startswith("Quantization to 2 bits")
    assert technique_of(codec, "three").startswith("Three quantization to 2 bits")


def test_a_solver_gets_its_side_data_for_each_weight(monkeypatch, base, tmp_path):
    seen: list[tuple[str, tuple[int, ...]]] = []

    def solve_weighted(weight: torch.Tensor, bits: int, group_size: int, *, moments: str) -> Any:
        seen.append((moments, tuple(weight.shape)))
        return solve_hqq(weight, bits, group_size)

    monkeypatch.setattr("quantize.solvers.hqq.solve_weighted", solve_weighted, raising=False)
    line = Solver(technique="W", functions={"affine": "quantize.solvers.hqq:solve_weighted"}, side_data=("moments",))
    monkeypatch.setitem(SOLVERS, "weighted", line)
    codecs = resolve_codecs(read_config(base), {"mlp.up": FOUR})
    with pytest.raises(UserError, match="'weighted' needs moments of each weight, and nothing supplies them"):
        pack_checkpoint(base, tmp_path, codecs, solver="weighted")
    pack_checkpoint(base, tmp_path, codecs, solver="weighted", side_data=lambda name: {"moments": f"of {name}"})
    assert sorted(moments for moments, _ in seen) == sorted(f"of {name}" for name in codecs)
