"""What can run here, and what is said when it cannot."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from kernels.errors import LanguageUnavailable, LanguageUnknown
from kernels.specs import KernelPaths, Languages, find_deno

if TYPE_CHECKING:
    from pathlib import Path

PATHS = KernelPaths(
    python="/home/user/.venv/bin/python", guest="/guest", deno="/bin/{python}", home="/home/user"
)


@pytest.fixture
def bare(tmp_path: Path) -> Languages:
    """A machine with nothing on it."""
    return Languages(
        deno=None, kernel_directories=[tmp_path / "kernels"], r_libraries=[], path=str(tmp_path)
    )


def install(directory: Path, name: str, document: object) -> None:
    place = directory / "kernels" / name
    place.mkdir(parents=True)
    text = document if isinstance(document, str) else json.dumps(document)
    (place / "kernel.json").write_text(text)


@pytest.mark.parametrize("name", ["python", "py", "Python", "python3"])
def test_python_is_always_there(bare: Languages, name: str) -> None:
    spec = bare.find(name).spec(PATHS)
    assert spec.argv == [
        "/home/user/.venv/bin/python", "-B", "/guest/python_kernel.py", "-f", "{connection_file}",
    ]  # fmt: skip
    assert (spec.name, spec.language, spec.interrupt_mode) == ("python3", "python", "signal")


@pytest.mark.parametrize(
    ("name", "remedy"),
    [("js", "cellshell[deno]"), ("typescript", "cellshell[deno]"), ("r", "r-cran-irkernel")],
)
def test_what_is_missing_says_what_to_install(bare: Languages, name: str, remedy: str) -> None:
    with pytest.raises(LanguageUnavailable) as caught:
        bare.find(name)
    assert remedy in caught.value.message
    assert caught.value.message in [language.reason for language in bare.all()]


@pytest.mark.parametrize("name", ["cobol", "", "x" * 10_000, "../python", "py\0", "{python}"])
def test_an_unknown_language_names_the_known_ones(bare: Languages, name: str) -> None:
    with pytest.raises(LanguageUnknown, match="expected one of python, javascript") as caught:
        bare.find(name)
    assert len(caught.value.message) < 400


def test_deno_runs_javascript_and_typescript(bare: Languages, tmp_path: Path) -> None:
    languages = Languages(deno=tmp_path / "deno", kernel_directories=[], r_libraries=[])
    for alias, language in (("js", "javascript"), ("ts", "typescript")):
        spec = languages.find(alias).spec(PATHS)
        assert spec.language == language
        relay = ["-I", "-S", "-B", "/guest/tcp_relay.py", "{connection_file}", "--"]
        assert spec.argv[1:9] == [*relay, "/bin/{python}", "jupyter"]
        assert spec.env["DENO_DIR"] == "/home/user/.cache/deno"
        assert spec.interrupt_mode == "message"


def test_deno_is_found_where_the_extra_is_installed() -> None:
    pytest.importorskip("deno", reason="the extra `deno` is not installed")
    found = find_deno()
    assert found is not None
    assert found.is_file()


def test_r_needs_its_kernel_too(tmp_path: Path) -> None:
    program = tmp_path / "R"
    program.touch(mode=0o755)
    library = tmp_path / "library"
    languages = Languages(
        deno=None, kernel_directories=[], r_libraries=[library], path=str(tmp_path)
    )
    with pytest.raises(LanguageUnavailable, match="its package IRkernel is not"):
        languages.find("R")
    (library / "IRkernel").mkdir(parents=True)
    (library / "IRkernel" / "DESCRIPTION").touch()
    assert languages.find("R").spec(PATHS).argv[0] == "R"


def test_installed_kernels_are_offered(bare: Languages, tmp_path: Path) -> None:
    (tmp_path / "octave").touch(mode=0o755)
    argv = ["octave", "{connection_file}"]
    document = {"argv": argv, "language": "Octave", "display_name": "Octave", "env": {"A": "1"}}
    install(tmp_path, "xoctave", document | {"interrupt_mode": "message"})
    install(tmp_path, "xpython", document | {"language": "python"})
    install(tmp_path, "gone", document | {"argv": ["/nowhere/gone"], "language": "gone"})
    found = bare.find("octave")
    assert found.kernel == "xoctave"
    spec = found.spec(PATHS)
    assert (spec.argv[-2:], spec.env, spec.interrupt_mode) == (argv, {"A": "1"}, "message")
    assert bare.find("xpython").name == "xpython"
    assert bare.find("python").kernel == "python3"
    with pytest.raises(LanguageUnavailable, match="/nowhere/gone"):
        bare.find("gone")


@pytest.mark.parametrize(
    "document",
    ["", "{", "[]", "null", "{}", {"argv": "octave"}, {"argv": [], "language": 3}, {"argv": [1]}],
    ids=str,
)
def test_a_broken_kernelspec_hides_no_other(
    bare: Languages, tmp_path: Path, document: object
) -> None:
    install(tmp_path, "broken", document)
    with pytest.raises(LanguageUnavailable):
        bare.find("broken")
    assert bare.find("python").available


def test_ours_win_over_installed_ones_of_the_same_name(bare: Languages, tmp_path: Path) -> None:
    install(tmp_path, "python3", {"argv": ["evil"], "language": "python", "display_name": "x"})
    assert bare.find("python3").spec(PATHS).argv[-1] == "{connection_file}"
    names = [language.name for language in bare.all()]
    assert len(names) == len(set(names)) == 4
