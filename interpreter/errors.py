"""Every error Cellshell raises, with its stable `code` and HTTP status.

    CellshellError
    |-- BadRequest (400)        state forbids what was asked
    |   |-- InvalidCwd  LanguageUnknown  LanguageUnavailable  LanguageAndContext
    |   |-- NotADirectory  IsADirectory  NotAFile  UnsafeArchive
    |   |-- InvalidGitUrl  GitFailed  LimitUnsupported  NetworkUnsupported
    |-- InvalidRequest (422)    what the schema alone can refuse
    |-- Unauthorized (401)
    |-- Forbidden (403)         HostRefused  OriginRefused  PermissionDenied
    |-- NotFound (404)          SandboxNotFound  SessionNotFound  ContextNotFound
    |                           ProcessNotFound  ExecutionNotFound  FileNotFound
    |                           KernelNotFound
    |-- MethodNotAllowed (405)
    |-- WaitTimeout (408)
    |-- Conflict (409)          SandboxExists  SessionExists  ContextExists  ProcessExists
    |                           FileExists  DirectoryNotEmpty  ProcessExited  StdinClosed
    |                           ExecutionOver  ExecutionMismatch  ExecutionForgotten
    |                           SessionDeleted  ContextDeleted  SandboxDeleted
    |-- TooLarge (413)  RangeNotSatisfiable (416)  HeadersTooLarge (431)
    |-- QueueFull (429)
    |-- PortUnreachable (502)  PortSilent (504)
    `-- Unavailable (503)       NotReady  AtCapacity  DiskFull  KernelFailed  BoxEnded
                                ServiceStopping  ServiceUnreachable

The client raises the same classes, chosen by `code` from `BY_CODE`.
"""

from __future__ import annotations

from collections.abc import Iterator

from kernels.errors import CellshellError as CellshellError
from kernels.errors import KernelFailed as KernelFailed
from kernels.errors import LanguageUnavailable as LanguageUnavailable
from kernels.errors import LanguageUnknown as LanguageUnknown


class BadRequest(CellshellError):
    code, status = "bad_request", 400


class InvalidCwd(BadRequest):
    code = "invalid_cwd"


class LanguageAndContext(BadRequest):
    code = "language_and_context"


class NotADirectory(BadRequest):
    code = "not_a_directory"


class IsADirectory(BadRequest):
    code = "is_a_directory"


class NotAFile(BadRequest):
    code = "not_a_file"


class UnsafeArchive(BadRequest):
    code = "unsafe_archive"


class InvalidGitUrl(BadRequest):
    code = "invalid_git_url"


class GitFailed(BadRequest):
    code = "git_failed"


class LimitUnsupported(BadRequest):
    code = "limit_unsupported"


class NetworkUnsupported(BadRequest):
    code = "network_unsupported"


class InvalidRequest(CellshellError):
    code, status = "invalid_request", 422


class Unauthorized(CellshellError):
    code, status = "unauthorized", 401


class Forbidden(CellshellError):
    code, status = "forbidden", 403


class HostRefused(Forbidden):
    code = "host_refused"


class OriginRefused(Forbidden):
    code = "origin_refused"


class PermissionDenied(Forbidden):
    """A file operation that the sandbox's user may not do."""

    code = "permission_denied"


class NotFound(CellshellError):
    code, status = "not_found", 404


class SandboxNotFound(NotFound):
    code = "sandbox_not_found"


class SessionNotFound(NotFound):
    code = "session_not_found"


class ContextNotFound(NotFound):
    code = "context_not_found"


class KernelNotFound(NotFound):
    code = "kernel_not_found"


class ProcessNotFound(NotFound):
    code = "process_not_found"


class ExecutionNotFound(NotFound):
    code = "execution_not_found"


class FileNotFound(NotFound):
    code = "file_not_found"


class MethodNotAllowed(CellshellError):
    code, status = "method_not_allowed", 405


class WaitTimeout(CellshellError):
    code, status = "wait_timeout", 408


class Conflict(CellshellError):
    code, status = "conflict", 409


class SandboxExists(Conflict):
    code = "sandbox_exists"


class SessionExists(Conflict):
    code = "session_exists"


class ContextExists(Conflict):
    code = "context_exists"


class ProcessExists(Conflict):
    code = "process_exists"


class FileExists(Conflict):
    code = "file_exists"


class DirectoryNotEmpty(Conflict):
    code = "directory_not_empty"


class ProcessExited(Conflict):
    """What was waited for cannot come any more, or the process takes no signal or input."""

    code = "process_exited"


class StdinClosed(Conflict):
    code = "stdin_closed"


class ExecutionOver(Conflict):
    code = "execution_over"


class ExecutionMismatch(Conflict):
    """The id names an execution of another request."""

    code = "execution_mismatch"


class ExecutionForgotten(Conflict):
    """The id was used, and its records are gone."""

    code = "execution_forgotten"


class SessionDeleted(Conflict):
    code = "session_deleted"


class ContextDeleted(Conflict):
    code = "context_deleted"


class SandboxDeleted(Conflict):
    code = "sandbox_deleted"


class TooLarge(CellshellError):
    code, status = "too_large", 413


class RangeNotSatisfiable(CellshellError):
    code, status = "range_not_satisfiable", 416


class HeadersTooLarge(CellshellError):
    code, status = "headers_too_large", 431


class QueueFull(CellshellError):
    code, status = "queue_full", 429


class PortUnreachable(CellshellError):
    code, status = "port_unreachable", 502


class PortSilent(CellshellError):
    code, status = "port_silent", 504


class Unavailable(CellshellError):
    """Not now: the answer carries `Retry-After`."""

    code, status = "unavailable", 503


class NotReady(Unavailable):
    code = "not_ready"


class BoxEnded(NotReady, ConnectionResetError):
    """For what was asked of a box that is no more."""

    def __init__(self) -> None:
        super().__init__("the sandbox's box has ended: the next call starts a fresh one")


class ServiceStopping(NotReady):
    """For who asks a service that ends for more."""

    def __init__(self) -> None:
        super().__init__("the service is stopping, what runs goes on: call again when it is back")


class AtCapacity(Unavailable):
    code = "at_capacity"


class DiskFull(Unavailable):
    code = "disk_full"


class ServiceUnreachable(Unavailable):
    """Raised by the client alone: the service does not answer, or went away while it did."""

    code = "service_unreachable"


def _tree(root: type[CellshellError]) -> Iterator[type[CellshellError]]:
    for child in root.__subclasses__():
        yield child
        yield from _tree(child)


BY_CODE: dict[str, type[CellshellError]] = {error.code: error for error in _tree(CellshellError)}
BY_CODE[NotReady.code] = NotReady

__all__ = sorted(
    [error.__name__ for error in BY_CODE.values()]
    + ["BY_CODE", "CellshellError", "KernelFailed", "LanguageUnavailable", "LanguageUnknown"]
)
