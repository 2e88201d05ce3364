"""Write a packed model of the campaign's size with random codes, for benchmarks of memory and speed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from submission.model.checkpoint import WEIGHTS, config_text, packed_config
from submission.model.families import family_of, shipped_config, stored_dtype, tensors
from submission.model.forecast import Forecast, forecast, stored_parts
from submission.model.safetensors_header import header_bytes, lay_out, tensor_bytes
from submission.progress import progress
from submission.store.digests import write_text
from submission.system.campaign import read_campaign
from submission.system.recipe.recipe_files import read_recipe

CAMPAIGN = "iwslt26"
RECIPE = "contrastive"
"""System 10 of the paper: 4-bit linears, some MLPs at 3 bits, the embedding at 2; the primary weighs the same."""

BLOCK_BYTES = 1 << 24
SMALL_NUMBERS = {"BF16": 0x3B80, "F16": 0x1C00}
"""2 ** -8 in each floating dtype, the value of every number that is no code."""


def full_size_config() -> dict[str, Any]:
    """Return the configuration of the campaign's model."""
    name = read_campaign(CAMPAIGN).model.name
    config = shipped_config(name)
    assert config is not None, f"no configuration of {name} ships"
    return config


def full_size_forecast() -> Forecast:
    """Return what the recipe makes of the campaign's model."""
    campaign, options = read_campaign(CAMPAIGN), read_recipe(RECIPE, CAMPAIGN).quantize
    return forecast(full_size_config(), options.codecs, options.overrides, limit_bytes=campaign.size_limit_bytes)


def write_random_model(folder: Path, predicted: Forecast | None = None) -> Path:
    """Write a packed model of random codes into a folder, unless it is there, and return the folder.

    predicted: what to write; None for the campaign's model. There is no tokenizer. The same arguments give the same
    bytes.
    """
    predicted = predicted or full_size_forecast()
    if (folder / "config.json").is_file():
        return folder
    folder.mkdir(parents=True)
    stored: dict[str, tuple[str, tuple[int, ...]]] = {}
    for spec in tensors(predicted.config):
        stored |= stored_parts(spec, predicted.codecs.get(spec.name), stored_dtype(predicted.config))
    block = np.random.default_rng(0).integers(0, 256, BLOCK_BYTES, dtype=np.uint8)
    sizes = {name: tensor_bytes(*stored[name]) for name in lay_out(stored)}
    with (folder / WEIGHTS).open("wb") as file, progress("random model", sum(sizes.values()) / 1e6, "MB") as tick:
        file.write(header_bytes(stored))
        for name, size in sizes.items():
            pattern = SMALL_NUMBERS.get(stored[name][0])
            source = block if pattern is None else np.full(BLOCK_BYTES // 2, pattern, dtype="<u2").view(np.uint8)
            for start in range(0, size, BLOCK_BYTES):
                file.write(source[: min(BLOCK_BYTES, size - start)].data)
            tick(size / 1e6)
    write_text(folder / "config.json", config_text(packed_config(predicted.config, predicted.codecs)))
    return folder


def random_prompt(config: dict[str, Any], rows: int, tokens: int) -> Any:
    """Return int64 [rows, tokens] of ordinary tokens."""
    import torch

    most = family_of(config).ordinary_tokens(config)
    return torch.randint(0, most, (rows, tokens), generator=torch.Generator().manual_seed(0))
