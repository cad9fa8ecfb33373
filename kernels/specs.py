"""The languages code can be written in, and the kernelspec that runs each of them."""

from __future__ import annotations

import importlib
import os
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from jupyter_client.kernelspec import KernelSpec, KernelSpecManager

from kernels.errors import LanguageUnavailable, LanguageUnknown
from kernels.outputs import RESULTS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

RELAY = ("{python}", "-I", "-S", "-B", "{guest}/tcp_relay.py", "{connection_file}", "--")
"""In front of a kernel that cannot, or is not known to, listen on Unix sockets."""
SYSTEM_KERNELS = (Path("/usr/local/share/jupyter/kernels"), Path("/usr/share/jupyter/kernels"))
"""Where kernels installed on the machine are looked for: a box sees `/usr`, and nothing beside."""
SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin"
R_LIBRARIES = tuple(
    Path(root, "R", name)
    for root in ("/usr/local/lib", "/usr/local/lib64", "/usr/lib", "/usr/lib64")
    for name in ("site-library", "library")
)


@dataclass(frozen=True)
class KernelPaths:
    """Where a place keeps what kernels need, as the code there sees it."""

    python: str
    guest: str
    """Directory of `python_kernel.py` and `tcp_relay.py`."""
    deno: str
    home: str


@dataclass(frozen=True)
class KernelLanguage:
    """A language, whether it can run here, and how its kernel is started."""

    name: str
    aliases: tuple[str, ...]
    kernel: str
    display_name: str
    argv: tuple[str, ...]
    """`spec` fills in the fields of `KernelPaths`; the kernel manager, `{connection_file}`."""
    env: Mapping[str, str] = field(default_factory=dict)
    interrupt_mode: Literal["signal", "message"] = "signal"
    relayed: bool = False
    results: tuple[str, ...] = RESULTS
    """Types of output that its kernel shows the value of a cell as."""
    resource_dir: str = ""
    reason: str | None = None
    """Why it cannot run here, and what to install."""

    @property
    def available(self) -> bool:
        return self.reason is None

    def spec(self, paths: KernelPaths) -> KernelSpec:
        """The kernelspec for a kernel in a place that has these paths."""
        return KernelSpec(
            argv=[_fill(word, paths) for word in (*(RELAY if self.relayed else ()), *self.argv)],
            env={name: _fill(value, paths) for name, value in self.env.items()},
            name=self.kernel,
            display_name=self.display_name,
            language=self.name,
            interrupt_mode=self.interrupt_mode,
            resource_dir=self.resource_dir,
        )


PYTHON = KernelLanguage(
    name="python",
    aliases=("py",),
    kernel="python3",
    display_name="Python 3",
    argv=("{python}", "-B", "{guest}/python_kernel.py", "-f", "{connection_file}"),
)
# Deno's own kernelspec has no interrupt_mode, so that SIGINT ends it; and it listens on tcp alone.
# From 2.8.2 to 2.9.8 at least it publishes some output after `idle`, under the next parent (a tenth
# of the cells, seen in 1,000 runs each); 2.8.1 never did.
TYPESCRIPT = KernelLanguage(
    name="typescript",
    aliases=("ts",),
    kernel="deno",
    display_name="TypeScript (Deno)",
    argv=("{deno}", "jupyter", "--kernel", "--conn", "{connection_file}"),
    env={"NO_COLOR": "1", "DENO_DIR": "{home}/.cache/deno", "DENO_NO_UPDATE_CHECK": "1"},
    interrupt_mode="message",
    relayed=True,
)
JAVASCRIPT = KernelLanguage(
    name="javascript",
    aliases=("js",),
    kernel="deno-javascript",
    display_name="JavaScript (Deno)",
    argv=TYPESCRIPT.argv,
    env=TYPESCRIPT.env,
    interrupt_mode="message",
    relayed=True,
)
R = KernelLanguage(
    name="r",
    aliases=(),
    kernel="ir",
    display_name="R",
    argv=("R", "--slave", "-e", "IRkernel::main()", "--args", "{connection_file}"),
    results=("display_data",),
)


class Languages:
    """What can run here. Looked up at each call, so that a kernel installed later is found."""

    def __init__(
        self,
        *,
        deno: Path | None,
        kernel_directories: Sequence[Path] = SYSTEM_KERNELS,
        r_libraries: Sequence[Path] = R_LIBRARIES,
        path: str = SYSTEM_PATH,
    ) -> None:
        self._deno = deno
        self._directories = [str(directory) for directory in kernel_directories]
        self._r_libraries = r_libraries
        self._path = path

    def all(self) -> list[KernelLanguage]:
        """Every known language, those that cannot run here with the reason."""
        ours = [PYTHON, *self._with_deno(), self._with_r()]
        return [*ours, *self._installed(ours)]

    def find(self, name: str) -> KernelLanguage:
        """By name, alias or kernelspec. Raises LanguageUnknown, LanguageUnavailable."""
        known = self.all()
        wanted = name.casefold()
        for language in known:
            if wanted in (language.name, *language.aliases, language.kernel.casefold()):
                if language.reason is not None:
                    raise LanguageUnavailable(language.reason, language=language.name)
                return language
        raise LanguageUnknown(
            f"expected one of {', '.join(language.name for language in known)}, got {name[:64]!r}; "
            "GET /v1/languages lists what can run here",
            language=name[:64],
        )

    def _with_deno(self) -> Iterator[KernelLanguage]:
        for language in (JAVASCRIPT, TYPESCRIPT):
            yield (
                language
                if self._deno
                else _unavailable(
                    language,
                    f"{language.display_name} needs Deno, which is not installed: "
                    "`pip install 'cellshell[deno]'` beside the service, then restart it",
                )
            )

    def _with_r(self) -> KernelLanguage:
        if shutil.which("R", path=self._path) is None:
            return _unavailable(
                R,
                "R is not installed below /usr: `apt-get install r-cran-irkernel`",
            )
        if not any(
            (library / "IRkernel" / "DESCRIPTION").is_file() for library in self._r_libraries
        ):
            return _unavailable(
                R,
                "R is installed, its package IRkernel is not: `apt-get install r-cran-irkernel`, "
                "or `install.packages('IRkernel')` as root",
            )
        return R

    def _installed(self, ours: Sequence[KernelLanguage]) -> Iterator[KernelLanguage]:
        manager = KernelSpecManager(kernel_dirs=self._directories, ensure_native_kernel=False)
        taken = {name for language in ours for name in (language.name, language.kernel)}
        for kernel in sorted(manager.find_kernel_specs()):
            if kernel in taken:
                continue
            language = self._from_spec(manager, kernel, taken)
            taken |= {language.name, language.kernel}
            yield language

    def _from_spec(
        self, manager: KernelSpecManager, kernel: str, taken: set[str]
    ) -> KernelLanguage:
        try:
            spec = manager.get_kernel_spec(kernel)
            name = str(spec.language).casefold()
            argv = tuple(str(word) for word in spec.argv)
        except Exception as error:  # a broken kernel.json raises whatever its content provokes
            broken = f"the kernelspec {kernel!r} cannot be read ({error}): reinstall that kernel"
            return KernelLanguage(kernel, (), kernel, kernel, (), reason=broken)
        program = argv[0] if argv else ""
        found = shutil.which(program, path=self._path)
        return KernelLanguage(
            name=kernel if name in taken or not name else name,
            aliases=(),
            kernel=kernel,
            display_name=spec.display_name or kernel,
            argv=argv,
            env={str(key): str(value) for key, value in spec.env.items()},
            interrupt_mode="message" if spec.interrupt_mode == "message" else "signal",
            relayed=True,
            resource_dir=spec.resource_dir,
            reason=None
            if found
            else f"the kernel {kernel!r} needs {program!r}, which is not there",
        )


def find_deno() -> Path | None:
    """Deno's executable: of the package `deno`, else on the service's PATH."""
    try:
        found: str | None = importlib.import_module("deno").find_deno_bin()
    except (ImportError, FileNotFoundError):
        found = shutil.which("deno")
    return Path(os.path.realpath(found)) if found else None


def _unavailable(language: KernelLanguage, reason: str) -> KernelLanguage:
    return KernelLanguage(
        language.name, language.aliases, language.kernel, language.display_name, (), reason=reason
    )


def _fill(text: str, paths: KernelPaths) -> str:
    return re.sub(r"\{(python|guest|deno|home)\}", lambda match: getattr(paths, match[1]), text)
