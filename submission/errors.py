"""The one error that a user's mistake raises."""

from __future__ import annotations

from submission.text.characters import printable_lines


class UserError(Exception):
    """A mistake that the user can fix: where it is, what is wrong (expected and got), how to fix it."""

    def __init__(self, where: str, what: str, fix: str) -> None:
        super().__init__(where, what, fix)
        self.where = where
        self.what = what
        self.fix = fix

    def __str__(self) -> str:
        return printable_lines(f"{self.where}: {self.what}; {self.fix}")  # names in it may be untrusted


class UnavailableError(UserError):
    """A recipe needs what its campaign does not have and another may: a role of another family, a size limit."""
