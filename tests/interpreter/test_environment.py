from __future__ import annotations

import json
import struct
from pathlib import Path

from interpreter.environment import Environment, difference, shareable


def environment(**own: str) -> Environment:
    return Environment(cwd="/workspace", variables={"BASE": "1"}, own=own)


def test_a_merge_says_what_changed() -> None:
    env = environment(A="1")
    changes = env.merge({"A": "1", "B": "2", "BASE": None, "NEVER": None}, "/tmp")
    assert (changes.cwd, changes.set, changes.unset) == ("/tmp", ["B"], ["BASE"])
    assert env.variables == {"A": "1", "B": "2"}


def test_nothing_changed_keeps_the_version() -> None:
    env = environment(A="1")
    before = env.version
    env.merge({"A": "1"}, "/workspace")
    assert env.version == before


def test_concurrent_changes_of_different_variables_both_stay() -> None:
    env = environment()
    seen_by_first = dict(env.variables)
    env.merge({"SECOND": "2"})
    env.merge(difference(seen_by_first, {**seen_by_first, "FIRST": "1"}))
    assert env.variables == {"BASE": "1", "FIRST": "1", "SECOND": "2"}


def test_what_the_session_set_wins_over_the_sandbox() -> None:
    env = environment(MINE="session")
    env.merge({"GONE": None})
    env.inherit({"MINE": "sandbox", "GONE": "sandbox", "NEW": "sandbox"})
    assert env.variables == {"BASE": "1", "MINE": "session", "NEW": "sandbox"}


def test_an_unset_is_a_say_too() -> None:
    env = environment()
    env.merge({"BASE": None})
    env.inherit({"BASE": "2"})
    assert "BASE" not in env.variables


def test_private_names_are_never_shared() -> None:
    private = ("_", "SHLVL", "PWD", "OLDPWD", "BASH_ENV", "JPY_PARENT_PID", "MPLBACKEND", "A-B", "")
    assert [name for name in private if shareable(name)] == []
    assert all(map(shareable, ("PATH", "VIRTUAL_ENV", "PYTHONPATH", "_UNDERSCORE", "a1")))


def test_the_page_holds_the_latest_version(tmp_path: Path) -> None:
    env = environment()
    page = env.publish(tmp_path / "page")
    env.merge({"BYTES": "\udcff"}, "/tmp")
    data = (tmp_path / "page").read_bytes()
    sequence, length = struct.unpack("<QQ", data[:16])
    document = json.loads(data[16 : 16 + length].decode("utf-8", "surrogateescape"))
    assert sequence == env.version * 2
    assert document == {"version": env.version, "cwd": "/tmp", "env": env.variables}
    env.retract(page)


def test_subscribers_hear_of_changes_until_they_leave() -> None:
    env, heard = environment(), []
    leave = env.subscribe(lambda: heard.append(env.version))
    env.merge({"A": "1"})
    leave()
    env.merge({"A": "2"})
    assert heard == [2]


def test_an_environment_has_a_limit() -> None:
    env = environment()
    assert env.fits({"A": "x" * 1000})
    assert not env.fits({"A": "x" * (129 * 1024)})
    assert not env.fits({f"A{n}": "x" * 100_000 for n in range(11)})
