"""Add to the documentation site the pages that lie at the repository's root, and one reference page per package.

Run by mkdocs (`nox -s docs`); writes into the site only, never into the repository.
"""

from __future__ import annotations

import re
from pathlib import Path

import mkdocs_gen_files

ROOT = Path(__file__).parents[1]
ROOT_PAGES = {"README.md": "index.md", "SUBMISSION.md": "SUBMISSION.md", "CONTRIBUTING.md": "CONTRIBUTING.md"}
ROOT_PAGES |= {"CHANGELOG.md": "CHANGELOG.md"}
"""File at the root -> page of the site."""

PACKAGES = ("submission", "train", "quantize", "segment", "evaluate")
LINK = re.compile(r"\]\(([^)#:\s]+)(#[^)\s]*)?\)")
IMAGE = re.compile(r'(src|srcset)="docs/')


def site_link(target: str) -> str | None:
    """Return where a link from a page at the root leads on the site; None for a file that is not part of it."""
    if target in ROOT_PAGES:
        return ROOT_PAGES[target]
    path = ROOT / target
    if target.startswith("docs/") and path.is_file():
        return target.removeprefix("docs/")
    if path.exists():
        return None
    raise FileNotFoundError(f"{target}: no such file in the repository; correct the link")


def with_site_links(text: str) -> str:
    """Return a page of the root with its links leading to pages of the site; links to other files become plain text."""

    def replaced(match: re.Match[str]) -> str:
        target = site_link(match[1])
        return f"]({target}{match[2] or ''})" if target else "]"

    return IMAGE.sub(r'\1="', LINK.sub(replaced, text))


def modules(package: str) -> list[str]:
    """Return the dotted names of a package's modules, `__main__` left out, in the order of their paths."""
    files = sorted((ROOT / package).rglob("*.py"))
    names = (path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".") for path in files)
    return [name.removesuffix(".__init__") for name in names if not name.endswith("__main__")]


for source, page in ROOT_PAGES.items():
    with mkdocs_gen_files.open(page, "w") as file:
        file.write(with_site_links((ROOT / source).read_text(encoding="utf-8")))
    mkdocs_gen_files.set_edit_path(page, f"../{source}")

for package in PACKAGES:
    with mkdocs_gen_files.open(f"reference/{package}.md", "w") as file:
        file.write(f"# {package}\n\n" + "".join(f"::: {name}\n\n" for name in modules(package)))
