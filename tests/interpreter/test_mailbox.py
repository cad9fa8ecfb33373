"""What waits for a frontend, and what becomes of one that reads slowly."""

from __future__ import annotations

import asyncio
import json

import pytest

from interpreter.mailbox import PATIENCE, Mailbox
from kernels.packets import Packet, made, status

OUTPUT = Packet("iopub", b'{"msg_type": "stream"}', b'{"msg_id": "cell"}', content=b"x" * 1000)


def texts(packets: list[Packet]) -> list[str]:
    return [json.loads(packet.content).get("text", "") for packet in packets]


async def test_everything_in_its_order() -> None:
    mailbox = Mailbox()
    wanted = [made("iopub", "stream", {"text": str(number)}) for number in range(5)]
    for packet in wanted:
        mailbox.put(packet, needed=False)
    assert await mailbox.take() == wanted


async def test_it_waits_for_something() -> None:
    mailbox = Mailbox()
    taking = asyncio.create_task(mailbox.take())
    await asyncio.sleep(0)
    mailbox.put(OUTPUT, needed=False)
    assert await asyncio.wait_for(taking, 5) == [OUTPUT]
    taking = asyncio.create_task(mailbox.take())
    await asyncio.sleep(0)
    assert not taking.done()
    mailbox.close("over")
    assert await asyncio.wait_for(taking, 5) == []


async def test_what_finds_no_room_is_told_in_its_place() -> None:
    mailbox = Mailbox(most_bytes=5000)
    for _ in range(100):
        mailbox.put(OUTPUT, needed=False)
    end = status("idle", OUTPUT.parent)
    mailbox.put(end, needed=True)
    *outputs, missed, last = await mailbox.take()
    assert last == end
    assert missed.parent == OUTPUT.parent
    count = 100 - len(outputs)
    assert texts([missed])[0].startswith(f"[{count} outputs left out")
    assert json.loads(missed.header)["msg_type"] == "stream"
    mailbox.put(OUTPUT, needed=False)
    assert await mailbox.take() == [OUTPUT]


async def test_each_request_is_told_of_its_own() -> None:
    mailbox = Mailbox(most_packets=1)
    parents = [b'{"msg_id": "a"}', b'{"msg_id": "b"}']
    for parent in [parents[0], *parents, *parents]:
        mailbox.put(Packet("iopub", b"{}", parent), needed=False)
    found = await mailbox.take()
    assert [packet.parent for packet in found[2:]] == [parents[1], parents[0]]


async def test_a_frontend_that_reads_nothing_at_all() -> None:
    """What it needs is kept for long, but not forever."""
    mailbox, put = Mailbox(most_bytes=5000), 0
    while mailbox.closed is None:
        mailbox.put(OUTPUT, needed=True)
        put += 1
    assert 4 * PATIENCE < put <= 5 * PATIENCE + 1
    assert mailbox.closed == "it read too slowly"
    assert len(await mailbox.take()) == put - 1
    assert await mailbox.take() == []


@pytest.mark.parametrize("needed", [True, False])
async def test_nothing_after_the_end(needed: bool) -> None:
    mailbox = Mailbox()
    mailbox.close("over")
    mailbox.put(OUTPUT, needed=needed)
    assert await mailbox.take() == []


async def test_what_waits_for_one_that_has_gone_is_let_go() -> None:
    mailbox = Mailbox()
    mailbox.put(OUTPUT, needed=True)
    mailbox.abandon()
    mailbox.put(OUTPUT, needed=True)
    assert (await mailbox.take(), mailbox.closed) == ([], "its frontend has gone")
