"""A small good bundle whose outputs are those of the model in it, and the recordings that they translate."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from evaluate.decoding.decode import decode
from evaluate.scoring.score import DecodedTestSet, gather, score_testset
from quantize.packing.pack import pack_checkpoint
from submission.bundle.bundle import bundle
from submission.model.families import read_config
from submission.model.forecast import resolve_codecs
from submission.runtime.loading import load_model
from submission.runtime.prompt import render_prompt
from submission.store.digests import canonical_json
from submission.system.campaign import read_campaign
from submission.system.recipe.recipe_files import read_recipe
from submission.text.segments import SAMPLE_RATE, Segment, write_segments
from tests.evaluate.support import CAMPAIGN
from tests.evaluate.support import RECIPE as SEVEN_SECONDS

QUANTIZE = """
[quantize]
overrides = []
[quantize.codecs]
linears = { kind = "affine", bits = 8, group_size = 64 }
embedding = { kind = "affine", bits = 8, group_size = 64 }
"""
RECIPE = SEVEN_SECONDS.replace("max_seconds = 7", "max_seconds = 5") + QUANTIZE
"""Segments short enough that every recording has several, and every weight in 8 bits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundled:
    """A bundle, what it is checked against, and its test sets' recordings: TALKS in talks/, ACCENT in accent/."""

    folder: Path
    campaign: str
    recipe: str
    audio: Path

    def arguments(self, pair: str = "en-de") -> list[str]:
        return ["rerun", "--bundle", str(self.folder), "--campaign", self.campaign, "--pair", pair]


def make_bundled(place: Path, checkpoint: Path, recordings: Mapping[str, Path], segments: list[Segment]) -> Bundled:
    """Pack a checkpoint, translate the segments of TALKS and two of a recording of ACCENT, and bundle all of it."""
    audio = place / "audio"
    write_audio(audio, recordings)
    (place / "probe.toml").write_text(CAMPAIGN, encoding="utf-8")
    (place / "quick.toml").write_text(RECIPE, encoding="utf-8")
    campaign = read_campaign(str(place / "probe.toml"))
    recipe = read_recipe(str(place / "quick.toml"), campaign.name)
    codecs = resolve_codecs(read_config(checkpoint), recipe.quantize.codecs)
    (place / "model").mkdir()
    pack_checkpoint(checkpoint, place / "model", codecs, solver="hqq")
    speaker = [Segment(recording="speaker.flac", start=n * 32_000, end=(n + 1) * 32_000) for n in range(2)]
    sets = {"TALKS": segments, "ACCENT": speaker}
    paths = {path.name: path for path in audio.rglob("*.*")}
    model, processor = load_model(place / "model", recipe.decode.dtype)
    hypotheses = {}
    for pair in campaign.pairs:
        prompt = render_prompt(campaign.prompt, pair.target_language)
        for name in pair.testsets:
            out = hypotheses[pair.name, name] = place / f"{pair.name}-{name}.jsonl"
            end = campaign.model.end_token
            decode(model, processor, sets[name], paths, prompt, recipe.decode, out, end_token=end)
    for name in sets:
        write_segments(place / f"{name}.yaml", sets[name])
    (place / "scores.json").write_text(scores_of(hypotheses), encoding="utf-8")
    folder = bundle(
        place / "bundle",
        campaign=campaign,
        recipe=recipe,
        model=place / "model",
        hypotheses=hypotheses,
        segments={name: place / f"{name}.yaml" for name in sets},
        scores=place / "scores.json",
        segmenter=None,
        artifacts={},
        stages={"quantize": "a" * 64},
        inputs={"base": "b" * 64},
        provenance={"numpy": "1.0"},
    )
    return Bundled(folder=folder, campaign=str(place / "probe.toml"), recipe=str(place / "quick.toml"), audio=audio)


def write_audio(folder: Path, recordings: Mapping[str, Path]) -> None:
    """Copy the recordings of TALKS, each into a folder of its own, and write one of noise for ACCENT."""
    for name, path in recordings.items():
        (folder / "talks" / name[0]).mkdir(parents=True)
        shutil.copy(path, folder / "talks" / name[0] / name)
    (folder / "accent").mkdir()
    noise = np.random.default_rng(7).standard_normal(6 * SAMPLE_RATE).astype(np.float32) * 0.1
    soundfile.write(folder / "accent" / "speaker.flac", noise, SAMPLE_RATE)


def scores_of(hypotheses: Mapping[tuple[str, str], Path]) -> str:
    """Return scores.json of test sets without references; hypotheses: (pair, test set) -> its file."""
    cells = [
        score_testset(
            DecodedTestSet(
                testset=name,
                pair=pair,
                language=pair.rpartition("-")[2],
                hypotheses=path,
                references=None,
                given=name == "ACCENT",
            )
        )
        for (pair, name), path in hypotheses.items()
    ]
    return canonical_json(gather(cells))


def replace_output(bundled: Bundled, place: Path, path: str, text: str) -> Bundled:
    """Return a copy of a bundle that ships another text, with the manifest to match."""
    from submission.store.digests import sha256_text

    folder = Path(shutil.copytree(bundled.folder, place))
    (folder / path).write_text(text, encoding="utf-8", newline="\n")
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    manifest["files"][path] = {"bytes": len(text.encode()), "sha256": sha256_text(text)}
    (folder / "manifest.json").write_text(canonical_json(manifest), encoding="utf-8")
    return Bundled(folder=folder, campaign=bundled.campaign, recipe=bundled.recipe, audio=bundled.audio)
