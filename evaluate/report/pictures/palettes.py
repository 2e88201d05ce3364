"""Light and dark palettes of pictures and pages; both have the same names."""

from __future__ import annotations

Palette = dict[str, str]
"""Name of a colour -> its value."""

LIGHT: Palette = {
    "ink": "#1f2328",
    "muted": "#5b6470",
    "grid": "#e4e7eb",
    "paper": "#ffffff",
    "limit": "#b42318",
    # Distinguishable without colour vision (Okabe and Ito 2008).
    "blue": "#0072b2",
    "orange": "#d55e00",
    "green": "#009e73",
    "purple": "#cc79a7",
    "yellow": "#e69f00",
    "sky": "#56b4e9",
    "grey": "#8c959f",
}
DARK: Palette = {
    "ink": "#e6edf3",
    "muted": "#9aa5b1",
    "grid": "#30363d",
    "paper": "#0d1117",
    "limit": "#ff8379",
    "blue": "#4ba3e3",
    "orange": "#f28c3b",
    "green": "#2fc093",
    "purple": "#e39cc4",
    "yellow": "#f0b83f",
    "sky": "#8accf5",
    "grey": "#7d8590",
}
