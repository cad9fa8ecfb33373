"""A session beside a model of it: whatever door a change comes through, all the others see it."""

from __future__ import annotations

import json
import os
import posixpath
import secrets
import shlex
from ast import literal_eval
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from live_service import serve

from interpreter import Client
from interpreter.errors import CellshellError

pytestmark = [pytest.mark.box, pytest.mark.timeout(600)]
KNOWN = ["A", "B_2", "LONG_NAME", "_x"]
NAMES = st.sampled_from(KNOWN)
VALUES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)
DIRECTORIES = st.sampled_from(["/workspace", "/tmp", "/workspace/a b", "/workspace/é'\"$x"])
FILES = st.sampled_from(["one", "two words", "-dash", "quote'\"", "ü\n"])
DATA = st.binary(max_size=200)


class Machine(RuleBasedStateMachine):
    client: Client

    @initialize()
    def begin(self) -> None:
        self.sandbox = self.client.get_sandbox("model")
        self.session = self.sandbox.create_session(f"s-{secrets.token_hex(4)}")
        self.env: dict[str, str] = {}
        self.cwd = "/workspace"
        self.files: dict[str, bytes] = {}

    @rule(name=NAMES, value=VALUES)
    def export_in_the_shell(self, name: str, value: str) -> None:
        assert self.session.exec(f"export {name}={shlex.quote(value)}").exit_code == 0
        self.env[name] = value

    @rule(name=NAMES)
    def unset_in_the_shell(self, name: str) -> None:
        self.session.exec(f"unset {name}")
        self.env.pop(name, None)

    @rule(name=NAMES, value=VALUES)
    def set_in_python(self, name: str, value: str) -> None:
        code = f"import os; os.environ[{name!r}] = {value!r}"
        assert self.session.run_code(code).status == "ok"
        self.env[name] = value

    @rule(name=NAMES)
    def delete_in_python(self, name: str) -> None:
        self.session.run_code(f"import os; os.environ.pop({name!r}, None)")
        self.env.pop(name, None)

    @rule(changes=st.dictionaries(NAMES, st.none() | VALUES, max_size=3))
    def set_by_call(self, changes: dict[str, str | None]) -> None:
        self.session.set_env_vars(changes)
        for name, value in changes.items():
            if value is None:
                self.env.pop(name, None)
            else:
                self.env[name] = value

    @rule(name=NAMES, value=VALUES)
    def for_one_call(self, name: str, value: str) -> None:
        result = self.session.exec(f'printf %s "${name}"', env={name: value})
        assert result.stdout == value

    @rule(path=DIRECTORIES)
    def cd_in_the_shell(self, path: str) -> None:
        quoted = shlex.quote(path)
        assert self.session.exec(f"mkdir -p {quoted} && cd {quoted}").exit_code == 0
        self.cwd = path

    @rule(path=DIRECTORIES)
    def chdir_in_python(self, path: str) -> None:
        code = f"import os; os.makedirs({path!r}, exist_ok=True); os.chdir({path!r})"
        assert self.session.run_code(code).status == "ok"
        self.cwd = path

    @rule(name=FILES, data=DATA)
    def write(self, name: str, data: bytes) -> None:
        self.session.write_file(name, data)
        self.files[posixpath.join(self.cwd, name)] = data

    @rule(name=FILES, data=DATA)
    def write_in_python(self, name: str, data: bytes) -> None:
        self.session.run_code(f"open({name!r}, 'wb').write({data!r})")
        self.files[posixpath.join(self.cwd, name)] = data

    @rule(name=FILES)
    def remove(self, name: str) -> None:
        path = posixpath.join(self.cwd, name)
        known = self.files.pop(path, None) is not None
        try:
            self.session.delete_file(path)
        except CellshellError as error:
            assert error.code == "file_not_found" and not known
        else:
            assert known

    @rule()
    def restart_python(self) -> None:
        self.session.run_code("import os; os._exit(0)")

    @rule()
    def leave_the_shell(self) -> None:
        assert self.session.exec("exit 3").shell_exited

    @rule()
    def pause(self) -> None:
        self.sandbox.pause()

    @invariant()
    def all_doors_agree(self) -> None:
        if not hasattr(self, "session"):
            return
        told = self.session.get_environment()
        assert told.cwd == self.cwd
        assert {name: value for name, value in told.env.items() if name in KNOWN} == self.env
        names = " ".join(KNOWN)
        shell = self.session.exec(
            f'pwd; for n in {names}; do [ -v "$n" ] && printf "%s=%s\\0" "$n" "${{!n}}"; done'
        )
        pwd, _, rest = shell.stdout.partition("\n")
        assert pwd == self.cwd
        assert dict(pair.split("=", 1) for pair in rest.split("\0")[:-1]) == self.env
        code = (
            "import os, json\n"
            f"known = {{n: os.environ[n] for n in {KNOWN!r} if n in os.environ}}\n"
            "json.dumps([os.getcwd(), known])"
        )
        text = self.session.run_code(code).text
        assert text is not None
        assert json.loads(literal_eval(text)) == [self.cwd, self.env]
        for path, data in self.files.items():
            assert self.session.read_file(path) == data

    def teardown(self) -> None:
        if hasattr(self, "session"):
            for path in self.files:
                self.session.delete_file(path)
            self.session.delete()


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with serve(tmp_path_factory.mktemp("model")) as url, Client(url) as client:
        yield client


def check(client: Client, examples: int, steps: int) -> None:
    machine = type("WithClient", (Machine,), {"client": client})
    machine.TestCase.settings = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    machine.TestCase().runTest()


def test_a_session_and_its_model(client: Client) -> None:
    check(client, examples=5, steps=12)


@pytest.mark.stress
def test_a_session_and_its_model_for_long(client: Client) -> None:
    check(client, examples=int(os.environ.get("CELLSHELL_EXAMPLES", "200")), steps=40)
