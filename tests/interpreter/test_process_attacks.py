"""Attacks from boxes without namespaces on what lies beside them: files, service, other boxes."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import pytest_asyncio
from asking import Python, Shell, python_of, shell_of
from process_tier import passable_directory, serving_processes

from interpreter.interpreter import Interpreter
from interpreter.models import CreateSandbox, StartProcess
from interpreter.sandboxes import Sandbox

pytestmark = pytest.mark.box


@pytest_asyncio.fixture(scope="module")
async def interpreter() -> AsyncIterator[Interpreter]:
    os.environ["CELLSHELL_PLANTED"] = "s3cret-of-the-service"
    async with serving_processes() as interpreter:
        yield interpreter
    del os.environ["CELLSHELL_PLANTED"]


@pytest_asyncio.fixture(scope="module")
async def other(interpreter: Interpreter) -> AsyncIterator[Sandbox]:
    """Another sandbox, with a kernel, a file and a server."""
    sandbox = await interpreter.create_sandbox(CreateSandbox())
    session = sandbox.session("default")
    await python_of(session)("secret = 5")
    await shell_of(session)("echo private > private; chmod 666 private; chmod 777 .")
    yield sandbox
    await interpreter.delete_sandbox(sandbox.id)


@pytest.fixture
def outside() -> Iterator[Path]:
    """A directory of this machine that everybody may read and write."""
    with passable_directory() as directory:
        directory.chmod(0o777)
        (directory / "data").write_text("outside")
        (directory / "data").chmod(0o666)
        yield directory


@pytest.fixture
def bystander() -> Iterator[subprocess.Popen[str]]:
    """A process of the service's user that has a secret and servers of every kind."""
    program = (
        "import os, socket, sys\n"
        "kept = [socket.create_server(('127.0.0.1', 0)), socket.create_server(('0.0.0.0', 0)), "
        "socket.create_server(('::1', 0), family=socket.AF_INET6)]\n"
        "for name in (sys.argv[1] + '/stream', '\\0' + sys.argv[2]):\n"
        "    kept.append(socket.socket(socket.AF_UNIX)); kept[-1].bind(name); kept[-1].listen()\n"
        "kept.append(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))\n"
        "kept[-1].bind(sys.argv[1] + '/datagram')\n"
        "for name in ('stream', 'datagram'): os.chmod(f'{sys.argv[1]}/{name}', 0o666)\n"
        "print(*(s.getsockname()[1] for s in kept[:3]), flush=True)\n"
        "sys.stdin.read()"
    )
    with passable_directory() as directory:
        directory.chmod(0o777)
        process = subprocess.Popen(
            [sys.executable, "-c", program, str(directory), directory.name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={"BYSTANDER": "s3cret-of-a-bystander"},
        )
        process.args = directory
        yield process
        assert process.poll() is None, "it was ended"
        process.communicate("")


async def test_files_outside(shell: Shell, outside: Path, interpreter: Interpreter) -> None:
    result = await shell(
        f"""
        cd {outside}; for each in cat 'tee' 'truncate -s 0' rm 'mv -t .'; do
            $each {outside}/data </dev/null && echo "did $each"; done
        ln {outside}/data "$HOME/hard" && echo linked; ln -s {outside}/data "$HOME/soft"
        cat "$HOME/soft" && echo followed; echo x > "$HOME/soft" && echo written
        mkdir {outside}/new && echo made; mkfifo {outside}/fifo && echo fifo
        ls {outside} /root /home /tmp /var /sys / && echo listed
        cat /etc/shadow {interpreter.settings.home}/registry.sqlite && echo read
        ls {interpreter.settings.home} && echo listed; ls {interpreter.settings.runtime} && echo run
        mv "$HOME/soft" {outside}/soft && echo moved; cp /bin/true . && echo copied
        """
    )
    assert result.stdout == "", result
    assert (outside / "data").read_text() == "outside"
    assert [each.name for each in outside.iterdir()] == ["data"]


async def test_the_system_is_not_written(shell: Shell) -> None:
    places = "/ /usr /etc /opt /dev /var/tmp /tmp /proc/self /sys /run"
    result = await shell(
        f"for p in {places}; do echo x > $p/planted && echo $p; done; "
        "echo 0 > /proc/self/oom_score_adj && echo oom; echo x > /proc/sys/kernel/core_pattern"
    )
    assert result.stdout == "", result


async def test_the_service_s_own_programs_are_not_written(sandbox: Sandbox, shell: Shell) -> None:
    box = await sandbox.box()
    for place in (box.paths.guest, box.paths.kernel_guest, f"{box.paths.run}/env", box.paths.run):
        assert (await shell(f"echo x > {place}/planted && echo done")).stdout == ""
        assert not Path(place, "planted").exists()


async def test_files_of_another_sandbox(shell: Shell, other: Sandbox) -> None:
    box = await other.box()
    result = await shell(
        f"cat {box.paths.workspace}/private && echo read; ls {box.paths.home} && echo listed; "
        f"echo x > {box.paths.workspace}/private && echo wrote; "
        f"ls {box.host_run}/kernels && echo kernels; "
        f"cat {other.directory}/executions/* && echo records; cat {box.host_run}/log && echo log"
    )
    assert result.stdout == "", result
    assert Path(box.paths.workspace, "private").read_text() == "private\n"


async def test_control_sockets(python: Python, sandbox: Sandbox, other: Sandbox) -> None:
    """Neither another's nor its own; nor another's kernel."""
    box, theirs = await sandbox.box(), await other.box()
    await python("1")
    found = [str(path) for path in theirs.host_run.rglob("*") if path.is_socket()]
    assert len(found) > 1
    reached = await python(
        "import os, socket\n"
        f"names = {[*found, str(box.host_run / 'control')]!r}\n"
        "os.symlink(names[0], 'way') if not os.path.lexists('way') else None\n"
        "for name in [*names, 'way', f'/proc/self/root{names[0]}', f'/proc/self/cwd/way']:\n"
        "    for kind in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET):\n"
        "        s = socket.socket(socket.AF_UNIX, kind)\n"
        "        try: s.connect(name); print('reached', name)\n"
        "        except OSError as error: assert error.errno in (13, 111, 2), (name, error)"
    )
    assert (reached.stdout, reached.status) == ("", "ok"), reached


async def test_a_path_that_changes_while_it_is_looked_at(
    python: Python, bystander: subprocess.Popen[str]
) -> None:
    """What was looked at is what is connected, and the address is read once."""
    result = await python(
        "import ctypes, os, socket, struct, threading, time\n"
        f"target = b'{bystander.args}/stream'\n"
        "own = socket.socket(socket.AF_UNIX); own.bind('own.sock'); own.listen(4096)\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "address = ctypes.create_string_buffer(struct.pack('=H', 1) + b'own.sock', 110)\n"
        "stop = time.monotonic() + 3\n"
        "def swap_names():\n"
        "    while time.monotonic() < stop:\n"
        "        for to in ('own.sock', target):\n"
        "            os.symlink(to, 'next'); os.rename('next', 'swapped')\n"
        "def swap_memory():\n"
        "    names = [n.ljust(108, b'\\0') for n in (b'own.sock', target, b'swapped')]\n"
        "    while time.monotonic() < stop:\n"
        "        for name in names: ctypes.memmove(ctypes.addressof(address) + 2, name, 108)\n"
        "threads = [threading.Thread(target=t) for t in (swap_names, swap_memory)]\n"
        "[t.start() for t in threads]\n"
        "reached = tried = 0\n"
        "while time.monotonic() < stop:\n"
        "    s = socket.socket(socket.AF_UNIX); s.setblocking(False)\n"
        "    if libc.connect(s.fileno(), address, 110) == 0:\n"
        "        tried += 1; reached += s.getpeername() == os.fsdecode(target)\n"
        "    s.close()\n"
        "[t.join() for t in threads]; print(tried > 0, reached)",
        timeout=30,
    )
    assert result.stdout == "True 0\n", result


async def test_servers_of_this_machine(
    python: Python, other: Sandbox, bystander: subprocess.Popen[str]
) -> None:
    assert bystander.stdout is not None
    local, everywhere, six = map(int, bystander.stdout.readline().split())
    served = await python_of(other.session("default"))(
        "import socket; s = socket.create_server(('127.0.0.1', 0)); s.getsockname()[1]"
    )
    mine = socket.gethostbyname(socket.gethostname())
    result = await python(
        "import socket\n"
        f"hosts = ['127.0.0.1', '127.0.0.2', '0.0.0.0', 'localhost', {mine!r}, '::1', "
        "'::ffff:127.0.0.1', '::']\n"
        f"for port in {[local, everywhere, six, int(served.text or 0)]}:\n"
        "    for host in hosts:\n"
        "        try: socket.create_connection((host, port), timeout=3); print(host, port)\n"
        "        except OSError as error: assert error.errno in (111, 101), error"
    )
    assert (result.stdout, result.status) == ("", "ok"), result


async def test_a_port_that_two_listen_on(python: Python) -> None:
    """With SO_REUSEPORT a connection might meet either: it meets none."""
    ours = socket.socket()
    with ours:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        ours.bind(("127.0.0.1", 0))
        ours.listen()
        port = ours.getsockname()[1]
        result = await python(
            "import socket\n"
            "s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)\n"
            f"try: s.bind(('127.0.0.1', {port})); s.listen()\n"
            "except OSError: pass\n"
            f"try: socket.create_connection(('127.0.0.1', {port})); print('met')\n"
            "except ConnectionRefusedError: print('refused')"
        )
    assert result.stdout == "refused\n", result


async def test_the_way_out(python: Python, shell: Shell) -> None:
    result = await python(
        "import socket, errno\n"
        "def tried(what):\n"
        "    try: what(); return 'did'\n"
        "    except OSError as error: return errno.errorcode.get(error.errno, str(error))\n"
        "S = socket\n"
        "def s(*a): return S.socket(*a)\n"
        "a = ('192.0.2.1', 80)\n"
        "six = ('2001:db8::1', 80)\n"
        "print(tried(lambda: s().connect(a)), tried(lambda: s(S.AF_INET6).connect(six)))\n"
        "for kind in (S.SOCK_DGRAM, S.SOCK_RAW, S.SOCK_SEQPACKET):\n"
        "    print(tried(lambda: s(S.AF_INET, kind)), tried(lambda: s(S.AF_INET6, kind)))\n"
        "print(tried(lambda: s(S.AF_INET, S.SOCK_STREAM, 262)), tried(lambda: s(40, 1)))\n"
        "print(tried(lambda: s().sendto(b'x', 0x20000000, a)))\n"
        "print(tried(lambda: s().sendmsg([b'x'], [], 0x20000000, a)))\n"
        "t = s(); t.setsockopt(6, 30, 1); print(tried(lambda: t.connect(a)))"
    )
    assert result.stdout.split() == (
        ["ENETUNREACH"] * 2 + ["EACCES"] * 6 + ["EPROTONOSUPPORT", "EAFNOSUPPORT"]
        + ["EPERM"] * 2 + ["ENETUNREACH"]
    ), result  # fmt: skip
    assert (await shell("curl -sS http://example.org/")).exit_code == 6


async def test_datagrams_and_abstract_names(
    python: Python, bystander: subprocess.Popen[str]
) -> None:
    directory = Path(str(bystander.args))
    result = await python(
        "import socket\n"
        "def tried(what):\n"
        "    try: what(); print('did')\n"
        "    except OSError as error: print(error.errno)\n"
        "for make in (socket.socket, lambda *a: socket.socketpair(*a)[0]):\n"
        "    tried(lambda: make(socket.AF_UNIX, socket.SOCK_DGRAM)"
        f".sendto(b'x', '{directory}/datagram'))\n"
        f"tried(lambda: socket.socket(socket.AF_UNIX).connect('{directory}/stream'))\n"
        f"tried(lambda: socket.socket(socket.AF_UNIX).connect('\\0{directory.name}'))\n"
        "for call in (29, 64, 68): print(__import__('ctypes').CDLL(None).syscall(call, 1, 1, 1))"
    )
    assert result.stdout.split() == ["13", "13", "13", "111", "-1", "-1", "-1"], result


async def test_processes_outside(
    python: Python,
    sandbox: Sandbox,
    other: Sandbox,
    bystander: subprocess.Popen[str],
    interpreter: Interpreter,
) -> None:
    """The service, its supervisor, another box's init and kernel, a bystander."""
    box, theirs = await sandbox.box(), await other.box()
    supervisor = int(Path(f"/proc/{box.host_pid}/stat").read_text().rpartition(")")[2].split()[1])
    kernels = await theirs.kill_tree([theirs.host_pid], 0)
    targets = [os.getpid(), supervisor, theirs.host_pid, *kernels, bystander.pid]
    before = {pid: os.sched_getaffinity(pid) for pid in targets}
    result = await python(
        "import ctypes, os, resource, signal, struct\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]\n"
        "def tried(what, *a):\n"
        "    try: print('did', what, a) if what(*a) != -1 else None\n"
        "    except OSError: pass\n"
        f"for pid in {targets}:\n"
        "    for number in (0, signal.SIGSTOP, signal.SIGTERM, signal.SIGKILL):\n"
        "        tried(os.kill, pid, number)\n"
        "        tried(signal.pidfd_send_signal, os.pidfd_open(pid), number)\n"
        "    tried(os.killpg, pid, signal.SIGKILL)\n"
        "    for request in (16, 0x4206): tried(libc.ptrace, request, pid, None, None)\n"
        "    for name in ('environ', 'mem', 'maps', 'auxv', 'stack', 'syscall'):\n"
        "        tried(lambda: open(f'/proc/{pid}/{name}', 'rb').read(1) or -1)\n"
        "    for name in ('cwd', 'root', 'exe', 'ns/net'):\n"
        "        tried(os.readlink, f'/proc/{pid}/{name}')\n"
        "    for n in range(10): tried(os.readlink, f'/proc/{pid}/fd/{n}')\n"
        "    tried(lambda: resource.prlimit(pid, resource.RLIMIT_CPU, (1, 1)))\n"
        "    tried(os.sched_setaffinity, pid, {0}); tried(os.setpriority, 0, pid, 19)\n"
        "    tried(os.setpriority, os.PRIO_USER, 0, 19)\n"
        "    buffer = ctypes.create_string_buffer(8)\n"
        "    vector = struct.pack('=QQ', ctypes.addressof(buffer), 8)\n"
        "    tried(libc.syscall, 438, os.pidfd_open(pid), 0, 0)\n"
        "    assert libc.process_vm_readv(pid, vector, 1, vector, 1, 0) == -1\n"
        "    assert ctypes.get_errno() == 1\n"
    )
    assert (result.stdout, result.status) == ("", "ok"), result
    assert {pid: os.sched_getaffinity(pid) for pid in targets} == before
    assert bystander.poll() is None


async def test_secrets_of_the_service(shell: Shell, bystander: subprocess.Popen[str]) -> None:
    result = await shell("cat /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n'")
    assert "s3cret" not in result.stdout
    assert "CELLSHELL" not in result.stdout


async def test_rights(shell: Shell, python: Python) -> None:
    status = await shell("grep -E '^(Cap|NoNewPrivs|Seccomp:|Uid|Groups)' /proc/self/status")
    found = dict(line.split(":", 1) for line in status.stdout.splitlines())
    assert {found[name].strip() for name in found if name.startswith("Cap")} - {
        found["CapBnd"].strip()
    } <= {"0" * 16}
    assert (found["NoNewPrivs"].strip(), found["Seccomp"].strip()) == ("1", "2")
    uids = set(found["Uid"].split())
    assert len(uids) == 1 and (uids == {str(os.geteuid())}) == (os.geteuid() != 0)
    assert (await shell("su -c id </dev/null || unshare -U id || unshare -m id")).exit_code != 0
    result = await python(
        "import ctypes\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "for flag in (0x10000000, 0x20000, 0x20000000, 0x40000000):\n"
        "    print(libc.unshare(flag), ctypes.get_errno())\n"
        "print(libc.mount(b'x', b'/tmp', b'tmpfs', 0, None), ctypes.get_errno())\n"
        "print(libc.chroot(b'.'), ctypes.get_errno())"
    )
    assert result.stdout == "-1 1\n" * 6, result


async def test_terminals_of_others(shell: Shell) -> None:
    leader, follower = os.openpty()
    try:
        name = os.ttyname(follower)
        result = await shell(f"echo typed > {name} && echo wrote; head -c 1 < {name} && echo read")
        assert result.stdout == "", result
    finally:
        os.close(leader)
        os.close(follower)


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGSTOP, signal.SIGSEGV])
async def test_a_box_that_attacks_its_own_init(interpreter: Interpreter, end: int) -> None:
    """That ends the box, and never leaves something running."""
    sandbox = await interpreter.create_sandbox(CreateSandbox())
    box, session = await sandbox.box(), sandbox.session("default")
    deaf = "setsid setsid sh -c 'trap \"\" TERM; sleep 977'"
    script = f"for n in 1 2 3; do ({deaf} &); done; sleep 976"
    await sandbox.processes.start(session, StartProcess(command=script))
    supervisor = int(Path(f"/proc/{box.host_pid}/stat").read_text().rpartition(")")[2].split()[1])
    before = await box.kill_tree([box.host_pid], 0)
    argv = ["kill", f"-{int(end)}", str(box.host_pid)]
    with suppress(ConnectionResetError):
        process = await box.spawn(argv, env={"PATH": "/usr/bin:/bin"}, cwd="/")
        await process.wait()
    async with asyncio.timeout(10):
        await box.ended
        assert (await shell_of(session)("echo fresh")).stdout == "fresh\n"
    await interpreter.delete_sandbox(sandbox.id)
    assert [pid for pid in [supervisor, *before] if Path(f"/proc/{pid}").exists()] == []


async def test_nothing_is_left_behind(interpreter: Interpreter) -> None:
    sandbox = await interpreter.create_sandbox(CreateSandbox())
    await python_of(sandbox.session("default"))(
        "import socket; s = socket.create_server(('127.0.0.1', 0)); "
        "socket.create_connection(s.getsockname())\n"
        "try: open('/dev/shm/left', 'w').close()\n"
        "except PermissionError: pass"
    )
    descriptors = len(os.listdir("/proc/self/fd"))
    run = sandbox._plan.run
    await interpreter.delete_sandbox(sandbox.id)
    assert not run.exists() and not sandbox.directory.exists()
    assert not Path("/dev/shm/left").exists()
    assert len(os.listdir("/proc/self/fd")) < descriptors
