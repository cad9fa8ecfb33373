"""Files, as the session sees them."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import parse_qsl

from fastapi import Body, Depends, Query
from starlette.requests import Request
from starlette.responses import Response

from api.addresses import SESSION, TheSession, TheSettings
from api.answers import answer, no_content
from api.callers import unless_gone
from api.content import PASSIVE, content, disposition
from api.documentation import binary, errors, events
from api.downloads import Download
from api.followers import opened
from api.routes import noun
from api.streams import EventStream
from interpreter.errors import (
    DirectoryNotEmpty,
    DiskFull,
    FileExists,
    FileNotFound,
    IsADirectory,
    NotADirectory,
    NotAFile,
    NotReady,
    PermissionDenied,
    RangeNotSatisfiable,
    SandboxNotFound,
    SessionNotFound,
    UnsafeArchive,
)
from interpreter.fields import Mode, Path
from interpreter.models import FileInfo, MakeDirectory, Transfer

router = noun("files", SESSION + "/files")
MISSING = (SandboxNotFound, SessionNotFound)
READING = (*MISSING, FileNotFound, NotADirectory, PermissionDenied, NotReady)
WRITING = (*READING, IsADirectory, NotAFile, DiskFull)
WHERE = "Absolute, or relative to the session's working directory; `~` is the home."


async def exact_path(
    request: Request, path: Annotated[Path, Query(description=WHERE, examples=["data/a.csv"])]
) -> str:
    """The path with the bytes it was sent with: a name need not be UTF-8."""
    return _exact(request, path)


def _exact(request: Request, path: str) -> str:
    if "\ufffd" not in path:
        return path
    query: str = request.scope["query_string"].decode("latin-1")
    fields = dict(parse_qsl(query, keep_blank_values=True, errors="surrogateescape"))
    return fields.get("path", path)


ThePath = Annotated[str, Depends(exact_path)]
Recursive = Annotated[bool, Query(description="With everything below it.")]


@router.get(
    "/content",
    response_class=Response,
    responses={
        200: binary("The file's bytes; the type is guessed by its name.", "*/*"),
        206: binary("The part of the file that was asked for.", "*/*"),
        304: {"description": "The caller has this version."},
        **errors(*READING, IsADirectory, NotAFile, RangeNotSatisfiable),
    },
    summary="Read a file",
)
async def read_file(request: Request, session: TheSession, path: ThePath) -> Response:
    """Raw bytes. `Range`, `If-Range`, `If-None-Match` and HEAD work as in any web server."""
    return content(request, await session.files.read(path))


@router.put(
    "/content",
    response_model=FileInfo,
    responses=errors(*WRITING),
    openapi_extra={"requestBody": binary("The bytes of the file, of any size.")},
    summary="Write a file",
)
async def write_file(
    request: Request,
    session: TheSession,
    path: ThePath,
    mode: Annotated[
        Mode | None, Query(description="Octal; an existing file keeps its own.", examples=["0755"])
    ] = None,
    append: Annotated[bool, Query(description="Add to the end instead; not atomic.")] = False,
) -> Response:
    """The raw body is the content. Parents are created; nobody ever sees half of it."""
    return answer(await session.files.write(path, request.stream(), mode=mode, append=append))


@router.get(
    "",
    response_model=list[FileInfo],
    responses=errors(*READING),
    summary="List a directory",
)
async def list_files(
    request: Request,
    session: TheSession,
    path: Annotated[Path | None, Query(description=f"{WHERE} By default that directory.")] = None,
    recursive: Recursive = False,
    hidden: Annotated[bool, Query(description="With names that start with a dot.")] = False,
) -> Response:
    """Its entries, without hidden ones and what is in them."""
    where = None if path is None else _exact(request, path)
    listing = session.files.list(where, recursive, hidden)
    return answer(await unless_gone(request.receive, listing))


@router.delete(
    "",
    status_code=204,
    responses=errors(*READING, DirectoryNotEmpty, NotAFile),
    summary="Delete a file or directory",
)
async def delete_file(session: TheSession, path: ThePath, recursive: Recursive = False) -> Response:
    """A directory that is not empty is deleted only with `recursive`."""
    await session.files.delete(path, recursive)
    return no_content()


@router.get(
    "/info",
    response_model=FileInfo,
    responses=errors(*READING),
    summary="Get facts about a file",
)
async def get_file_info(session: TheSession, path: ThePath) -> Response:
    """Of the path itself: a symbolic link is not followed."""
    return answer(await session.files.info(path))


@router.post(
    "/mkdir",
    response_model=FileInfo,
    responses=errors(*READING, FileExists, DiskFull),
    summary="Make a directory",
)
async def make_directory(
    session: TheSession,
    body: Annotated[
        MakeDirectory, Body(openapi_examples={"nested": {"value": {"path": "data/raw"}}})
    ],
) -> Response:
    """With its parents, unless `recursive` is false."""
    return answer(await session.files.mkdir(body.path, body.recursive))


@router.post(
    "/move",
    response_model=FileInfo,
    responses=errors(*WRITING, FileExists),
    summary="Move or rename",
)
async def move_file(
    session: TheSession,
    body: Annotated[
        Transfer,
        Body(openapi_examples={"rename": {"value": {"source": "a.txt", "destination": "b.txt"}}}),
    ],
) -> Response:
    """What is at the destination is replaced only with `overwrite`."""
    files = session.files
    return answer(await files.move(body.source, body.destination, body.overwrite))


@router.post(
    "/copy",
    response_model=FileInfo,
    responses=errors(*WRITING, FileExists),
    summary="Copy",
)
async def copy_file(
    request: Request,
    session: TheSession,
    body: Annotated[
        Transfer,
        Body(openapi_examples={"tree": {"value": {"source": "src", "destination": "backup"}}}),
    ],
) -> Response:
    """A file, or a directory with everything below it. A caller that goes away ends it."""
    copying = session.files.copy(body.source, body.destination, body.overwrite)
    return answer(await unless_gone(request.receive, copying))


@router.get(
    "/watch",
    status_code=200,
    response_class=EventStream,
    responses={
        200: events("`started`, then `created`, `modified`, `deleted` and `moved`; no end."),
        **errors(*READING),
    },
    summary="Watch a path",
)
async def watch_files(
    session: TheSession, settings: TheSettings, path: ThePath, recursive: Recursive = False
) -> Response:
    """Tells what changes there until the caller goes away. Paths in events are absolute."""
    watched = await opened(session.files.watch(path, recursive))
    return EventStream(watched, heartbeat=settings.heartbeat, may_end=True)


@router.get(
    "/archive",
    response_class=Response,
    responses={200: binary("A tar archive.", "application/x-tar"), **errors(*READING)},
    summary="Download a directory",
)
async def download_archive(request: Request, session: TheSession, path: ThePath) -> Response:
    """As a tar stream."""
    name = path.rstrip("/").rpartition("/")[2].strip(".~") or "archive"
    headers = {**PASSIVE, "Content-Disposition": disposition(f"{name}.tar")}
    chunks = await opened(session.files.archive(path))
    return Download(chunks, headers, "application/x-tar")


@router.put(
    "/archive",
    response_model=FileInfo,
    responses=errors(*WRITING, UnsafeArchive),
    openapi_extra={"requestBody": binary("A tar archive of any size.", "application/x-tar")},
    summary="Extract an archive",
)
async def upload_archive(request: Request, session: TheSession, path: ThePath) -> Response:
    """Into a directory. One unsafe member refuses the whole archive."""
    return answer(await session.files.extract(path, request.stream()))
