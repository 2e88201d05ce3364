"""A check, its findings, and a list of findings as text or JSON."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

from submission.store.digests import canonical_json

if TYPE_CHECKING:
    from submission.bundle.untrusted.bundle_view import BundleView

# Of one check: a manifest of two megabytes could cause 40,000 of one kind.
MOST_FINDINGS = 100

Severity = Literal["error", "warning"]
# Path relative to the bundle ("" is the bundle itself), and what is wrong there.
Fault = tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong with a bundle."""

    code: str
    severity: Severity
    path: str
    """Relative to the bundle, "/" between the parts, unprintable characters escaped."""
    what: str
    fix: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """A code, a severity, and the function that yields the faults.

    The docstring of the function is the fix that the user reads.
    """

    code: str
    severity: Severity
    subject: str
    """What is found; a row in the table of checks."""
    find: Callable[[BundleView], Iterable[Fault]]

    @property
    def fix(self) -> str:
        return " ".join((inspect.getdoc(self.find) or "").split())

    def findings(self, view: BundleView) -> Iterator[Finding]:
        """Yield a finding for every fault in a bundle: at most MOST_FINDINGS, then how many more there are."""
        return self.to_findings(self.find(view))

    def to_findings(self, faults: Iterable[Fault]) -> Iterator[Finding]:
        """Yield a finding of this check for each fault, as `findings` does."""
        more = 0
        for count, (path, what) in enumerate(faults):
            if count < MOST_FINDINGS:
                yield self._finding(path, what)
            else:
                more += 1
        if more:
            yield self._finding("", f"{more:,} more findings of this check are not shown")

    def _finding(self, path: str, what: str) -> Finding:
        return Finding(code=self.code, severity=self.severity, path=path, what=what, fix=self.fix)


def sorted_findings(findings: Iterable[Finding]) -> list[Finding]:
    """Return findings in the order in which they are shown: errors first, then by code, path and text."""
    return sorted(findings, key=lambda f: (f.severity, f.code, f.path, f.what))


def exit_status(findings: Iterable[Finding]) -> int:
    """Return 0 for a bundle without errors (warnings are allowed), otherwise 1."""
    return int(any(f.severity == "error" for f in findings))


def findings_json(findings: Iterable[Finding] | Mapping[str, Iterable[Finding]]) -> str:
    """Return findings as a JSON list of objects; those of several bundles as an object, bundle -> list, in which ""
    stands for all of them together.
    """
    if isinstance(findings, Mapping):
        return canonical_json({name: [asdict(f) for f in some] for name, some in findings.items()})
    return canonical_json([asdict(f) for f in findings])


def findings_text(findings: list[Finding]) -> str:
    """Return findings as text: what is wrong, a line each, and every fix once."""
    lines = [f"{f.severity:<7} {f.code:<7} {f.path or '.'}: {f.what}" for f in findings]
    fixes = {f.code: f.fix for f in findings}
    if fixes:
        lines += ["", "How to fix it:", *(f"  {code:<7} {fix}" for code, fix in sorted(fixes.items())), ""]
    return "\n".join([*lines, verdict(findings), ""])


def verdict(findings: Iterable[Finding]) -> str:
    """Return one line: how many errors and warnings there are."""
    severities = [f.severity for f in findings]
    errors, warnings = severities.count("error"), severities.count("warning")
    counts = ", ".join(
        f"{n} {word}{'s' if n > 1 else ''}" for n, word in ((errors, "error"), (warnings, "warning")) if n
    )
    return f"verify: {counts}" if counts else "verify: no findings"
