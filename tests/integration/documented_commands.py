"""
The commands of a page in ``docs/``, run as a reader would run them, one after the other in one shell.

What a reader sees is in blocks marked ``sh``.  What a reader has, or looks at, is in comments:

* ``<!-- setup: COMMAND -->``: what is there already; `_PROLOGUE` has words for it;
* ``<!-- wait: COMMAND -->`` goes on when the command succeeds;
* ``<!-- check: COMMAND -->`` fails where it does not.

Ports of 5400 to 5499, and 9187, are replaced by free ones, and names ending in ``.example`` by this machine.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from walsender.testing.postgres import free_port
from walsender.testing.processes import ChildProcess, source_environment

if TYPE_CHECKING:
    from walsender.testing.installation import PostgresInstallation

DOCS: Final = Path(__file__).parents[2] / "docs"
_LAUNCHER: Final = Path(__file__).parents[2] / "walsender" / "testing" / "_launcher.py"
_STEP: Final = re.compile(
    r"^```sh\n(?P<sh>.*?)^```$|^<!-- wait: (?P<wait>.*?) -->$|^<!-- (?:check|setup): (?P<hidden>.*?) -->$",
    re.DOTALL | re.MULTILINE,
)
_PORT: Final = re.compile(r"\b(?:54\d\d|9187)\b")
_HOST: Final = re.compile(r"\b[a-z0-9-]+\.example\b")
_DEADLINE_S: Final = 240
#: Become the program that follows, and the parent of the daemons that it starts.  A daemon that is killed is
#: there until its parent has noticed, and not every process 1 is quick.
_ADOPT: Final = (
    "import ctypes, os, sys; ctypes.CDLL(None).prctl(36, 1, 0, 0, 0); os.execv(sys.argv[1], sys.argv[1:])"
)
_PROLOGUE: Final = """
# Passwords are not at stake, and PostgreSQL's account works in directories that root makes.
umask 0000

wait_for() {
    for attempt in $(seq 600); do if eval "$1" > ../waited.log 2>&1; then return 0; fi; sleep 0.1; done
    cat ../waited.log; echo "waited in vain: $1"; exit 1
}

make_primary() {  # directory, port
    initdb -D $1 -U postgres -A trust --no-sync > /dev/null
    start $1 $2
}

make_standby() {  # directory, port, connection string of who has the data, and of who is followed
    pg_basebackup -D $1 -d "$3" -X none -c fast --no-sync
    touch $1/standby.signal
    echo "primary_conninfo = '$4 application_name=$1'" >> $1/postgresql.conf
    start $1 $2
}

start() {  # directory, port
    pg_ctl -D $1 -l $1.log -o "-p $2 -k /tmp" -w start > /dev/null
}

rows() {  # port
    psql -At -h 127.0.0.1 -p $1 -U postgres -c 'SELECT count(*) FROM visits'
}

end() {
    for file in */postmaster.pid; do
        if [ -e $file ]; then pg_ctl -D $(dirname $file) -m immediate stop || true; fi
    done
}
trap end EXIT
set -x
"""


def pages() -> list[str]:
    """Return the pages that are meant to be followed, by their paths in ``docs/``."""
    return ["tutorial.md", *sorted(f"howto/{path.name}" for path in (DOCS / "howto").glob("*.md"))]


def script(page: str) -> str:
    """Return all commands of *page* as one program for bash."""
    text = (DOCS / page).read_text()
    steps = []
    for step in _STEP.finditer(text):
        if (commands := step["sh"]) is not None:
            steps.append(commands)
        elif (waited := step["wait"]) is not None:
            steps.append(f"wait_for {shlex.quote(waited)}\n")
        else:
            steps.append(f"{step['hidden']}\n")
    joined = _HOST.sub("127.0.0.1", "".join(steps))
    ports = {port: str(free_port()) for port in sorted(set(_PORT.findall(joined)))}
    joined = _PORT.sub(lambda match: ports[match[0]], joined)
    return f"set -euo pipefail\n{_PROLOGUE}{joined}"


def run_page(page: str, installation: PostgresInstallation, space: Path) -> None:
    """
    Run the commands of *page* in *space*, a directory of PostgreSQL's; nothing of it runs on afterwards.

    :raises AssertionError: one fails.
    """
    programs = space / "programs"
    _make_programs(programs, installation)
    work = space / "work"
    work.mkdir()
    installation.account.own(work)
    (space / "page.sh").write_text(f"cd {work}\n{script(page)}")
    environment = {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "HOME": str(work),
        "PGCONNECT_TIMEOUT": "30",
        **source_environment(),
    }
    bash = shutil.which("bash")
    assert bash is not None, "the pages are written for bash"
    try:
        command = [sys.executable, "-c", _ADOPT, bash, space / "page.sh"]
        with ChildProcess(page, command, space / "page.log", environment=environment) as shell:
            status = shell.wait(_DEADLINE_S)
            logs = "".join(f"\n--- {path.name}\n{path.read_text()[-2000:]}" for path in work.glob("*.log"))
            assert status == 0, f"{shell.log_text()[-6000:]}{logs if status else ''}"
    finally:
        _end_all_in(work)


def _make_programs(programs: Path, installation: PostgresInstallation) -> None:
    """Make the directory of the programs that a reader has on the PATH."""
    programs.mkdir()
    programs.chmod(0o755)
    python = shlex.quote(sys.executable)
    account = installation.account
    made = {
        "python": f'exec {python} "$@"',
        "twistd": f'exec {python} -bb -c "from twisted.scripts.twistd import run; run()" "$@"',
    }
    for path in installation.bin_directory.iterdir():
        # PostgreSQL refuses root.
        become = f"{python} -I -S {_LAUNCHER} $PPID 9 {account.user_id} {account.group_id} "
        made[path.name] = f'exec {become if account.user_id >= 0 else ""}{path} "$@"'
    for name, command in made.items():
        (programs / name).write_text(f"#!/bin/sh\n{command}\n")
        (programs / name).chmod(0o755)


def _end_all_in(directory: Path) -> None:
    """Kill what still works in *directory*; a page that succeeds has ended all it started."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            where = (process / "cwd").resolve(strict=True)
            if where == directory or directory in where.parents:
                os.kill(int(process.name), signal.SIGKILL)
