"""Notebooks as they come in: of any version, whole or not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import nbformat
from nbformat import NotebookNode, reader
from nbformat.reader import NotJSONError
from nbformat.validator import ValidationError, normalize

from interpreter.errors import InvalidRequest
from interpreter.events import dumps

MOST_BYTES = 64 * 1024 * 1024
"""Of a notebook that is run: as large as one that was written may become."""


def parse(document: Mapping[str, Any]) -> NotebookNode:
    """One of version 4.5, with an id for each cell. Raises InvalidRequest."""
    return parse_text(dumps(document))


def parse_text(text: bytes) -> NotebookNode:
    """The same of a file."""
    try:
        return _parse(text.decode("utf-8-sig"))
    except (ValidationError, NotJSONError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"expected a notebook: {str(error).splitlines()[0]:.300}") from None
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        # What a document that is none can do to nbformat has no error of its own.
        raise InvalidRequest(f"expected a notebook that can be read: {error!r:.200}") from None


def _parse(text: str) -> NotebookNode:
    found: NotebookNode = reader.reads(text)  # type: ignore[no-untyped-call]
    if found.get("nbformat") == 4:
        found = normalize(found)[1]
    # Before it is converted: nbformat would write to the log what is wrong with it, and go on.
    nbformat.validate(found)
    found = nbformat.convert(found, 4)  # type: ignore[no-untyped-call]
    if found.nbformat_minor < 5:
        found = nbformat.v4.upgrade(found)  # type: ignore[no-untyped-call]
    nbformat.validate(found)
    return found
