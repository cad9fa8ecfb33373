"""What goes over the wire: requests, results and descriptions, shared by service and client.

Times are seconds (float), sizes bytes (int), timestamps RFC 3339 in UTC.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictBool, StringConstraints

from interpreter.fields import (
    DEFAULT_OUTPUT_BYTES,
    Id,
    Network,
    OutputLimit,
    Path,
    Text,
    Timeout,
    VariableChanges,
    Variables,
    clean_text,
)
from interpreter.limit_models import LimitMechanisms
from interpreter.limit_models import Limits as Limits
from interpreter.rendering import code_bundle, exec_bundle
from interpreter.walls import Tier


class Model(BaseModel):
    """Base of all: unknown fields are refused, field docs become the OpenAPI document."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class Reply(BaseModel):
    """Base of what the service answers: a client ignores fields newer than itself."""

    model_config = ConfigDict(extra="ignore", use_attribute_docstrings=True)


# Sandboxes and sessions


class CreateSandbox(Model):
    id: Id | None = None
    env: Variables = {}
    limits: Limits = Limits()
    network: Network = "none"
    idle_timeout: Timeout | None = None
    on_idle: Literal["pause", "destroy"] | None = None
    labels: dict[Text, Text] = {}


class Isolation(Reply):
    tier: Tier
    reason: str
    """Why this tier: what the probe saw, and what would make it stronger."""
    connects: bool = True
    """Whether code in a sandbox can connect to its own servers, and where `network` allows it."""
    limits: LimitMechanisms = LimitMechanisms()


class SandboxInfo(Reply):
    id: str
    status: Literal["running", "paused", "failed"]
    created_at: str
    last_activity: str
    env: dict[str, str]
    limits: Limits
    network: Network
    idle_timeout: float | None = None
    on_idle: Literal["pause", "destroy"] | None = None
    isolation: Isolation
    workspace: str
    """Where the code sees its files: `/workspace`, or a path of the host that boxes share."""
    sessions: list[str]
    labels: dict[str, str]


class SandboxEnv(Reply):
    env: dict[str, str]


class CreateSession(Model):
    id: Id | None = None
    env: Variables = {}
    cwd: Path = "/workspace"


class ContextInfo(Reply):
    id: str
    session: str
    language: str
    kernel: str
    """Name of the kernelspec."""
    state: Literal["starting", "idle", "busy", "dead"]
    shares_environment: bool
    execution_count: int
    created_at: str
    last_activity: str


class SessionInfo(Reply):
    id: str
    sandbox: str
    cwd: str
    created_at: str
    last_activity: str
    contexts: list[ContextInfo]


class EnvironmentInfo(Reply):
    cwd: str
    env: dict[str, str]
    """All exported variables."""
    version: int


# Running


class Exec(Model):
    command: Text
    """Run by the session's bash, exactly as it is."""
    cwd: Path | None = None
    env: VariableChanges | None = None
    stdin: Text | None = None
    timeout: Timeout | None = None
    encoding: Literal["utf-8", "base64"] = "utf-8"
    max_output_bytes: OutputLimit = DEFAULT_OUTPUT_BYTES
    keep_output: StrictBool = False
    id: Id | None = None


class RunCode(Model):
    code: Text
    language: Annotated[str, StringConstraints(min_length=1, max_length=64)] | None = None
    context: Id | None = None
    cwd: Path | None = None
    env: VariableChanges | None = None
    timeout: Timeout | None = None
    max_output_bytes: OutputLimit = DEFAULT_OUTPUT_BYTES
    keep_output: StrictBool = False
    id: Id | None = None


class Notice(Reply):
    code: str
    message: str


class EnvironmentChanges(Reply):
    cwd: str | None = None
    set: list[str] = []
    unset: list[str] = []


class Omitted(Reply):
    stdout: int = 0
    stderr: int = 0


class ExecResult(Reply):
    """How one command ended, and what it wrote."""

    id: str
    command: str
    exit_code: int | None
    stdout: str = ""
    stderr: str = ""
    duration: float
    timed_out: bool = False
    cancelled: bool = False
    truncated: bool = False
    omitted: Omitted | None = None
    output_path: str | None = None
    shell_exited: bool = False
    cwd: str
    environment_changes: EnvironmentChanges = EnvironmentChanges()
    notices: list[Notice] = []
    state: Literal["queued", "running", "done"] | None = None
    _repr_mimebundle_ = exec_bundle

    @property
    def success(self) -> bool:
        return self.exit_code == 0


class ErrorInfo(Reply):
    ename: str
    evalue: str
    traceback: list[str]


class ExitInfo(Reply):
    code: int | None
    signal: str | None
    reason: Literal["exit", "signal", "memory"]


class CodeResult(Reply):
    """How one run of code ended, and its outputs as a notebook would hold them."""

    id: str
    context: str
    language: str
    status: Literal["ok", "error", "timeout", "interrupted", "died"]
    execution_count: int | None
    outputs: list[dict[str, Any]] = []
    """nbformat v4 outputs, in order; display updates applied, cleared outputs gone."""
    text: str | None = None
    stdout: str = ""
    stderr: str = ""
    error: ErrorInfo | None = None
    exit: ExitInfo | None = None
    duration: float
    truncated: bool = False
    omitted: Omitted | None = None
    output_path: str | None = None
    cwd: str
    environment_changes: EnvironmentChanges = EnvironmentChanges()
    notices: list[Notice] = []
    state: Literal["queued", "running", "done"] | None = None
    _repr_mimebundle_ = code_bundle

    @property
    def success(self) -> bool:
        return self.status == "ok"


class Detached(Reply):
    id: str
    state: Literal["queued", "running", "done"]


# Contexts


class CreateContext(Model):
    id: Id | None = None
    language: Annotated[str, StringConstraints(min_length=1, max_length=64)] = "python"
    cwd: Path | None = None
    env: VariableChanges | None = None


class Language(Reply):
    language: str
    aliases: list[str]
    kernel: str
    available: bool
    reason: str | None = None


class CodeAt(Model):
    code: Text
    cursor_pos: Annotated[int, Field(ge=0, strict=True)]


class Variable(Reply):
    name: str
    type: str
    shape: list[int] | None = None
    size_bytes: int | None = None
    preview: str


# Processes


class StartProcess(Model):
    command: Text
    id: Id | None = None
    cwd: Path | None = None
    env: VariableChanges | None = None
    keep_alive: bool = False


class ProcessInfo(Reply):
    id: str
    pid: int
    command: str
    status: Literal["running", "exited", "killed"]
    exit_code: int | None
    signal: str | None
    cwd: str
    session: str
    started_at: str
    ended_at: str | None
    keep_alive: bool = False
    reason: str | None = None
    """The limit that ended it, with its figures; null: none is known to have."""


class Signal(Model):
    signal: Annotated[str, StringConstraints(pattern=r"^SIG[A-Z0-9]{2,10}$")]


class Stdin(Model):
    data: Annotated[str, AfterValidator(clean_text)] | None = None
    close: StrictBool = False


class WaitFor(Model):
    for_: Literal["exit", "log", "port"] = Field(alias="for")
    pattern: Text | None = None
    regex: StrictBool = False
    port: Annotated[int, Field(ge=1, le=65535, strict=True)] | None = None
    path: Text | None = None
    status: Annotated[int, Field(ge=100, le=599, strict=True)] | None = None
    timeout: Timeout = 60.0


class WaitResult(Reply):
    process: ProcessInfo
    line: str | None = None
    match: list[str | None] | None = None


class Logs(Reply):
    stdout: str = ""
    stderr: str = ""


class Killed(Reply):
    killed: int


# Files


class FileInfo(Reply):
    name: str
    path: str
    type: Literal["file", "directory", "symlink", "other"]
    size: int
    mode: str
    modified_at: str
    target: str | None = None


class MakeDirectory(Model):
    path: Path
    recursive: StrictBool = True


class Transfer(Model):
    source: Path
    destination: Path
    overwrite: StrictBool = False


class GitCheckout(Model):
    url: Annotated[
        str, StringConstraints(min_length=1, max_length=4096), AfterValidator(clean_text)
    ]
    branch: Annotated[str, StringConstraints(min_length=1, max_length=255)] | None = None
    directory: Path | None = None
    depth: Annotated[int, Field(ge=1, strict=True)] | None = None
    timeout: Timeout | None = None


class Checkout(Reply):
    directory: str
    branch: str | None
    commit: str


class Port(Reply):
    """A TCP port that something in the sandbox listens on."""

    port: int
    address: str
    """The address it is bound to; `0.0.0.0` and `::` stand for all."""
    pid: int | None = None
    """Who listens, as the sandbox sees it; null: not known."""
    url: str = ""
    """Path by which a browser reaches it, or the whole address with `ports_domain`: a key to it."""


class Health(Reply):
    ok: bool
    status: str
    version: str
    isolation: Isolation
    fork_server: Literal["ready", "starting", "failed", "off"]
    """Whether Python kernels are forked from a process that has imported what they need."""


class Problem(Reply):
    """RFC 9457 problem document; `code` is stable."""

    model_config = ConfigDict(extra="allow")

    type: str = "about:blank"
    title: str
    status: int
    code: str
    detail: str
