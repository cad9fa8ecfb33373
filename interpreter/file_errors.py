"""What stood in the way of a file operation, as an error of ours."""

from __future__ import annotations

import errno
import os
import re

from interpreter.errors import (
    AtCapacity,
    BadRequest,
    CellshellError,
    DirectoryNotEmpty,
    DiskFull,
    FileExists,
    FileNotFound,
    InvalidRequest,
    IsADirectory,
    NotADirectory,
    NotAFile,
    NotReady,
    PermissionDenied,
    TooLarge,
    UnsafeArchive,
)

LONE_SURROGATE = re.compile("[\ud800-\udfff]+")
MAX_SHOWN = 500

MEANINGS: dict[int, tuple[type[CellshellError], str]] = {
    errno.ENOENT: (FileNotFound, "{path} does not exist: list its directory to see what does"),
    errno.ELOOP: (FileNotFound, "{path} leads through too many symbolic links, or in a circle"),
    errno.ENOTDIR: (NotADirectory, "{path} is not a directory, or lies in something that is none"),
    errno.EISDIR: (IsADirectory, "{path} is a directory: expected something else there"),
    errno.EACCES: (PermissionDenied, "the sandbox's user may not do this with {path}"),
    errno.EPERM: (PermissionDenied, "the sandbox's user may not do this with {path}"),
    errno.EROFS: (PermissionDenied, "{path} is on a read-only file system"),
    errno.EBUSY: (PermissionDenied, "{path} is a mount point or in use by the system"),
    errno.ETXTBSY: (PermissionDenied, "{path} is a program that is running: end it first"),
    errno.EEXIST: (FileExists, "{path} exists: choose another name, or ask to overwrite"),
    errno.ENOTEMPTY: (DirectoryNotEmpty, "the directory {path} is not empty"),
    errno.ENOSPC: (DiskFull, "no space is left for {path}: delete something first"),
    errno.EDQUOT: (DiskFull, "the sandbox's disk quota leaves no space for {path}"),
    errno.EFBIG: (DiskFull, "{path} would be larger than files may be here"),
    errno.ENXIO: (NotAFile, "{path} is a FIFO, socket or device: expected a regular file"),
    errno.ENODEV: (NotAFile, "{path} is a device or socket: expected a regular file"),
    errno.ENAMETOOLONG: (InvalidRequest, "a name has 255 bytes at most, a path 4095: {path}"),
    errno.EINVAL: (
        InvalidRequest,
        "this cannot be done with {path}, such as moving it into itself",
    ),
    errno.EMFILE: (AtCapacity, "too many files are open in the sandbox: try again"),
    errno.ENFILE: (AtCapacity, "too many files are open: try again"),
    errno.EAGAIN: (AtCapacity, "the sandbox has as many processes as it may: end one"),
    errno.ENOMEM: (AtCapacity, "the sandbox has no memory left for this: end something in it"),
}

SAID: dict[str, type[CellshellError]] = {
    error.code: error
    for error in (AtCapacity, InvalidRequest, NotAFile, PermissionDenied, TooLarge, UnsafeArchive)
}


def refusal(number: int, path: str) -> CellshellError:
    """The error for an errno that an operation on `path` met."""
    shown = show(path)
    if number in MEANINGS:
        error, sentence = MEANINGS[number]
        return error(sentence.format(path=shown), path=shown)
    try:
        reason = os.strerror(number)
    except (ValueError, OverflowError):
        reason = "an unknown error"
    return BadRequest(f"{shown}: {reason}", path=shown)


def os_refusal(error: OSError, path: str) -> CellshellError:
    """The error for what a descriptor or the box itself answered."""
    if isinstance(error, ConnectionError) or error.errno is None:
        return NotReady("the sandbox's box has ended: try again")
    return refusal(error.errno, path)


def said_refusal(code: object, message: object, path: str) -> CellshellError:
    """The error for a refusal that a program in the box put into words."""
    kind = SAID.get(code if isinstance(code, str) else "", BadRequest)
    shown = show(path)
    return kind(f"{shown}: {show(str(message))[:MAX_SHOWN]}", path=shown)


def speaking_of(path: str, error: CellshellError, temporary: str) -> CellshellError:
    """The error in words of the caller's, who knows nothing of a temporary name."""
    if error.details.get("path") != show(temporary):
        return error
    message = error.message.replace(show(temporary), show(path))
    return type(error)(message, **{**error.details, "path": show(path)})


def show(path: str) -> str:
    """A file name as JSON can hold it: bytes that are not UTF-8 become U+FFFD."""
    return LONE_SURROGATE.sub("\ufffd", path)
