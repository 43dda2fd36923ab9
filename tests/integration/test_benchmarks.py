"""Each benchmark does what its documentation says, in its shortest form; its numbers are not looked at."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from walsender.testing.processes import run_program

ROOT = Path(__file__).parents[2]

COMMANDS = {
    "catch_up": ("PostgreSQL 18", "walsender, transport", "walsender, sendfile"),
    "catch_up --clients 20": ("PostgreSQL 18", "walsender, transport", "walsender, sendfile"),
    "receiving": ("pg_receivewal", "walsender, relay"),
    "standbys": ("CPU", "memory per standby", "a new standby"),
    "standbys --commits 20": ("arrival, p99", "arrivals"),
    "relay_latency --standbys 3": ("PostgreSQL, cascading", "walsender, relay"),
    "neighbours": ("walsender, relay: nobody", "beside a stalled client", "beside a cold reader"),
    "start_up": ("2 segments", "100 segments"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_printsItsTable(command: str) -> None:
    """It ends well, having printed a line of numbers for each server or measure."""
    name, *options = command.split()
    arguments = [sys.executable, "-bb", "-m", f"benchmarks.{name}", "--quick", *options]
    output = run_program(arguments, directory=ROOT).stdout
    rows = [line.strip("| ").partition("|")[0] for line in output.splitlines() if line.startswith("|")]
    for server in COMMANDS[command]:
        assert any(row.startswith(server) for row in rows), output


def test_allAreTested() -> None:
    """No benchmark stays behind."""
    programs = {
        path.stem
        for path in (ROOT / "benchmarks").glob("*.py")
        if '__name__ == "__main__"' in path.read_text()
    }
    assert programs - {"discarding_client"} == {command.split()[0] for command in COMMANDS}
