"""The colours of pictures and page: each with a name, so that a page can give it another value in the dark."""

from __future__ import annotations

LIGHT = {
    "ink": "#1f2328",
    "muted": "#5b6470",
    "grid": "#e4e7eb",
    "paper": "#ffffff",
    "limit": "#b42318",
    # Told apart without colour vision too (Okabe and Ito 2008).
    "blue": "#0072b2",
    "orange": "#d55e00",
    "green": "#009e73",
    "purple": "#cc79a7",
    "yellow": "#e69f00",
    "sky": "#56b4e9",
    "grey": "#8c959f",
}
DARK = {
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
