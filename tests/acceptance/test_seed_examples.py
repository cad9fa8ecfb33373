"""What the first description of the service shows it for."""

from __future__ import annotations

import asyncio

import httpx

from tests.acceptance.conftest import Run

NEW_REPOSITORY = (
    "git init -q /workspace/origin; cd /workspace/origin; git config user.email a@b.example; "
    "git config user.name a; printf 'print(\"installed\")\\n' > install.py; git add .; "
    "git commit -qm first; cd /workspace"
)


async def test_two_sessions_build_side_by_side(
    http: httpx.AsyncClient, sandbox: str, exec: Run
) -> None:
    for name in ("production", "test"):
        body = {"id": name, "cwd": f"/workspace/{name}", "env": {"NODE_ENV": name}}
        assert (await http.post(f"{sandbox}/sessions", json=body)).status_code == 201
    build = "echo built $NODE_ENV in $PWD > out; cat out"
    results = await asyncio.gather(
        *(exec(build, at=f"{sandbox}/sessions/{name}") for name in ("production", "test"))
    )
    assert [result["stdout"] for result in results] == [
        "built production in /workspace/production\n",
        "built test in /workspace/test\n",
    ]


async def test_clone_enter_install(
    http: httpx.AsyncClient, session: str, exec: Run, code: Run
) -> None:
    assert (await exec(NEW_REPOSITORY))["exit_code"] == 0
    body = {"url": "/workspace/origin", "directory": "clone", "depth": 1}
    checkout = (await http.post(f"{session}/git/checkout", json=body)).json()
    assert checkout["directory"] == "/workspace/clone"
    assert (await exec("cd clone"))["environment_changes"]["cwd"] == "/workspace/clone"
    assert (await exec("python install.py"))["stdout"] == "installed\n"
    assert (await code("open('install.py').read()"))["text"].startswith("'print")
    await exec("cd /workspace")


async def test_environment_then_script(
    http: httpx.AsyncClient, session: str, exec: Run, code: Run
) -> None:
    await http.patch(f"{session}/env", json={"API_KEY": 'it\'s "secret"\n', "GONE": None})
    script = b'import os; print(repr(os.environ["API_KEY"]))'
    await http.put(f"{session}/files/content?path=script.py", content=script)
    expected = repr('it\'s "secret"\n') + "\n"
    assert (await exec("python script.py"))["stdout"] == expected
    assert (await code("%run script.py"))["stdout"] == expected


async def test_temporary_sandbox_is_cleaned_up(http: httpx.AsyncClient, fresh: str) -> None:
    session = f"{fresh}/sessions/default"
    result = await http.post(f"{session}/code", json={"code": "sum(range(10))"})
    assert result.json()["text"] == "45"
    assert (await http.delete(fresh)).status_code == 204
    assert (await http.post(f"{session}/exec", json={"command": "true"})).status_code == 404
