"""Limits of a sandbox over the wire: what is wanted, what enforces it, what is used."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from interpreter.fields import Number

LEAST_MEMORY = 32 << 20
LEAST_DISK = 8 << 20
MOST_BYTES = 1 << 50
MOST_PIDS = 4_194_304
"""The kernel's own PID_MAX_LIMIT."""

REQUEST = ConfigDict(extra="forbid", use_attribute_docstrings=True)
REPLY = ConfigDict(extra="ignore", use_attribute_docstrings=True)
Cgroup = Literal["cgroup2", "cgroup1"]


class Limits(BaseModel):
    model_config = REQUEST

    memory_bytes: int | None = Field(default=None, ge=LEAST_MEMORY, le=MOST_BYTES, strict=True)
    cpus: Number | None = Field(default=None, ge=0.01, le=1024)
    pids: int | None = Field(default=None, ge=1, le=MOST_PIDS, strict=True)
    disk_bytes: int | None = Field(default=None, ge=LEAST_DISK, le=MOST_BYTES, strict=True)


class LimitMechanisms(BaseModel):
    """What enforces each limit here; null: nothing does, and who asks for it is refused."""

    model_config = REPLY

    memory: Cgroup | None = None
    cpus: Cgroup | None = None
    pids: Cgroup | Literal["rlimit"] | None = None
    disk: Literal["image"] | None = None
    """`image`: the sandbox's files are on a file system of their own."""
    open_files: Literal["rlimit"] | None = None
    pause: Cgroup | Literal["signals"] = "signals"
    """What stops everything in a sandbox while it is paused."""


class Usage(BaseModel):
    """What a sandbox uses now; null: it cannot be known here."""

    model_config = REPLY

    memory_bytes: int | None
    """Memory of its processes, `/tmp` and `/dev/shm`; cached files that can be dropped left out."""
    memory_peak_bytes: int | None
    """The most there ever was, cached files included."""
    memory_limit_bytes: int | None
    cpu_seconds: float | None
    """Processor time since its box was started."""
    pids: int | None
    """Processes and threads, without the two that hold the box up."""
    pids_limit: int | None
    disk_bytes: int | None
    disk_limit_bytes: int | None
    disk_measured: Literal["image", "walk"] | None
    """`image`: told by its file system; `walk`: the files were added up."""
    open_files: int | None
