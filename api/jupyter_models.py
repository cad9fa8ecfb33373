"""What Jupyter's REST API calls kernels, sessions and kernelspecs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from interpreter.frontends import IN, Known
from kernels.specs import KernelLanguage

MOST_PLACES = 50
"""Sandboxes that are offered as places for a new kernel."""
STATES = {"starting": "starting", "idle": "idle", "busy": "busy", "dead": "dead"}


def kernel_model(known: Known) -> dict[str, Any]:
    info = known.context.info()
    return {
        "id": known.id,
        "name": known.context.language.kernel,
        "last_activity": timestamp(info.last_activity),
        "execution_state": STATES[info.state],
        "connections": len(known.context.attachments),
    }


def session_model(known: Known, given: Mapping[str, Any]) -> dict[str, Any]:
    """`given` is what a frontend called it: its path, name and type."""
    name = given.get("name") or known.name.rpartition("/")[2]
    path = given.get("path") or known.name
    return {
        "id": known.id,
        "path": path,
        "name": name,
        "type": given.get("type") or "notebook",
        "kernel": kernel_model(known),
        "notebook": {"path": path, "name": name},
    }


def kernelspecs(languages: Iterable[KernelLanguage], known: Iterable[Known]) -> dict[str, Any]:
    """Those of the languages, in each sandbox that is there, and each context that runs."""
    usable = [language for language in languages if language.available]
    seats = list(known)
    specs = [_spec(each.kernel, each.display_name, each.name) for each in usable]
    python = usable[0]
    for place in list(dict.fromkeys(seat.sandbox.id for seat in seats))[:MOST_PLACES]:
        title = f"{python.display_name}, new session in {place}"
        specs.append(_spec(f"{python.kernel}{IN}{place}", title, python.name))
    for seat in seats:
        if seat.context.info().state != "dead":
            title = f"Attach: {seat.name}"
            specs.append(_spec(seat.running_name, title, seat.context.language.name))
    return {"default": python.kernel, "kernelspecs": {spec["name"]: spec for spec in specs}}


def timestamp(text: str) -> str:
    """With microseconds and Z, which Jupyter Server insists on."""
    return datetime.fromisoformat(text).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _spec(name: str, title: str, language: str) -> dict[str, Any]:
    spec = {
        "argv": [],
        "env": {},
        "display_name": title,
        "language": language,
        "interrupt_mode": "message",
        "metadata": {},
    }
    return {"name": name, "spec": spec, "resources": {}}
