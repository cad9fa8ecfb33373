"""Cellshell: persistent shells and Jupyter kernels that share one environment.

from interpreter import AsyncClient, Client
"""

from __future__ import annotations

from interpreter.client import AsyncClient
from interpreter.client_context import AsyncContext
from interpreter.client_process import AsyncProcess
from interpreter.client_session import AsyncSandbox, AsyncSession
from interpreter.errors import CellshellError
from interpreter.events import Event
from interpreter.models import CodeResult, ExecResult
from interpreter.sync import Client, Context, Process, Sandbox, Session

__all__ = [
    "AsyncClient",
    "AsyncContext",
    "AsyncProcess",
    "AsyncSandbox",
    "AsyncSession",
    "CellshellError",
    "Client",
    "CodeResult",
    "Context",
    "Event",
    "ExecResult",
    "Process",
    "Sandbox",
    "Session",
]
