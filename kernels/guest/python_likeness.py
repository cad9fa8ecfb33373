"""A forked interpreter passes for one that was started: by what, and when it cannot.

Loaded by path: nothing beside the standard library may be imported here at the top.
"""

# mypy: disable-error-code="attr-defined"
from __future__ import annotations

import ctypes
import os
import re
import site
import sys
from collections.abc import Iterable, Iterator, Mapping
from importlib.machinery import PathFinder
from typing import Any

READ_AT_START = re.compile(
    r"PYTHON(?!PATH$)|LD_|LC_|GLIBC_|MALLOC_|OMP_|KMP_|OPENBLAS_|GOTO_|MKL_|BLIS_|NUMEXPR_|NPY_"
    r"|MPL|MATPLOTLIB|XDG_|IPYTHON|JUPYTER|PYDEVD|DEBUGPY"
)
"""Variables that interpreters and libraries look at once, when they are loaded."""


IMPORTED_VARIABLES = ("PYDEVD_USE_FRAME_EVAL",)
"""What libraries put into the environment when they are loaded."""


class Likeness:
    """The libraries are those of `site_packages`; `extra` are names of modules that are loaded
    here, and not in a kernel that has just started."""

    def __init__(self, site_packages: str, extra: Iterable[str]) -> None:
        self._site_packages = site_packages
        self._environ = dict(os.environ)
        self._base = os.path.realpath(sys.executable)
        self._extra = frozenset(extra)
        self._libraries = frozenset(_loaded_from(site_packages))
        self._home, self._lang = os.environ["HOME"], os.environ["LANG"]
        directory = os.path.join(self._home, ".config", "matplotlib")
        self._configured = [f"{directory}/matplotlibrc", f"{directory}/stylelib", "matplotlibrc"]

    def differs(self, executable: str, environ: Mapping[str, str]) -> str | None:
        """Why a fresh process of `executable`, here and with these variables, would be another."""
        if os.path.realpath(executable) != self._base:
            return f"interpreter: {executable} is another"
        if environ.get("HOME") != self._home or environ.get("LANG") != self._lang:
            return "variable: HOME or LANG"
        if name := next(filter(READ_AT_START.match, environ), None):
            return f"variable: {name}"
        if any(map(os.path.exists, self._configured)):
            return "matplotlib: it is configured"
        root = os.path.dirname(os.path.dirname(executable))
        if name := _first_found(self._libraries, [_site_packages(root)]):
            return f"module: {name}"
        if name := _first_found(self._extra, list(_import_path())):
            return f"module: {name}"
        return None

    def assume(self, argv: list[str]) -> None:
        """Be what `argv` would have started."""
        prefix = os.path.dirname(os.path.dirname(argv[0]))
        sys.executable, sys.orig_argv = argv[0], list(argv)
        sys.prefix = sys.exec_prefix = prefix
        site.PREFIXES[:] = [prefix, prefix]
        sys.path[:] = [entry for entry in sys.path if entry != self._site_packages]
        site.addsitedir(_site_packages(prefix))
        if "sitecustomize" not in sys.modules:
            site.execsitecustomize()
        for name in IMPORTED_VARIABLES:
            if name in self._environ:
                os.environ.setdefault(name, self._environ[name])
        _show(argv)
        for name, forget in FORGETTING.items():
            if name in sys.modules:
                forget(sys.modules[name])


def _loaded_from(directory: str) -> Iterator[str]:
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if isinstance(file, str) and file.startswith(f"{directory}/"):
            yield name.partition(".")[0]


def _site_packages(root: str) -> str:
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    return os.path.join(root, "lib", version, "site-packages")


def _import_path() -> Iterator[str]:
    """What comes before the libraries: the working directory and the user's own choice."""
    yield os.getcwd()
    yield from filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    if root := os.environ.get("VIRTUAL_ENV"):
        yield _site_packages(root)


def _first_found(names: frozenset[str], path: list[str]) -> str | None:
    for name in _candidates(names, path):
        spec = PathFinder.find_spec(name, path)
        if spec is not None and spec.origin is not None:
            return name
    return None


def _candidates(names: frozenset[str], path: list[str]) -> frozenset[str]:
    """Those of which there is a file: to look for all that are loaded takes half a millisecond."""
    there = set[str]()
    for entry in path:
        try:
            there.update(name.partition(".")[0] for name in os.listdir(entry))
        except NotADirectoryError:  # an archive
            return names
        except OSError:
            continue
    return names & there


def _show(argv: list[str]) -> None:
    """Let `ps` show this command line, as far as there is room where the present one is."""
    with open("/proc/self/stat", "rb") as file:
        start, end = map(int, file.read().rpartition(b")")[2].split()[45:47])
    line = b"".join(os.fsencode(word) + b"\0" for word in argv)[: end - start - 1]
    ctypes.memmove(start, line.ljust(end - start, b"\0"), end - start)


def _forget_sysconfig(sysconfig: Any) -> None:
    sysconfig._PREFIX = sysconfig._EXEC_PREFIX = os.path.normpath(sys.prefix)
    sysconfig._CONFIG_VARS = None
    if hasattr(sysconfig, "_CONFIG_VARS_INITIALIZED"):
        sysconfig._CONFIG_VARS_INITIALIZED = False


def _forget_uuid(uuid: Any) -> None:
    uuid._node = uuid._last_timestamp = None


def _forget_tempfile(tempfile: Any) -> None:
    tempfile.tempdir = None


def _forget_process(process: Any) -> None:
    process.current_process()._config["authkey"] = process.AuthenticationString(os.urandom(32))


def _forget_spawn(spawn: Any) -> None:
    spawn.set_executable(sys.executable)


def _forget_random(random: Any) -> None:
    random.seed()  # numpy's; Python's own does it by itself


def _forget_matplotlib(matplotlib: Any) -> None:
    for name in ("get_configdir", "get_cachedir"):  # they remember their first answer
        function = getattr(matplotlib, name)
        setattr(matplotlib, name, getattr(function, "__wrapped__", function))


FORGETTING = {
    "sysconfig": _forget_sysconfig,
    "uuid": _forget_uuid,
    "tempfile": _forget_tempfile,
    "multiprocessing.process": _forget_process,
    "multiprocessing.spawn": _forget_spawn,
    "numpy.random": _forget_random,
    "matplotlib": _forget_matplotlib,
}
"""What is different in each process, or follows from where it runs, by the module that keeps it."""
