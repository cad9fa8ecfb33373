"""The Jupyter door: JupyterLab, VS Code and their like find our contexts as kernels."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import Body
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from api.addresses import TheInterpreter
from api.answers import answer, encode, no_content
from api.jupyter_addresses import TheFrontends, TheKernel
from api.jupyter_models import kernel_model, kernelspecs, session_model, timestamp
from api.routes import noun
from interpreter.errors import InvalidRequest, KernelNotFound
from interpreter.events import now
from interpreter.frontends import Frontends
from interpreter.known import Known

router = noun("jupyter")
router.include_in_schema = False
SERVER = "2.21.0"
"""The version of Jupyter Server whose routes these are."""
Asked = Annotated[dict[str, Any], Body(default_factory=dict)]
Names = dict[str, dict[str, Any]]
"""What frontends call the kernels that they have opened, by the kernel's id."""


@router.get("/api")
async def get_version() -> Response:
    return answer({"version": SERVER})


@router.get("/tree")
async def get_page() -> Response:
    """VS Code looks whether there is one, to know whether it needs a password."""
    return PlainTextResponse("Cellshell speaks Jupyter's REST API here, and has no pages of it.\n")


@router.get("/api/status")
async def get_status(frontends: TheFrontends) -> Response:
    models = [kernel_model(known) for known in frontends.all()]
    return answer(
        {
            "started": timestamp(now()),
            "last_activity": max((m["last_activity"] for m in models), default=timestamp(now())),
            "connections": sum(model["connections"] for model in models),
            "kernels": len(models),
        }
    )


@router.get("/api/me")
async def get_identity() -> Response:
    name = {"username": "cellshell", "name": "Cellshell", "display_name": "Cellshell"}
    return answer({"identity": {**name, "initials": "C"}, "permissions": {}})


@router.get("/api/kernelspecs")
async def list_kernelspecs(interpreter: TheInterpreter, frontends: TheFrontends) -> Response:
    return answer(await _specs(interpreter, frontends))


@router.get("/api/kernelspecs/{name}")
async def get_kernelspec(
    request: Request, interpreter: TheInterpreter, frontends: TheFrontends
) -> Response:
    name = request.path_params["name"]
    specs = (await _specs(interpreter, frontends))["kernelspecs"]
    if name not in specs:
        raise KernelNotFound(f"there is no kernelspec {name!r:.80}")
    return answer(specs[name])


@router.get("/api/kernels")
async def list_kernels(frontends: TheFrontends) -> Response:
    return _list([kernel_model(known) for known in frontends.all()])


@router.post("/api/kernels", status_code=201)
async def start_kernel(frontends: TheFrontends, body: Asked) -> Response:
    known = await frontends.start(_name(body))
    headers = {"Location": f"/api/kernels/{known.id}"}
    return answer(kernel_model(known), 201, headers)


@router.get("/api/kernels/{kernel}")
async def get_kernel(kernel: TheKernel) -> Response:
    return answer(kernel_model(kernel))


@router.delete("/api/kernels/{kernel}", status_code=204)
async def delete_kernel(frontends: TheFrontends, kernel: TheKernel) -> Response:
    """Also sent by a Jupyter Server that ends, for each kernel it has used."""
    await frontends.end(kernel)
    return no_content()


@router.post("/api/kernels/{kernel}/interrupt", status_code=204)
async def interrupt_kernel(kernel: TheKernel) -> Response:
    await kernel.interrupt()
    return no_content()


@router.post("/api/kernels/{kernel}/restart")
async def restart_kernel(kernel: TheKernel) -> Response:
    await kernel.restart()
    return answer(kernel_model(kernel))


@router.get("/api/sessions")
async def list_sessions(request: Request, frontends: TheFrontends) -> Response:
    names = _names(request)
    return _list([session_model(known, names.get(known.id, {})) for known in frontends.all()])


@router.post("/api/sessions", status_code=201)
async def start_session(request: Request, frontends: TheFrontends, body: Asked) -> Response:
    kernel = body.get("kernel")
    if not isinstance(kernel, dict):
        raise InvalidRequest('expected `kernel` with a `name` or an `id`, as {"name": "python3"}')
    id = kernel.get("id")
    known = frontends.find(str(id)) if id else await frontends.start(_name(kernel))
    _names(request)[known.id] = _called(body)
    headers = {"Location": f"/api/sessions/{known.id}"}
    return answer(session_model(known, _names(request)[known.id]), 201, headers)


@router.get("/api/sessions/{kernel}")
async def get_session(request: Request, kernel: TheKernel) -> Response:
    return answer(session_model(kernel, _names(request).get(kernel.id, {})))


@router.patch("/api/sessions/{kernel}")
async def change_session(
    request: Request, frontends: TheFrontends, kernel: TheKernel, body: Asked
) -> Response:
    """Another path or name; or another kernel, which makes it another session."""
    names = _names(request)
    called = {**names.get(kernel.id, {}), **_called(body)}
    wanted = body.get("kernel")
    if (isinstance(wanted, dict) and wanted.get("id", kernel.id) != kernel.id) or (
        isinstance(wanted, dict) and wanted.get("name") and "id" not in wanted
    ):
        kernel = await _exchange(frontends, kernel, wanted)
    names[kernel.id] = called
    return answer(session_model(kernel, called))


@router.delete("/api/sessions/{kernel}", status_code=204)
async def delete_session(request: Request, frontends: TheFrontends, kernel: TheKernel) -> Response:
    _names(request).pop(kernel.id, None)
    await frontends.end(kernel)
    return no_content()


async def _exchange(frontends: Frontends, kernel: Known, wanted: dict[str, Any]) -> Known:
    id = wanted.get("id")
    found = frontends.find(str(id)) if id else await frontends.start(_name(wanted))
    if found.id != kernel.id:
        await frontends.end(kernel)
    return found


async def _specs(interpreter: TheInterpreter, frontends: Frontends) -> dict[str, Any]:
    languages = await asyncio.to_thread(interpreter.languages_here.all)
    return kernelspecs(languages, frontends.all())


def _names(request: Request) -> Names:
    names: Names = request.app.state.jupyter_names
    return names


def _name(asked: dict[str, Any]) -> str:
    name = asked.get("name") or "python3"
    if not isinstance(name, str) or len(name) > 200:
        raise InvalidRequest("expected `name` to be the name of a kernelspec")
    return name


def _called(body: dict[str, Any]) -> dict[str, Any]:
    found = {name: body.get(name) for name in ("path", "name", "type")}
    return {name: value[:1000] for name, value in found.items() if isinstance(value, str) and value}


def _list(models: list[dict[str, Any]]) -> Response:
    return Response(b"[" + b",".join(map(encode, models)) + b"]", media_type="application/json")
