"""A data folder of the real campaign in which every part is there, in its published layout, and nothing of any use."""

from __future__ import annotations

from pathlib import Path

from submission.model.families import read_config, tensors
from submission.model.safetensors_header import header_bytes, tensor_bytes
from submission.store.input_files import OR
from submission.system.campaign import read_campaign
from submission.system.data_folder import SHIPPED, required_parts
from submission.system.recipe.recipe_files import read_recipe


def write_published_data(data: Path, recipe: str = "primary") -> None:
    """Make the data folder of a recipe on the campaign iwslt26, with a tiny base model."""
    for part in required_parts(read_campaign("iwslt26"), read_recipe(recipe, "iwslt26")):
        for pattern in (*part.holds, *([f"{part.audio.split(OR)[0]}/x.mp3"] if part.audio else [])):
            path = data / part.part / pattern.split(OR)[0].replace("*", "x")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x")
    config = (SHIPPED["base"] / "config.json").read_bytes()
    layout = {t.name: ("BF16", t.shape) for t in tensors(read_config(SHIPPED["base"]))}
    model = data / "models" / "Qwen2-Audio-7B"
    (model / "config.json").write_bytes(config)
    with (model / "model.safetensors").open("wb") as file:
        header = header_bytes(layout)
        file.write(header)
        file.truncate(len(header) + sum(tensor_bytes(*part) for part in layout.values()))
