"""Folding: move factors per channel from one tensor into the next without changing the model's function.

In every smoothing group (`submission.model.families`) the source's output channels are divided by s and the targets'
input columns multiplied by s. What is packed comes back in float32 and is rounded by its codec alone. What is kept
stays in the checkpoint's dtype, and there division rounds; so that the product is exact, s is *effective*: the factor
that was really divided out, w / round(w / s) of a norm's weight w. `effective_scales` finds it where scales are chosen;
dividing by it gives the rounded weight again. A norm's bias has no such freedom and is off by its dtype's rounding.

A weight may be a target in its columns and a source in its rows (up_proj). The two hardly disturb each other: codes,
scales and zero-points are found along rows, so a row times a number that is not far from 1
(`quantize.calibration.scale_search` keeps within 16) has the same codes, and the next weight's columns undo the number.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from submission.errors import UserError
from submission.model.families import family_of, tensors
from submission.model.families.smoothing import SmoothingGroup
from submission.model.safetensors_header import header_bytes, lay_out, read_header
from submission.store.digests import write_bytes

SCALES = "scales.safetensors"
"""Group name -> float32 [channels], every group of the family: ones where nothing moves."""

AGAIN = "calibrate again, from the checkpoint that is to be packed"


class Folding:
    """The factors of all smoothing groups of one model, applied to one tensor at a time."""

    def __init__(
        self, scales: Mapping[str, torch.Tensor], config: dict[str, Any], packed: Collection[str], where: str = SCALES
    ) -> None:
        """scales: group name -> effective scales, float32 [channels]; packed: names of the weights with a codec.

        Raises UserError, beginning with `where`, for groups that are missing or unknown and for scales of another
        length or dtype, or that are not positive and finite.
        """
        groups = family_of(config).smoothing_groups(config)
        _check(scales, groups, config, where)
        self._packed = frozenset(packed)
        self._rows = {name: scales[group.name] for group in groups for name in group.sources}
        self._columns = {name: scales[group.name] for group in groups for name in group.targets}

    @classmethod
    def read(cls, folder: Path, config: dict[str, Any], packed: Collection[str]) -> Folding:
        """Return the folding with the scales that a calibration wrote into this folder; UserError as above."""
        path = folder / SCALES
        read_header(path)  # raises an error for a damaged file
        return cls(load_file(path), config, packed, str(path))

    def fold(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """Return a tensor of the checkpoint, by its hub name, as the folded model has it.

        One that is packed comes back in float32, one that is kept in its own dtype, one of no group as it is.
        Raises UserError where the dtype of a kept tensor cannot hold the result.
        """
        rows, columns = self._rows.get(name), self._columns.get(name)
        if rows is None and columns is None:
            return tensor
        folded = tensor.float()
        if columns is not None:
            folded = folded * columns.to(tensor.device)
        if rows is not None:
            folded = divide_channels(folded, rows.to(tensor.device))
        if name in self._packed:
            return folded
        kept = folded.to(tensor.dtype)
        if not torch.isfinite(kept).all():
            raise UserError(name, f"its scales take it out of the range of {tensor.dtype}", AGAIN)
        return kept


def divide_channels(source: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """Return a source, [channels] or [channels, columns], with each of its channels divided by its scale."""
    return source / scales.view(-1, *[1] * (source.dim() - 1))


def effective_scales(scales: torch.Tensor, sources: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return the scales, float32 [channels], that division in the sources' own dtype really takes out.

    sources: a group's sources as the checkpoint has them, the weight of a norm [channels] or of a linear [channels,
    columns] first. Channels in which a source would leave its dtype's range, or a norm's weight would vanish, keep 1.
    """
    lost = torch.zeros_like(scales, dtype=torch.bool)
    for source in sources:
        divided = divide_channels(source.float(), scales).to(source.dtype)
        lost |= ~torch.isfinite(divided).view(len(scales), -1).all(dim=1)
    weight = sources[0]
    if weight.dim() > 1:
        return scales.masked_fill(lost, 1.0)
    rounded = (weight.float() / scales).to(weight.dtype).float()
    lost |= (rounded == 0) & (weight != 0)
    return torch.where(rounded == 0, scales, weight.float() / rounded).masked_fill(lost, 1.0)


def write_scales(folder: Path, scales: Mapping[str, torch.Tensor]) -> None:
    """Write group name -> float32 [channels] as scales.safetensors; the same scales give the same bytes."""
    layout = {name: ("F32", tuple(tensor.shape)) for name, tensor in scales.items()}
    data = [scales[name].contiguous().numpy().tobytes() for name in lay_out(layout)]
    write_bytes(folder / SCALES, header_bytes(layout) + b"".join(data))


def _check(
    scales: Mapping[str, torch.Tensor], groups: Sequence[SmoothingGroup], config: dict[str, Any], where: str
) -> None:
    """Raise UserError for scales that are not those of this model."""
    shapes = {spec.name: spec.shape for spec in tensors(config)}
    known = {group.name: shapes[group.sources[0]][0] for group in groups}
    if missing := sorted(known.keys() - scales.keys()):
        raise UserError(f"{where}: {missing[0]}", f"is missing ({len(missing)} groups in all)", AGAIN)
    if unknown := sorted(scales.keys() - known.keys()):
        raise UserError(f"{where}: {unknown[0]}", f"is no group of this model ({len(unknown)} in all)", AGAIN)
    for name, channels in known.items():
        scale = scales[name]
        if scale.dtype != torch.float32 or scale.shape != (channels,):
            what = f"expected float32 [{channels}], got {str(scale.dtype).removeprefix('torch.')} {list(scale.shape)}"
            raise UserError(f"{where}: {name}", what, AGAIN)
        if not (torch.isfinite(scale) & (scale > 0)).all():
            raise UserError(f"{where}: {name}", "holds a scale that is not positive and finite", AGAIN)
