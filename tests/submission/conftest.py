"""A tiny packed model and what goes into a bundle beside it: built once, copied by tests that break it."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from submission.bundle.bundle import bundle
from submission.model.checkpoint import config_text, packed_config
from submission.model.codecs import Affine, Codec
from submission.model.families import read_config, stored_dtype, tensors
from submission.model.forecast import companion_files, resolve_codecs, stored_parts
from submission.model.safetensors_header import file_bytes, header_bytes
from submission.store.digests import canonical_json
from submission.system.campaign import Campaign, read_campaign
from submission.system.data_folder import SHIPPED
from submission.system.recipe.recipe import Recipe
from submission.system.recipe.recipe_files import read_recipe
from submission.text.segments import Segment, segment_ids, write_segments

# The shapes of the miniature's base model, since a smaller one is worth a warning.
CONFIG = read_config(SHIPPED["base"])
RULES: dict[str, Codec] = {"*": Affine(bits=3, group_size=128)}
TEXTS = {"de": ["Guten Tag.", "Das ist ein Test.", ""], "zh": ["你好。", "这是一个测试。", ""]}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingredients:
    """What a bundle is made of, in a folder of its own."""

    folder: Path
    campaign: Campaign
    recipe: Recipe

    def bundle(self, out: Path, **changes) -> Path:
        values = {
            "campaign": self.campaign,
            "recipe": self.recipe,
            "model": self.folder / "model",
            "hypotheses": {
                (pair.name, name): self.folder / pair.name / f"{name}.jsonl"
                for pair in self.campaign.pairs
                for name in (*pair.testsets, "ACL6060")
            },
            "segments": {t.name: self.folder / f"{t.name}.yaml" for t in self.campaign.testsets},
            "scores": self.folder / "scores.json",
            "segmenter": SHIPPED["shas"],
            "artifacts": {},
            "stages": {"quantize": "a" * 64},
            "inputs": {"base": "b" * 64},
            "provenance": {"torch": "2.13.0"},
        }
        return bundle(out, **(values | changes))


def write_model(folder: Path) -> None:
    codecs = resolve_codecs(CONFIG, RULES)
    stored = {
        name: part
        for spec in tensors(CONFIG)
        for name, part in stored_parts(spec, codecs.get(spec.name), stored_dtype(CONFIG)).items()
    }
    head = header_bytes(stored)
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(head + b"Z" * (file_bytes(stored) - len(head)))
    (folder / "config.json").write_text(config_text(packed_config(CONFIG, codecs)), encoding="utf-8")
    for path in companion_files(SHIPPED["base"]):
        shutil.copy(path, folder)


def write_scores(path: Path, campaign: Campaign, *, blank: int) -> None:
    """Write what `evaluate score` says of outputs of three lines, `blank` of which are."""
    testsets = [
        {"pair": pair.name, "testset": name, "segments": 3, "flags": {"blank": blank}, "references": None}
        for pair in campaign.pairs
        for name in pair.testsets
    ]
    figures = [
        {**{key: record[key] for key in ("pair", "testset", "segments")}, "metric": metric, "value": value}
        for record in testsets
        for metric, value in (("BLEU", 31.5), ("chrF", 52.25))
    ]
    path.write_text(canonical_json({"scores": figures, "testsets": testsets}), encoding="utf-8")


def write_ingredients(folder: Path, campaign: Campaign) -> Ingredients:
    write_model(folder / "model")
    segments = [Segment(recording="talk1.wav", start=i * 16000, end=(i + 1) * 16000) for i in range(3)]
    for testset in campaign.testsets:
        write_segments(folder / f"{testset.name}.yaml", segments)
    for pair in campaign.pairs:
        (folder / pair.name).mkdir()
        for number, name in enumerate((*pair.testsets, "ACL6060")):
            first, *others = TEXTS[pair.target]
            texts = [f"{first} {number}." if number else first, *others]  # no two outputs are equal
            lines = [
                json.dumps({"segment": segment, "text": text, "flags": []}, ensure_ascii=False) + "\n"
                for segment, text in zip(segment_ids(segments), texts, strict=True)
            ]
            (folder / pair.name / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    write_scores(folder / "scores.json", campaign, blank=1)
    recipe = read_recipe("primary", "miniature")
    quantize = replace(recipe.quantize, codecs=RULES)
    return Ingredients(folder=folder, campaign=campaign, recipe=replace(recipe, quantize=quantize))


@pytest.fixture(scope="session")
def ingredients(tmp_path_factory) -> Ingredients:
    return write_ingredients(tmp_path_factory.mktemp("ingredients"), read_campaign("miniature"))


@pytest.fixture(scope="session")
def pristine(ingredients, tmp_path_factory) -> Path:
    """A good bundle, to be read only."""
    return ingredients.bundle(tmp_path_factory.mktemp("dist") / "miniature-primary")


@pytest.fixture
def good(pristine, tmp_path) -> Path:
    """A good bundle of one's own."""
    return Path(shutil.copytree(pristine, tmp_path / "bundle"))
