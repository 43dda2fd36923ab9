"""
The long run: ``python tests/fuzz/campaign.py --seconds 3600``, or ``tox -e fuzz -- --seconds 3600``.

Each target gets its share of the time in a process of its own.  atheris (libFuzzer) bends the seeds and
keeps what reaches new code, sieges written as bytes among them; hypothesis plays the sieges of the state
machine.  What is found is in ``--work`` as ``crash-…``, and ends the run with status 1;
``campaign.py --replay TARGET FILE`` plays it again.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

HERE: Final = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "protocol")]

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

PARSERS: Final = (
    "command", "first_command", "startup_options", "startup_packet", "framing", "packets", "standby",
    "parameters",
    "scram", "regex", "hba", "ident", "userlist",
)  # fmt: skip
# By how much of the time each gets.
SHARES: Final = {"siege": 8, "machine": 4} | dict.fromkeys(PARSERS, 1)

_MEMORY_MB: Final = 1024
_STUCK_S: Final = 60  # one input that takes longer than this never ends


def _log_nothing() -> None:
    """Forget what is logged; before logging begins Twisted keeps 65,536 events, and what they refer to."""
    from twisted.logger import globalLogBeginner

    globalLogBeginner.beginLoggingTo([], redirectStandardIO=False, discardBuffer=True)


def _target(name: str) -> Callable[[bytes], None]:
    if name == "siege":
        from byte_script import ByteScript

        return lambda data: ByteScript(data).play() and None
    from parsers import run

    return lambda data: run(name, data) and None


def fuzz(name: str, seconds: int, work: Path) -> None:
    """Let atheris look for input that breaks a target; does not return."""
    import atheris

    _log_nothing()
    with atheris.instrument_imports(include=["walsender"]):
        target = _target(name)
    corpus = work / name
    corpus.mkdir(parents=True, exist_ok=True)
    options = (
        f"-max_total_time={seconds}", f"-rss_limit_mb={_MEMORY_MB}", f"-timeout={_STUCK_S}",
        "-print_final_stats=1", "-max_len=4096", f"-artifact_prefix={work}/crash-{name}-", str(corpus),
        str(HERE / "corpus" / name),
    )  # fmt: skip
    atheris.Setup([sys.argv[0], *options], target)
    atheris.Fuzz()


def play(seconds: int) -> None:
    """Play sieges of the state machine until the time is up, and print how much of the code was reached."""
    import coverage

    measure = coverage.Coverage(
        branch=True,
        include=["*/walsender/sender/*", "*/walsender/wire/*", "*/walsender/auth/*"],
        data_file=None,
    )
    measure.start()
    _log_nothing()
    from hypothesis import HealthCheck, settings
    from hypothesis.stateful import run_state_machine_as_test
    from machine import SiegeMachine

    deadline = time.monotonic() + seconds
    rules = settings(
        max_examples=500,
        stateful_step_count=60,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    reached = -1
    while time.monotonic() < deadline:
        run_state_machine_as_test(SiegeMachine, settings=rules)
        lines = sum(len(measure.get_data().lines(file) or ()) for file in measure.get_data().measured_files())
        arcs = sum(len(measure.get_data().arcs(file) or ()) for file in measure.get_data().measured_files())
        if arcs > reached:
            reached = arcs
            print(
                f"#{SiegeMachine.plays} plays, {SiegeMachine.deeds} deeds: {lines} lines, {arcs} branches",
                flush=True,
            )
    print(f"stat::number_of_executed_units: {SiegeMachine.plays} ({SiegeMachine.deeds} deeds)")


def _summary(log: str) -> str:
    """Return how many inputs there were, and the last that was said about coverage."""
    count = re.findall(r"stat::number_of_executed_units:\s*(.+)", log)
    covered = re.findall(r"cov: \d+ ft: \d+ corp: \d+|\d+ lines, \d+ branches", log)
    grown = re.findall(r"^#(\d+)\s+(?:NEW|plays)", log, re.MULTILINE)
    last = f", the last that was new at #{grown[-1]}" if grown else ""
    return f"{count[-1] if count else '?'} inputs, {covered[-1] if covered else 'no coverage'}{last}"


def campaign(seconds: int, targets: Sequence[str], work: Path) -> int:
    """Run all targets one after another; return the exit status."""
    work.mkdir(parents=True, exist_ok=True)
    status = 0
    whole = sum(SHARES[name] for name in targets)
    for name in targets:
        share = max(1, seconds * SHARES[name] // whole)
        log = work / f"{name}.log"
        with log.open("wb") as output:
            command = [sys.executable, *(["-bb"] if name != "machine" else []), __file__]
            done = subprocess.run(
                [*command, "--child", name, "--seconds", str(share), "--work", str(work)],
                stdout=output,
                stderr=subprocess.STDOUT,
                check=False,
            )
        text = log.read_text(errors="replace")
        print(f"{name}: {share} s, {_summary(text)}, status {done.returncode}", flush=True)
        if done.returncode:
            status = 1
            print("\n".join(text.splitlines()[-40:]), flush=True)
    return status


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Fuzz what reads clients' bytes.")
    parser.add_argument("--seconds", type=int, default=600, help="how long, all targets together")
    parser.add_argument("--target", action="append", choices=SHARES, help="only this one; may be repeated")
    parser.add_argument("--work", type=Path, default=Path(os.environ.get("TMPDIR", "/tmp"), "walsender-fuzz"))
    parser.add_argument("--child", choices=SHARES, help=argparse.SUPPRESS)
    parser.add_argument("--replay", nargs=2, metavar=("TARGET", "FILE"), help="play one input again")
    options = parser.parse_args()
    if options.replay:
        name, file = options.replay
        _target(name)(Path(file).read_bytes())
    elif options.child == "machine":
        play(options.seconds)
    elif options.child:
        fuzz(options.child, options.seconds, options.work)
    else:
        return campaign(options.seconds, options.target or tuple(SHARES), options.work)
    return 0


if __name__ == "__main__":
    sys.exit(main())
