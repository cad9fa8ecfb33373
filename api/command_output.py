"""What a terminal shows of code's outputs; what it cannot show becomes a file."""

from __future__ import annotations

import base64
import binascii
import json
import os
from pathlib import Path
from typing import Any

from api.command_connection import say, show
from interpreter.rendering import joined, output_text, plain

BINARY = {
    "image/png": ".png",
    "image/jpeg": ".jpg",
    "image/gif": ".gif",
    "image/webp": ".webp",
    "application/pdf": ".pdf",
}
MARKUP = {"image/svg+xml": ".svg"}
LAST_RESORT = {"text/html": ".html", "application/json": ".json"}
"""Saved where there is no text to show instead."""


class OutputPrinter:
    """Prints outputs as they come; `name` begins the names of files in `directory`."""

    def __init__(self, directory: Path, name: str) -> None:
        self._directory = directory
        self._name = name
        self._number = 0

    def output(self, output: dict[str, Any]) -> None:
        match output.get("output_type"):
            case "stream":
                descriptor = 2 if output.get("name") == "stderr" else 1
                show(_encoded(output_text(output)), descriptor)
            case "error":
                text = output_text(output) or f"{output.get('ename')}: {output.get('evalue')}"
                show(_encoded((text if os.isatty(2) else plain(text)).rstrip("\n") + "\n"), 2)
            case _:
                data = output.get("data")
                self.display(data if isinstance(data, dict) else {})

    def display(self, data: dict[str, Any]) -> None:
        files = _files(data)
        text = joined(data.get("text/plain"))
        if text and not files:
            show(_encoded(text.rstrip("\n") + "\n"))
        elif not files:
            files = [(_text(data[kind]), end) for kind, end in LAST_RESORT.items() if kind in data]
        for content, suffix in files:
            self._save(content, suffix)

    def _save(self, content: bytes, suffix: str) -> None:
        """Saves under the first free number: what is there already is never overwritten."""
        while True:
            self._number += 1
            path = self._directory / f"{self._name}-{self._number}{suffix}"
            try:
                file = path.open("xb")
            except FileExistsError:
                continue
            with file:
                file.write(content)
            say(f"saved {path}")
            return


def _files(data: dict[str, Any]) -> list[tuple[bytes, str]]:
    """The best picture of a display, with its suffix, if there is one."""
    for kind, suffix in BINARY.items():
        try:
            content = base64.b64decode(joined(data.get(kind)))
        except (binascii.Error, ValueError):
            continue
        if content:
            return [(content, suffix)]
    return [(_text(data[kind]), suffix) for kind, suffix in MARKUP.items() if kind in data]


def _text(value: Any) -> bytes:
    text = value if isinstance(value, str | list) else json.dumps(value)
    return _encoded(joined(text))


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "replace")
