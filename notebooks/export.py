"""Notebooks in other forms, by nbconvert and jupytext."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from nbformat import NotebookNode

from interpreter.errors import InvalidRequest, NotReady
from notebooks.documents import parse

MISSING = "this form needs nbconvert and jupytext: pip install 'cellshell[notebooks]'"
Files = dict[str, bytes]
"""By name: the document first, then what belongs to it."""


def export(notebook: Mapping[str, Any], suffix: str, stem: str, *, trusted: bool = False) -> Files:
    """A notebook as `.ipynb`, `.py` (percent format), `.md` or `.html`, under the name `stem`.

    HTML that code has put out is sanitised, unless it is `trusted`. Raises InvalidRequest, and
    NotReady where a library is not installed.
    """
    check(suffix)
    try:
        return FORMS[suffix](parse(notebook), stem, trusted)
    except ImportError as error:
        raise NotReady(f"{MISSING} ({error.name} is not there)") from None


def check(suffix: str) -> None:
    """Raises InvalidRequest."""
    if suffix not in FORMS:
        raise InvalidRequest(f"expected one of {', '.join(FORMS)}, got {suffix or 'no suffix'!r}")


def _ipynb(notebook: NotebookNode, stem: str, trusted: bool) -> Files:
    import nbformat

    text = nbformat.writes(notebook)  # type: ignore[no-untyped-call]
    return {f"{stem}.ipynb": f"{text}\n".encode()}


def _script(notebook: NotebookNode, stem: str, trusted: bool) -> Files:
    import jupytext

    # Magics are commented out, so that the file is a script of its language.
    return {f"{stem}.py": jupytext.writes(notebook, fmt="py:percent").encode()}


def _markdown(notebook: NotebookNode, stem: str, trusted: bool) -> Files:
    from nbconvert import MarkdownExporter

    folder = f"{stem}_files"
    exporter = MarkdownExporter()  # type: ignore[no-untyped-call]
    resources = {"unique_key": stem, "output_files_dir": folder}
    text, made = exporter.from_notebook_node(notebook, resources=resources)
    return {f"{stem}.md": text.encode(), **made["outputs"]}


def _html(notebook: NotebookNode, stem: str, trusted: bool) -> Files:
    from nbconvert import HTMLExporter

    exporter = HTMLExporter(sanitize_html=not trusted, embed_images=True)  # type: ignore[no-untyped-call]
    text, _ = exporter.from_notebook_node(notebook, resources={"metadata": {"name": stem}})
    return {f"{stem}.html": text.encode()}


FORMS: dict[str, Callable[[NotebookNode, str, bool], Files]] = {
    ".ipynb": _ipynb,
    ".py": _script,
    ".md": _markdown,
    ".html": _html,
}
