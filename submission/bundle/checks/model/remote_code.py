"""Remote code: what in a model's JSON or chat template makes loading fetch or run something outside the bundle."""

from __future__ import annotations

import re
from typing import Any

from submission.text.characters import printable

# Keys by which loading fetches or runs something from outside the folder.
REMOTE_KEYS = frozenset({
    "_name_or_path", "name_or_path", "base_model_name_or_path", "pretrained_model_name_or_path", "auto_map",
    "custom_pipelines", "custom_generate", "trust_remote_code", "repo_id", "adapter_path", "peft_config",
})  # fmt: skip
ADDRESS = re.compile(r"\s*(?:https?|ftp|file|hf|s3|gs|git|ssh|data)://", re.IGNORECASE)
# Not needed by any chat template: Python's internal attributes, by name or by filter, and other files.
UNSAFE_TEMPLATE_CODE = re.compile(r"__\w+__|\|\s*attr\b|\{%[-+]?\s*(?:import|include|extends|from)\b")


def remote_references(value: Any) -> list[str]:
    """Return every reference to something outside the bundle in a JSON value, sorted; without recursion."""
    found, waiting = set(), [("", value)]
    while waiting:
        name, item = waiting.pop()
        if isinstance(item, dict):
            found |= {f"{key} points outside the bundle" for key in REMOTE_KEYS & item.keys() if item[key]}
            waiting.extend(item.items())
        elif isinstance(item, list):
            waiting.extend((name, inner) for inner in item)
        elif isinstance(item, str) and ADDRESS.match(item):
            found.add(f"{printable(name)} is an address, {printable(item)}")
    return sorted(found)


def unsafe_template_code(template: str) -> str:
    """Return the first part of a chat template that accesses code or other files; "" where there is none."""
    match = UNSAFE_TEMPLATE_CODE.search(template)
    return match[0] if match else ""
