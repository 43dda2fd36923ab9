"""The README's promises that can be checked without a fresh machine, and the links of all documents."""

from __future__ import annotations

import configparser
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

from walsender import __main__ as program

ROOT: Final = Path(__file__).parents[2]
README: Final = (ROOT / "README.md").read_text()
LINK: Final = re.compile(r"\[[^]]*\]\((?!https?:)([^)#]+)(#[^)]*)?\)")


def block(name: str) -> list[list[str]]:
    """Return the words of each command in the block that follows a marker."""
    match = re.search(rf"<!-- {name} -->\n```sh\n(.*?)\n```", README, re.DOTALL)
    assert match is not None, name
    return [shlex.split(command) for command in match[1].split(" && ")]


def extras() -> set[str]:
    """Return the extras that the package has."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    return set(setup["options.extras_require"])


def test_runCommand(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first command makes an environment, installs an extra that exists, and runs the demo."""
    make, install, run = block("run-command")
    assert make == ["python3", "-m", "venv", ".venv"]
    assert install == [".venv/bin/pip", "install", "-q", ".[demo]"]
    assert "demo" in extras()
    assert run[:3] == [".venv/bin/python", "-m", "walsender"]
    runs: list[tuple[float | None, dict[str, object]]] = []
    monkeypatch.setattr("walsender.demo.run", lambda duration, **more: runs.append((duration, more)))
    program.main(run[3:])
    assert runs == [(None, {"kill_every_s": None, "open_page": False})]


def test_testCommand() -> None:
    """The second command makes an environment and runs tox, with what tox.ini has to run by itself."""
    make, install, run = block("test-command")
    assert make == ["python3", "-m", "venv", ".venv"]
    assert install == [".venv/bin/pip", "install", "-q", "tox"]
    assert run == [".venv/bin/tox"]
    tox = configparser.ConfigParser()
    tox.read(ROOT / "tox.ini")
    assert tox["tox"]["envlist"] == "py, lint, types"
    assert tox["testenv"]["extras"] in extras()


def test_gateRunsTheTestCommand(tmp_path: Path) -> None:
    """``.ci/run`` runs the README's test command from wherever it is called, and ends with its status."""
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "run", tmp_path / ".ci")
    text = README.replace(".venv/bin/tox\n```", "pwd && exit 7\n```")
    (tmp_path / "README.md").write_text(text.replace("python3 -m venv .venv && .venv/bin/pip", "echo pip"))
    done = subprocess.run(
        [tmp_path / ".ci" / "run"], cwd="/", stdout=subprocess.PIPE, text=True, timeout=60, check=False
    )
    assert done.stdout.splitlines()[1:] == ["pip install -q tox", str(tmp_path)]
    assert done.returncode == 7


@pytest.mark.parametrize("document", [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))], ids=str)
def test_links(document: Path) -> None:
    """Every link to a file of ours leads somewhere."""
    targets = [match[1] for match in LINK.finditer(document.read_text())]
    assert [target for target in targets if not (document.parent / target).exists()] == []


def test_everyPageIsInTheIndex() -> None:
    """Each page stands in one of the lists of docs/index.md, without which `tox -e docs` fails."""
    listed = re.findall(r"^[a-z-]+(?:/[a-z-]+)?$", (ROOT / "docs" / "index.md").read_text(), re.MULTILINE)
    pages = [path.relative_to(ROOT / "docs").with_suffix("") for path in (ROOT / "docs").rglob("*.md")]
    assert sorted([*listed, "index"]) == sorted(map(str, pages))


def test_changesSayWhatIsUnreleased() -> None:
    """The change log begins with what the next release will have."""
    assert "\n## Unreleased\n" in (ROOT / "CHANGELOG.md").read_text()
