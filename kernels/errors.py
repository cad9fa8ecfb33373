"""The base of every error Cellshell raises, and the errors of kernels.

`interpreter/errors.py` completes the tree and draws it.
"""

from __future__ import annotations

from typing import Any


class CellshellError(Exception):
    """Base of all errors. `code` is stable and machine readable, `status` is its HTTP status.

    `message` says what was expected, what came and what to do. Keyword arguments become
    members of the problem document (and of `details`).
    """

    code = "internal_error"
    status = 500

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.details = details


class LanguageUnknown(CellshellError):
    """No kernelspec of that language is known."""

    code, status = "language_unknown", 400


class LanguageUnavailable(CellshellError):
    """The language is known, but its kernel is not installed or does not start here."""

    code, status = "language_unavailable", 400


class KernelFailed(CellshellError):
    """A kernel did not come up, or ended while it started."""

    code, status = "not_ready", 503
