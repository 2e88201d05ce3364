"""What in a JSON file of a model makes loading it fetch, or run, something from outside the bundle."""

from __future__ import annotations

import re
from typing import Any

from submission.text.characters import shown

# Keys by which loading fetches or runs something from outside the folder.
REFERENCES = frozenset({
    "_name_or_path", "name_or_path", "base_model_name_or_path", "pretrained_model_name_or_path", "auto_map",
    "custom_pipelines", "custom_generate", "trust_remote_code", "repo_id", "adapter_path", "peft_config",
})  # fmt: skip
ADDRESS = re.compile(r"\s*(?:https?|ftp|file|hf|s3|gs|git|ssh|data)://", re.IGNORECASE)
# What a template has no use for: Python's own attributes, reached by name or by filter, and other files.
REACHING = re.compile(r"__\w+__|\|\s*attr\b|\{%[-+]?\s*(?:import|include|extends|from)\b")


def references(value: Any) -> list[str]:
    """Return what anywhere in a JSON value refers to something outside, sorted; without recursion."""
    found, waiting = set(), [("", value)]
    while waiting:
        name, item = waiting.pop()
        if isinstance(item, dict):
            found |= {f"{key} points outside the bundle" for key in REFERENCES & item.keys() if item[key]}
            waiting.extend(item.items())
        elif isinstance(item, list):
            waiting.extend((name, inner) for inner in item)
        elif isinstance(item, str) and ADDRESS.match(item):
            found.add(f"{shown(name)} is an address, {shown(item)}")
    return sorted(found)


def reaching(template: str) -> str:
    """Return what in a chat template reaches beyond the text that it is to make; "" where nothing does."""
    match = REACHING.search(template)
    return match[0] if match else ""
