"""A child of init on its way to the program it was forked for."""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import signal
import termios
from fcntl import ioctl
from typing import Any

PR_SET_DUMPABLE, PR_SET_CHILD_SUBREAPER = 4, 36
SOFT_OPEN_FILES = 4096

libc = ctypes.CDLL(None, use_errno=True)


def become(request: dict[str, Any], child_fds: list[int], fail: int) -> None:
    """Turn into the program of a request, or say on `fail` why not and end."""
    try:
        signal.set_wakeup_fd(-1)
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_DFL)
        os.setsid()
        for target, fd in enumerate(child_fds):
            os.dup2(fd, target, inheritable=True)
        if request.get("tty"):
            ioctl(0, termios.TIOCSCTTY, 0)
        if request.get("subreaper"):
            libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        fail = os.dup2(fail, 3, inheritable=False)
        os.closerange(4, 1 << 30)
        os.chdir(request["cwd"])
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(SOFT_OPEN_FILES, hard), hard))
        libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)
        environment = {os.fsencode(k): os.fsencode(v) for k, v in request["env"].items()}
        argv = [os.fsencode(word) for word in request["argv"]]
        # Whatever PATH the user has set, a shell can be started.
        program = b"/bin/bash" if argv[0] == b"bash" else argv[0]
        os.execvpe(program, argv, environment)
    except OSError as error:
        os.write(fail, f"{error.errno}:{error.strerror}: {error.filename!r}".encode())
    except (ValueError, TypeError, KeyError) as error:
        os.write(fail, f"{errno.EINVAL}:{error!r}".encode())
    finally:
        os._exit(127)
