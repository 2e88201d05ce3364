"""Prove the matrix kernels of this machine's device: products with random codes against those of decoded weights."""

from __future__ import annotations

from typing import Any


def kernel_proofs(device: str | None = None) -> dict[str, Any]:
    """Return which kernels pass their proof; device: `cuda` or `cpu`, None for a GPU where there is one."""
    import torch

    from submission.runtime.products.byte_tiles import tiles_pass_proof
    from submission.runtime.products.int8_kernels import passes_proof
    from submission.runtime.products.kernels import KERNELS, proved_layout

    name = device or ("cuda" if torch.cuda.is_available() else "cpu")
    place = torch.device(name)
    proved = {f"4-bit codes, {kernel.name}": proved_layout(kernel, place) is not None for kernel in KERNELS[place.type]}
    if place.type == "cpu":  # entropy-coded weights are multiplied by plain products elsewhere
        proved["8-bit codes, dot products of bfloat16 pairs"] = tiles_pass_proof()
        proved["8-bit codes, torch's for processors"] = passes_proof(place)
    return {"device": torch.cuda.get_device_name() if place.type == "cuda" else name, "proved": proved}


def proofs_text(figures: dict[str, Any]) -> str:
    """Return the figures as text."""
    lines = [
        f"{kernel}: {'proved' if right else 'NOT proved, not used'}" for kernel, right in figures["proved"].items()
    ]
    return "\n".join([figures["device"], *lines])
