"""`cellshell replay`."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import aclosing
from pathlib import Path
from typing import Annotated, Any

import typer

from api.command_connection import (
    DEFAULT_URL,
    Address,
    Token,
    Url,
    Variables,
    finish,
    say,
    variables,
    visible,
)
from api.command_notebook import follow, progress
from interpreter.client_session import AsyncSandbox
from interpreter.errors import CellshellError, InvalidRequest
from interpreter.notebook_models import NotebookResult
from notebooks.differences import Difference, compare

DIFFERENT = 1

What = Annotated[str, typer.Argument(help="A notebook, or SANDBOX or SANDBOX/SESSION.")]
Given = Annotated[
    list[str] | None,
    typer.Option("--file", metavar="LOCAL:PATH", help="Put there before it begins; repeatable."),
]
Tolerance = Annotated[
    float, typer.Option(help="How far pictures may be apart on average, 1 being black and white.")
]
Keep = Annotated[bool, typer.Option("--keep", help="Leave the sandbox, to look into it.")]


def replay(
    what: What,
    file: Given = None,
    env: Variables = None,
    tolerance: Tolerance = 0.02,
    keep: Keep = False,
    url: Url = DEFAULT_URL,
    token: Token = None,
) -> None:
    """Do again what a session did, in a fresh sandbox, and say where the outputs differ; status 1.

    Ids, addresses in memory, times and names of temporary files may differ.
    """

    async def work() -> int:
        files = [_pair(each) for each in file or ()]
        address = Address(url, token)
        from notebooks.documents import parse_text

        recorded = parse_text(_bytes(what)) if what.endswith(".ipynb") else None
        recorded = recorded or await _of_session(address, what)
        _remark(recorded["cells"], {path for _, path in files})
        async with address.client() as client:
            sandbox = await client.create_sandbox(env=_set(variables(env)))
            try:
                for local, path in files:
                    await sandbox.write_file(path, _bytes(local))
                result = await _again(sandbox, recorded)
            finally:
                if keep:
                    say(f"the sandbox is {sandbox.id}")
                else:
                    await sandbox.destroy()
        again = result.notebook["cells"]
        _leave_out(recorded["cells"], again)
        return _report(compare(recorded["cells"], again, tolerance), result)

    finish(work())


def _bytes(path: str) -> bytes:
    return Path(path).read_bytes()


async def _of_session(address: Address, what: str) -> Any:
    sandbox, _, session = what.partition("/")
    async with address.client() as client:
        found = await client.list_sandboxes()
        if sandbox not in [each.id for each in found]:
            raise InvalidRequest(f"expected a notebook or a sandbox, and {what!r:.80} is none")
        from notebooks.documents import parse

        where = await (await client.get_sandbox(sandbox)).get_session(session or "default")
        return parse(await where.notebook())


async def _again(sandbox: AsyncSandbox, recorded: Any) -> NotebookResult:
    stream = sandbox.run_notebook_stream(recorded, on_error="continue")
    with progress() as bar:
        task = bar.add_task("starting", total=None)
        async with aclosing(stream) as events:
            async for event in events:
                if event.name == "done":
                    return NotebookResult.model_validate(event.data)
                follow(bar, task, event)
    raise CellshellError("expected the event `done` at the end of the run, got none")


def _remark(cells: Iterable[Any], given: set[str]) -> None:
    """What was done besides running something is not in a notebook whole."""
    for number, cell in enumerate(cells, 1):
        about = cell.metadata.get("cellshell", {})
        if given_then := [name for name in ("env", "stdin") if about.get(name)]:
            say(f"cell {number} had {' and '.join(given_then)} of its own, which it has not again")
        for deed in cell.metadata.get("cellshell", {}).get("deeds", ()):
            path = deed.get("path", "")
            if deed["verb"] == "set_env":
                say(f"not done again: {', '.join(deed.get('names', ()))} set; give it with -e")
            elif path not in given:
                say(f"not done again: {deed['verb']} of {path}; give files with --file")


def _leave_out(before: Iterable[Any], after: Iterable[Any]) -> None:
    """Outputs of cells that are not run, such as those tagged `skip-execution`."""
    for old, new in zip(before, after, strict=True):
        if old["cell_type"] == "code" and not new["metadata"].get("cellshell", {}).get("execution"):
            old["outputs"] = []
            old["metadata"].pop("cellshell", None)


def _report(differences: list[Difference], result: NotebookResult) -> int:
    for each in differences:
        first = each.source.removeprefix("%%bash\n").strip().partition("\n")[0]
        print(f"cell {each.cell + 1}, {each.what}: {visible(first)[:70]}")
        for detail in each.detail.splitlines():
            print(f"    {visible(detail)}")
    cells = len({each.cell for each in differences})
    print(f"{result.executed} cells run, {cells} with other outputs than before")
    return DIFFERENT if differences else 0


def _pair(given: str) -> tuple[str, str]:
    local, colon, path = given.rpartition(":")
    if not colon or not local or not path:
        raise InvalidRequest(f"expected LOCAL:PATH, got {given!r:.80}")
    return local, path


def _set(changes: dict[str, str | None] | None) -> dict[str, str]:
    return {name: value for name, value in (changes or {}).items() if value is not None}
