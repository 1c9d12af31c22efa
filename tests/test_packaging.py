"""Packaging: the wheel's contents, and that twistd finds an installed chatd from any folder.

Nothing is downloaded: builds are not isolated, and the environments created here use the libraries
of the one that runs the tests, but not its chatd.
"""

import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

import chatd

ROOT = Path(__file__).resolve().parent.parent

# The files that a build needs. They are copied, so that builds write nothing into the checkout.
SOURCES = ["setup.py", "pyproject.toml", "README.md", "LICENSE", "chatd", "twisted", "packaging"]

# The line of ``twistd --help``.
LISTED = ["chatd", "A", "long-polling", "chat", "daemon."]


BUILD = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"
"""What pip runs to build a wheel."""


def run(*command: str, folder: Path | None = None) -> str:
    """Run a command that must succeed; returns its output."""
    process = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, timeout=120
    )
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout


def install(python: str, *arguments: str) -> None:
    """Run this environment's `pip install` on the environment of the interpreter `python`."""
    run(
        *(sys.executable, "-m", "pip", "--python", python, "--quiet", "install", "--no-deps"),
        *("--no-compile", "--disable-pip-version-check", *arguments),
    )


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources."""
    folder = tmp_path_factory.mktemp("source")
    ignored = shutil.ignore_patterns("__pycache__", "dropin.cache")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, folder)
    return folder


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel built from the copy."""
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-c", BUILD, str(folder), folder=source)
    (built,) = folder.glob("chatd-*.whl")
    return built


@pytest.fixture
def python(tmp_path: Path) -> str:
    """The interpreter of a new environment with the libraries but without chatd."""
    home = tmp_path / "env"
    venv.create(home, symlinks=True)
    folders = {"base": str(home), "platbase": str(home)}
    packages = Path(sysconfig.get_path("purelib", "venv", folders))
    # A .pth file adds a folder but does not process the .pth files in it, so the editable install
    # of chatd next to the libraries is not visible.
    libraries = dict.fromkeys(sysconfig.get_path(kind) for kind in ("purelib", "platlib"))
    (packages / "libraries.pth").write_text("".join(f"{path}\n" for path in libraries))
    return str(home / "bin" / "python")


def twistd_lists_chatd(python: str, folder: Path) -> bool:
    """Whether ``twistd --help`` of the environment, called in the folder, lists the command."""
    folder.mkdir()
    program = "from twisted.scripts.twistd import run; run()"
    listed = run(python, "-c", program, "--help", folder=folder)
    return any(line.split() == LISTED for line in listed.splitlines())


def sources(*patterns: str) -> set[str]:
    """The matching files, relative to the root of the checkout, without __pycache__."""
    found = {path for pattern in patterns for path in ROOT.glob(pattern) if path.is_file()}
    return {str(path.relative_to(ROOT)) for path in found if "__pycache__" not in path.parts}


def test_the_wheel_contains_the_package_and_the_plugin(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    plugin = "twisted/plugins/chatd_plugin.py"
    data = sources(
        "chatd/store/schema/**/*.sql", "chatd/page/assets/**/*", "chatd/api/docs/examples/*"
    )
    share = f"chatd-{chatd.__version__}.data/data/share"
    installed = {
        f"{share}/man/man1/chatd.1",
        f"{share}/man/man5/chatd.toml.5",
        f"{share}/bash-completion/completions/chatd",
        f"{share}/zsh/site-functions/_chatd",
        f"{share}/fish/vendor_completions.d/chatd.fish",
    }
    assert names == {plugin, "chatd/py.typed"} | sources("chatd/**/*.py") | data | installed
    assert any(name.endswith(".sql") for name in names)


def test_the_metadata_of_the_wheel(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (folder,) = {name.split("/")[0] for name in archive.namelist() if ".dist-info/" in name}
        metadata = message_from_bytes(archive.read(f"{folder}/METADATA"))
        assert archive.read(f"{folder}/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()
    assert (metadata["Name"], metadata["Version"]) == ("chatd", chatd.__version__)
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata.get_all("Provides-Extra") == ["postgres", "bench", "test", "dev"]


def test_twistd_finds_chatd_after_an_install(wheel: Path, python: str, tmp_path: Path) -> None:
    assert not twistd_lists_chatd(python, tmp_path / "before")
    install(python, str(wheel))
    assert twistd_lists_chatd(python, tmp_path / "after")


def test_twistd_finds_chatd_after_an_editable_install(
    source: Path, python: str, tmp_path: Path
) -> None:
    install(python, "--no-build-isolation", "--editable", str(source))
    assert twistd_lists_chatd(python, tmp_path / "after")


def test_nothing_hides_twisteds_own_packages() -> None:
    assert not (ROOT / "twisted/__init__.py").exists()
    assert not (ROOT / "twisted/plugins/__init__.py").exists()
