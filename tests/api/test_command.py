"""The command `cellshell`, run as people run it, against a service it started itself."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import socket
import struct
import tarfile
import termios
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from live_service import cellshell, serve

from api.command_archive import Extraction
from api.command_connection import variables, visible
from api.command_copy import Remote, parse_end
from api.command_output import OutputPrinter
from api.listening import bind, refuse_exposure, refuse_unconfined
from interpreter.errors import CellshellError, InvalidRequest, UnsafeArchive
from interpreter.models import Isolation
from interpreter.settings import Settings
from tests.api.commanding import Command

box = pytest.mark.box
DOT = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serve(tmp_path_factory.mktemp("home")) as url:
        yield url


@pytest.fixture
def command(service: str, tmp_path: Path) -> Command:
    return Command(service, tmp_path)


@pytest.fixture
def lonely(tmp_path: Path) -> Command:
    """Where nobody serves."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    return Command(f"http://127.0.0.1:{port}", tmp_path)


def test_version_and_help(lonely: Command) -> None:
    assert lonely("--version")[1].startswith(b"cellshell")
    assert lonely("run", "--help")[0] == 0


@pytest.mark.parametrize("words", [("ls",), ("exec", "true"), ("run", "-c", "1"), ("rm", "x")])
def test_no_service_is_one_helpful_line(lonely: Command, words: tuple[str, ...]) -> None:
    status, out, err = lonely(*words)
    assert (status, out, err.count("\n")) == (1, b"", 1)
    assert "cellshell serve" in err


@pytest.mark.parametrize(
    "words",
    [
        ("run",),
        ("run", "file.py", "-c", "1"),
        ("cp", "a", "b"),
        ("cp", "a:b", "c:d"),
        ("exec", "--sandbox", "../x", "true"),
        ("exec", "--url", "nonsense", "true"),
        ("serve", "--isolation", "magic"),
        ("serve", "--port", "99999"),
        ("serve", "--host", "0.0.0.0", "--port", "0"),
        ("shell",),
    ],
)
def test_a_call_that_cannot_be_right_has_status_2(lonely: Command, words: tuple[str, ...]) -> None:
    status, out, err = lonely(*words)
    assert (status, out) == (2, b"")
    assert err.startswith("cellshell: ")


@pytest.mark.parametrize("words", [("run", "missing.py"), ("run", ".")])
def test_a_file_that_cannot_be_read(lonely: Command, words: tuple[str, ...]) -> None:
    status, _, err = lonely(*words)
    assert (status, err.count("\n")) == (1, 1)
    assert words[1] in err


@box
def test_exec_passes_bytes_status_and_environment(command: Command) -> None:
    status, out, err = command("exec", r"printf '\xff\0a'; echo oops >&2; exit 7")
    assert (status, out, err) == (7, b"\xff\0a", "oops\n")
    assert command("exec", "-e", "X=a b", "--cwd", "/", 'echo "$X" $PWD')[1] == b"a b /\n"


@box
def test_exec_passes_standard_input(command: Command) -> None:
    data = bytes(range(256)) * 4096
    assert command("exec", "cat", stdin=data)[1] == data
    assert command("exec", "-n", "cat", stdin=data)[1] == b""


@box
def test_exec_passes_several_words_exactly(command: Command) -> None:
    words = ["printf", "%s|", "a b", "$HOME", "'", '"', "\\", "-n", "", "\n", "--help"]
    assert command("exec", *words)[1] == "|".join(words[2:]).encode() + b"|"


@box
def test_exec_ends_in_time(command: Command) -> None:
    status, out, err = command("exec", "--timeout", "0.5", "echo begun; sleep 600")
    assert (status, out) == (124, b"begun\n")
    assert "timed out" in err


@box
def test_ctrl_c_cancels_the_execution(command: Command) -> None:
    name = "ctrl-c"
    running = command.start("exec", "-s", name, "echo $$; exec 3>&1; echo ready; sleep 600")
    assert running.stdout is not None
    while running.stdout.readline() != b"ready\n":
        pass
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=30)
    assert running.returncode == 130
    assert b"Traceback" not in err
    assert command("exec", "-s", name, "pgrep -c sleep")[1] == b"0\n"


@box
def test_a_reader_that_leaves_is_no_error(command: Command) -> None:
    with command.start("exec", "yes") as running:
        assert running.stdout is not None
        assert running.stderr is not None
        running.stdout.read(10)
        running.stdout.close()
        assert running.stderr.read() == b""
    assert running.returncode == 141


@box
def test_run_prints_and_saves(command: Command) -> None:
    (command.directory / "plot.py").write_text(
        "import base64, sys\n"
        "from IPython.display import display, Image\n"
        "print('out'); print('err', file=sys.stderr)\n"
        f"display(Image(base64.b64decode('{DOT}')))\n"
        "6 * 7\n"
    )
    (command.directory / "plot-1.png").write_text("mine")
    status, out, err = command("run", "plot.py")
    assert (status, out) == (0, b"out\n42\n")
    assert err.splitlines() == ["err", "cellshell: saved plot-2.png"]
    assert (command.directory / "plot-1.png").read_text() == "mine"
    assert (command.directory / "plot-2.png").read_bytes().startswith(b"\x89PNG")


@box
def test_run_takes_code_from_everywhere_and_fails_with_1(command: Command) -> None:
    assert command("run", "-", stdin=b"print('\xc3\xbc')")[1] == "ü\n".encode()
    status, out, err = command("run", "-c", "print(1)\n1 / 0")
    assert (status, out) == (1, b"1\n")
    assert err.rstrip().endswith("ZeroDivisionError: division by zero")
    assert "\x1b" not in err
    assert command("run", "-c", "x", "--language", "klingon")[0] == 1


@box
def test_copying_in_and_out(command: Command) -> None:
    project = command.directory / "project"
    (project / "deep").mkdir(parents=True)
    (project / "deep" / "run.sh").write_text("echo ran")
    (project / "deep" / "run.sh").chmod(0o755)
    assert command("cp", "project", "copies:/workspace/") == (0, b"", "")
    assert command("exec", "-s", "copies", "/workspace/project/deep/run.sh")[1] == b"ran\n"
    assert command("cp", "copies:/workspace/project", "back") == (0, b"", "")
    assert (command.directory / "back" / "deep" / "run.sh").stat().st_mode & 0o777 == 0o755
    assert command("cp", "-", "copies:a", stdin=b"\0\xff")[0] == 0
    assert command("cp", "copies:a", "-")[1] == b"\0\xff"
    assert command("cp", "copies:a", ".")[0] == 0
    assert (command.directory / "a").read_bytes() == b"\0\xff"
    status, _, err = command("cp", "copies:missing", "b")
    assert (status, err.count("\n")) == (1, 1)
    assert sorted(os.listdir(command.directory)) == ["a", "back", "project"]


@box
def test_listing_and_removing(command: Command) -> None:
    command("exec", "-s", "listed", "--session", "two", "echo x > here")
    assert b"listed" in command("ls")[1]
    assert b"two" in command("ls", "listed")[1]
    assert command("rm", "listed", "--session", "two")[0] == 0
    assert b"two" not in command("ls", "listed")[1]
    assert command("rm", "listed")[0] == 0
    status, _, err = command("ls", "listed")
    assert (status, err.count("\n")) == (1, 1)
    assert b"listed" not in command("ls")[1], "a list makes nothing"


@box
def test_shell_is_a_terminal_that_can_be_left(command: Command) -> None:
    with terminal(command) as (screen, left):
        read_until(screen, b"$ ")
        os.write(screen, b"stty size; echo a''b\r")
        assert b"33 101" in read_until(screen, b"ab\r\n")
        os.write(screen, b"\x1d")
        read_until(screen, b"the terminal runs on")
        assert left() == 0
    with terminal(command) as (screen, left):
        assert b"33 101" in read_until(screen, b"$ "), "what was there is shown again"
        os.write(screen, b"exit 9\r")
        assert left() == 9


@contextmanager
def terminal(command: Command) -> Iterator[tuple[int, Callable[[], int]]]:
    """`cellshell shell` on a terminal of 33 lines; what waits for its exit status."""
    pid, screen = pty.fork()
    if not pid:
        os.chdir(command.directory)
        words = cellshell("shell", "-s", "terminal")
        os.execve(words[0], words, command.environment)
    fcntl.ioctl(screen, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 101, 0, 0))
    try:
        yield screen, lambda: os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    finally:
        os.close(screen)


def read_until(terminal: int, end: bytes) -> bytes:
    seen = b""
    while end not in seen:
        ready, _, _ = select.select([terminal], [], [], 30)
        assert ready, seen
        seen += os.read(terminal, 65536)
    return seen


@box
def test_doctor_tries_everything(command: Command) -> None:
    status, out, err = command("doctor")
    assert (status, err) == (0, "")
    assert "ok       a sandbox: a cell and a command ran, in one environment" in out.decode()


def test_ends_of_a_copy() -> None:
    assert parse_end("box:a:b") == Remote("box", "a:b")
    assert parse_end(":a") == Remote("", "a")
    assert parse_end("./a:b") == "./a:b"
    assert parse_end("/tmp/a:b") == "/tmp/a:b"
    assert parse_end("-") == "-"


def test_variables_and_control_characters() -> None:
    assert variables(["A=1=2", "B="]) == {"A": "1=2", "B": ""}
    assert variables(["GONE"]) == {"GONE": None}
    assert visible("a\x1b[2J\nü") == "a\\x1b[2J\\nü"


def test_odd_outputs_are_shown_without_harm(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    printer = OutputPrinter(tmp_path, "x")
    for data in ({"image/png": 3}, {"image/png": "!"}, {"text/plain": ["a", "b"]}, {}):
        printer.output({"output_type": "display_data", "data": data})
    printer.output({"output_type": "stream", "text": "\ud800\n"})
    printer.output({"output_type": "error", "ename": "E", "evalue": "\x1b[31mv", "traceback": []})
    printer.output({"output_type": "display_data", "data": {"application/json": {"a": 1}}})
    out, err = capfd.readouterr()
    assert out == "ab\n?\n"
    assert err == f"E: v\ncellshell: saved {tmp_path}/x-1.json\n"


HOSTILE = {
    "absolute": tarfile.TarInfo("/tmp/escaped"),
    "upwards": tarfile.TarInfo("a/../../escaped"),
    "by a link": tarfile.TarInfo("link/escaped"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_archive_is_refused(kind: str, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to(tmp_path)
    with tarfile.open(tmp_path / "empty.tar", "w") as archive, pytest.raises(UnsafeArchive):
        Extraction(root.resolve()).extract(archive, HOSTILE[kind])
    assert not (tmp_path / "escaped").exists()


def test_links_that_lead_out_and_devices_are_left_out(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    extraction = Extraction(root.resolve())
    members = []
    for name, kind, target in (
        ("out", tarfile.SYMTYPE, "../secret"),
        ("abs", tarfile.SYMTYPE, "/etc/passwd"),
        ("hard", tarfile.LNKTYPE, "in"),
        ("fifo", tarfile.FIFOTYPE, ""),
        ("in", tarfile.SYMTYPE, "fine"),
    ):
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, target
        members.append(member)
    with tarfile.open(tmp_path / "empty.tar", "w") as archive:
        for member in members:
            extraction.extract(archive, member)
    assert os.listdir(root) == ["in"]
    assert capfd.readouterr().err.count("left out") == 4


def test_where_the_service_may_listen() -> None:
    walls, open_field = Isolation(tier="bwrap", reason=""), Isolation(tier="none", reason="")
    alone = Settings(host="localhost", port=0)
    with bind(alone) as listener:
        refuse_exposure(alone, listener)
        refuse_unconfined(alone, listener, open_field)
    world = Settings(host="0.0.0.0", port=0)
    with bind(world) as listener:
        with pytest.raises(InvalidRequest, match="token"):
            refuse_exposure(world, listener)
        refuse_unconfined(world, listener, walls)
        with pytest.raises(InvalidRequest, match="isolation"):
            refuse_unconfined(world, listener, open_field)
        knowing = world.model_copy(update={"isolation": "none"})
        refuse_unconfined(knowing, listener, open_field)


def test_an_address_in_use_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = Settings(port=taken.getsockname()[1], home=tmp_path)
        with pytest.raises(CellshellError, match=r"Address already in use.*--port"):
            bind(settings)
