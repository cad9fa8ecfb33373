"""Whatever a box, a kernel, a shell or a caller says: an answer or a refusal, nothing else."""

from __future__ import annotations

import json
import socket
import subprocess
from contextlib import suppress
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.port_headers import Way, outwards
from api.ranges import wanted_range
from interpreter import bash
from interpreter.allowed_host import AllowedHost
from interpreter.control import Control
from interpreter.declarations import parse, quote
from interpreter.events import pack, unpack
from interpreter.network_policy import ListedNetwork, is_public
from interpreter.recording import CodeRecording
from kernels import messages, report, wire
from kernels.messages import Message

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4)
    ),
    max_leaves=12,
)
NAMES = st.sampled_from(
    [
        *("name", "text", "data", "metadata", "transient", "display_id", "wait", "stdout"),
        *("ename", "evalue", "traceback", "execution_count"),
        *("text/plain", "text/html", "image/png", "application/json"),
    ]
)
CONTENT = st.dictionaries(NAMES | st.text(max_size=8), JSON | NAMES, max_size=6)
TYPES = st.sampled_from(
    [
        *("stream", "display_data", "execute_result", "update_display_data", "clear_output"),
        *("execute_input", "error", "status", "comm_open"),
    ]
)


@given(st.lists(st.tuples(TYPES, CONTENT, CONTENT), max_size=8))
def test_kernel_messages(told: list[tuple[str, dict[str, Any], dict[str, Any]]]) -> None:
    events = []
    recording = CodeRecording(
        lambda name, data, *rest: events.append((name, data)),
        results={"execute_result"},
        max_bytes=1000,
        journal_bytes=5000,
    )
    for kind, content, metadata in told:
        message = Message("iopub", kind, "1", "0", content, metadata, size=100)
        event = messages.event(message)
        if event is not None:
            recording.write(event)
        messages.error(content)
        messages.count(content.get("execution_count"))
    fields = recording.fields()
    json.dumps(fields, default=str)
    assert all(isinstance(output, dict) for output in fields["outputs"])


@given(JSON | st.dictionaries(st.just(report.KEY), st.text() | JSON.map(json.dumps)))
def test_reports_of_kernels(told: Any) -> None:
    found = report.parse(told) if isinstance(told, dict) else None
    if found is not None:
        assert all(isinstance(value, str) for value in found.set.values())
        assert found.exit is None or 0 <= found.exit <= 256


@given(JSON)
def test_the_wire(value: Any) -> None:
    assert json.dumps(wire.unpack(wire.pack(value))) is not None


@given(st.binary(max_size=400))
def test_what_is_no_wire(data: bytes) -> None:
    with suppress(ValueError):
        wire.unpack(data)


@given(st.binary(max_size=600))
def test_reports_of_shells(text: bytes) -> None:
    bash.read_report(text)
    bash.is_last(text)
    parse(text)


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
        min_size=1,
        max_size=8,
    )
)
def test_values_survive_bash_in_both_directions(values: list[str]) -> None:
    script = "".join(f"export V{i}={quote(value)}\n" for i, value in enumerate(values))
    said = subprocess.run(
        ["bash", "--norc"],
        input=f"{script}export -p".encode("utf-8", "surrogateescape"),
        stdout=subprocess.PIPE,
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
        check=True,
    ).stdout
    found = parse(said)
    assert [found[f"V{i}"] for i in range(len(values))] == values


@given(st.integers(0, 2**40), st.text(max_size=10), JSON)
def test_records(number: int, name: str, data: Any) -> None:
    entry = unpack(pack("event", number, name, data))
    assert (entry.number, entry.name) == (number, name)


@given(st.text(max_size=80) | st.from_regex(r"[\w.*:\[\]-]{1,40}", fullmatch=True))
def test_entries_of_network_lists(text: str) -> None:
    try:
        entry = AllowedHost.parse(text)
    except ValueError:
        return
    assert AllowedHost.parse(str(entry)) == entry
    policy = ListedNetwork([text])
    if not entry.below:
        assert policy.decide(entry.host, entry.ports[0]).allowed
    assert not policy.decide(f"not-{entry.host}.elsewhere", entry.ports[0]).allowed


@given(st.ip_addresses().map(str) | st.text(max_size=45))
def test_addresses(text: str) -> None:
    is_public(text)


@given(st.text(max_size=60), st.integers(0, 10**6))
def test_ranges(text: str, size: int) -> None:
    from interpreter.errors import RangeNotSatisfiable

    with suppress(RangeNotSatisfiable):
        found = wanted_range({"range": text}, '"tag"', size)
        assert found is None or 0 <= found[0] < found[1] <= size


@given(st.lists(st.tuples(st.binary(max_size=20), st.binary(max_size=40)), max_size=6))
def test_headers_of_servers(headers: list[tuple[bytes, bytes]]) -> None:
    told = outwards([(k.lower(), v) for k, v in headers], Way("/p", 80, "/"), opaque=False)
    names = [name for name, _ in told]
    assert not {b"set-cookie", b"clear-site-data", b"service-worker-allowed"} & set(names)
    assert (b"content-security-policy", b"sandbox allow-scripts allow-forms") in told


async def test_control_messages() -> None:
    """Init is ours, but what reaches its socket may not be: the connection ends, at worst."""
    lines = st.binary(min_size=1, max_size=200) | JSON.map(lambda value: json.dumps(value).encode())
    keyed = st.fixed_dictionaries(
        {}, optional={"id": JSON, "result": JSON, "errno": JSON, "exit": JSON, "code": JSON}
    ).map(lambda value: json.dumps(value).encode())
    drawn: list[bytes] = []

    @given(lines | keyed)
    def draw(data: bytes) -> None:
        drawn.append(data)

    draw()
    for data in drawn:
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        near.setblocking(False)
        control = Control(near, on_exit=lambda pid, code: None, on_close=lambda: None)
        with far:
            far.send(data)
            control._readable()
        control.close()
