"""Files of moments: one for each input that weights share, one for the rows of each weight.

Error feedback reads a second moment H as its Cholesky factor alone, so that is what a calibration stores: half the
bytes, since it is triangular, and at 11008 channels a read of a fraction of a second in place of 13 s of arithmetic for
each stage and weight that reads it. Moments that are themselves of interest are stored as they are. All are written
aside and renamed, so a file that is there is whole.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from quantize.solvers.feedback import InputFactor


def input_path(folder: Path, key: str) -> Path:
    """Return the file of an input: of its second moment or of that one's factor; `positions` int64 beside."""
    return folder / f"input.{key}.safetensors"


def output_path(folder: Path, name: str) -> Path:
    """Return the file of an importance: `importance` float32 [rows], `targets` int64."""
    return folder / f"output.{name}.safetensors"


def write_second_moment(folder: Path, key: str, moment: torch.Tensor, positions: int) -> None:
    """Write the second moment of an input, [columns, columns]; positions: the number that it is the mean over."""
    _check_finite(moment, key)
    write_tensors(input_path(folder, key), {"second_moment": moment.float(), "positions": torch.tensor(positions)})


def read_second_moment(folder: Path, key: str) -> torch.Tensor:
    """Return the second moment of an input, float32 [columns, columns]."""
    return read_tensors(input_path(folder, key), "second_moment")[0]


def write_factor(folder: Path, key: str, factor: InputFactor, positions: int) -> None:
    """Write the factor of an input's second moment: the triangle of its rows one after the other, float32.

    Of a factor without feedback the triangle is empty.
    """
    _check_finite(factor.diagonal, key)
    lower = torch.empty(0) if factor.feedback is None else _packed(factor.feedback)
    parts = {"diagonal": factor.diagonal, "feedback": lower, "positions": torch.tensor(positions)}
    write_tensors(input_path(folder, key), parts)


def read_factor(folder: Path, key: str) -> InputFactor:
    """Return the factor of an input's second moment."""
    diagonal, lower = read_tensors(input_path(folder, key), "diagonal", "feedback")
    return InputFactor(diagonal=diagonal, feedback=_unpacked(lower, len(diagonal)) if len(lower) else None)


def read_diagonal(folder: Path, key: str) -> torch.Tensor:
    """Return the diagonal of the factor of an input's second moment, float64 [columns]."""
    return read_tensors(input_path(folder, key), "diagonal")[0]


def write_importance(folder: Path, name: str, importance: torch.Tensor, targets: int) -> None:
    """Write the importance of a weight's rows; targets: the number of target tokens that it was measured on."""
    _check_finite(importance, name)
    write_tensors(output_path(folder, name), {"importance": importance.float(), "targets": torch.tensor(targets)})


def read_importance(folder: Path, name: str) -> torch.Tensor:
    """Return the importance of a weight's rows, float32 [rows], as calibration writes it: shrunk, and not floored."""
    return read_tensors(output_path(folder, name), "importance")[0]


def write_tensors(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Write tensors to a safetensors file, aside first."""
    aside = path.with_name(path.name + ".part")
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, aside)
    aside.replace(path)


def read_tensors(path: Path, *names: str) -> list[torch.Tensor]:
    """Return tensors of a safetensors file by their names."""
    with safe_open(path, "pt") as file:
        return [file.get_tensor(name) for name in names]


def _packed(lower: torch.Tensor) -> torch.Tensor:
    """Return the lower triangle of a matrix [n, n], row by row, [n (n + 1) / 2]."""
    size = len(lower)
    packed = torch.empty(size * (size + 1) // 2, dtype=lower.dtype)
    for row in range(size):
        start = row * (row + 1) // 2
        packed[start : start + row + 1] = lower[row, : row + 1]
    return packed


def _unpacked(packed: torch.Tensor, size: int) -> torch.Tensor:
    """Return the matrix [n, n] of a lower triangle, zero above it."""
    if len(packed) != size * (size + 1) // 2:
        raise ValueError(f"a factor of {size} columns has {len(packed)} numbers: calibrate again")
    lower = torch.zeros((size, size), dtype=packed.dtype)
    for row in range(size):
        start = row * (row + 1) // 2
        lower[row, : row + 1] = packed[start : start + row + 1]
    return lower


def _check_finite(values: torch.Tensor, where: str) -> None:
    if not torch.isfinite(values).all():
        raise ValueError(f"{where}: a moment is not finite; the model is damaged: train it again")
