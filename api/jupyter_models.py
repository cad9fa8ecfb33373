"""What Jupyter's REST API calls kernels, sessions and kernelspecs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from interpreter.frontends import IN
from interpreter.known import SHELL, Known
from kernels.specs import KernelLanguage

MOST_PLACES = 50
"""Sandboxes that are offered as places for a new kernel."""


def kernel_model(known: Known) -> dict[str, Any]:
    return {
        "id": known.id,
        "name": known.kernelspec,
        "last_activity": timestamp(known.last_activity),
        "execution_state": known.state,
        "connections": known.connections,
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
    """Those of the languages and of bash, in each sandbox that is there, and what runs."""
    usable = [language for language in languages if language.available]
    seats = list(known)
    offered = [(each.kernel, each.display_name, each.name) for each in usable]
    offered = [*(each for each in offered if each[0] != SHELL), (SHELL, "Bash", SHELL)]
    specs = [_spec(*each) for each in offered]
    python = usable[0]
    for place in list(dict.fromkeys(seat.sandbox.id for seat in seats))[:MOST_PLACES]:
        for kernel, title, language in (offered[0], offered[-1]):
            specs.append(
                _spec(f"{kernel}{IN}{place}", f"{title}, new session in {place}", language)
            )
    running = (seat for seat in seats if seat.state != "dead")
    specs += [_spec(each.running_name, f"Attach: {each.title}", each.language) for each in running]
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
