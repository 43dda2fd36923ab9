"""What an installation gives: the wheel's contents, and twistd's knowledge of us in a fresh environment."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT: Final = Path(__file__).parents[2]
PLUGIN: Final = "twisted/plugins/walsender_plugin.py"
PAGE: Final = ("page.html", "page.css", "page.js", "chart.js", "words.js")
# Installing fetches the dependencies from the index that pip is configured for.
TIMEOUT_S: Final = 300


def run(command: Sequence[str | Path], directory: Path) -> str:
    """Run *command* to its end, without sight of the source tree, and return its output."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"}
    }
    done = subprocess.run(
        command,
        cwd=directory,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def install(space: Path, *arguments: str | Path) -> Path:
    """Make a fresh environment in *space*, install into it, and return its folder of programs."""
    run([sys.executable, "-m", "venv", "--without-pip", space / "env"], space)
    programs = space / "env" / "bin"
    run(
        [sys.executable, "-m", "pip", "--python", programs / "python", "install", "--quiet", *arguments],
        space,
    )
    return programs


def twistd_commands(programs: Path, space: Path) -> list[str]:
    """Return the names of what twistd can run there."""
    listing = run([programs / "twistd", "--help"], space).partition("Commands:")[2]
    return [line.split()[0] for line in listing.splitlines() if line.startswith("    ") and line[4] != " "]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what makes the package, since building leaves its traces in the source tree."""
    copy = tmp_path_factory.mktemp("source")
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy(path, copy)
    for name in ("walsender", "twisted"):
        shutil.copytree(
            ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "dropin.cache")
        )
    return copy


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built as pip builds it for a user."""
    directory = tmp_path_factory.mktemp("wheel")
    run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", directory, source],
        directory,
    )
    (built,) = directory.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of a fresh environment into which the wheel is installed."""
    return install(tmp_path_factory.mktemp("installed"), wheel)


def test_wheel_holds_every_module_and_the_plugin(wheel: Path, source: Path) -> None:
    """The wheel has each module of the package, ``py.typed``, the page's files and the plugin alone."""
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    modules = {str(path.relative_to(source)) for path in source.joinpath("walsender").rglob("*.py")}
    page = {f"walsender/status/{name}" for name in PAGE}
    assert names == modules | page | {PLUGIN, "walsender/py.typed"}


def test_wheel_leaves_the_plugin_folder_without_init(wheel: Path) -> None:
    """No ``__init__.py`` beside the plugin: it would hide Twisted's own package, or its other plugins."""
    names = zipfile.ZipFile(wheel).namelist()
    assert "twisted/__init__.py" not in names
    assert "twisted/plugins/__init__.py" not in names


def test_wheel_holds_the_licence(wheel: Path) -> None:
    """The licence travels with the wheel."""
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in zipfile.ZipFile(wheel).namelist())


def test_installed_wheel_is_known_to_twistd(installed: Path, tmp_path: Path) -> None:
    """In a fresh environment with the wheel alone, twistd lists walsender."""
    assert "walsender" in twistd_commands(installed, tmp_path)


def test_installed_wheel_declares_all_that_it_needs(installed: Path, tmp_path: Path) -> None:
    """The declared dependencies suffice to load twistd's part of the program and show its options."""
    assert "--wal-directory" in run([installed / "twistd", "walsender", "--help"], tmp_path)


def test_compatible_editable_installation_is_known_to_twistd(source: Path, tmp_path: Path) -> None:
    """The editable form that the README names lets twistd find the plugin."""
    programs = install(tmp_path, "--config-settings", "editable_mode=compat", "--editable", source)
    assert "walsender" in twistd_commands(programs, tmp_path)


def test_source_distribution_is_the_project(source: Path, tmp_path: Path) -> None:
    """It has what its README speaks of: tests, documents and samples as well as the program."""
    for name in ("benchmarks", "docs", "etc", "tests"):
        shutil.copytree(ROOT / name, source / name, dirs_exist_ok=True)
    programs = install(tmp_path, "build")
    run([programs / "python", "-m", "build", "--sdist", "--outdir", tmp_path, source], tmp_path)
    (built,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(built) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {"README.md", "CHANGELOG.md", "LICENSE", "tox.ini", "pyproject.toml", PLUGIN}
    wanted |= {
        str(path.relative_to(ROOT))
        for folder in ("benchmarks", "docs", "etc", "tests", "walsender")
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert wanted <= names
    assert not [name for name in names if name.endswith(".pyc")]
