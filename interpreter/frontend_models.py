"""What Jupyter frontends ask for, as far as it is read here."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from interpreter.models import Exec, RunCode


class ByFrontend(BaseModel):
    """What only frontends can say of a run. Not a part of the API."""

    options: dict[str, JsonValue] = Field(default_factory=dict)
    """Members of the `execute_request` beside the code."""
    cell: dict[str, JsonValue] = Field(default_factory=dict)
    """Its metadata: the id of the cell, for one."""
    client: str = ""
    """What the frontend calls itself."""
    header: str = ""
    """Of its request, as it was: answers go under it, those of a later service too."""
    stop_on_error: bool = False

    @property
    def silent(self) -> bool:
        """Not for the history."""
        return self.options.get("silent") is True


class FrontendRun(ByFrontend, RunCode):
    """A run of code."""


class FrontendExec(ByFrontend, Exec):
    """A command."""


class CellContent(BaseModel):
    """Content of an `execute_request`."""

    model_config = ConfigDict(extra="ignore")

    code: str
    silent: bool = False
    store_history: bool = True
    user_expressions: dict[str, JsonValue] = Field(default_factory=dict)
    allow_stdin: bool = False
    stop_on_error: bool = True

    def options(self) -> dict[str, Any]:
        return {
            "silent": self.silent,
            "store_history": self.store_history and not self.silent,
            "user_expressions": self.user_expressions,
            "allow_stdin": self.allow_stdin,
        }
