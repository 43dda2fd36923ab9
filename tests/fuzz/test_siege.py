"""Sieges, short: a hypothesis state machine, the corpus, and that each check can fail."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from byte_script import ByteScript
from checks import Broken, check_output
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test
from machine import SiegeMachine
from seeds import CORPUS, seeds
from siege import VERSIONS, Siege
from twisted.trial.unittest import SynchronousTestCase
from vocabulary import PARAMETERS

from walsender.sender.command_phase import CommandPhase
from walsender.sender.slot_table import SlotTable
from walsender.wire.framing import FrontendBuffer

if TYPE_CHECKING:
    from collections.abc import Callable


class SiegeTests(SynchronousTestCase):
    def test_machine(self) -> None:
        """Whatever clients do in any order, no invariant is broken."""
        run_state_machine_as_test(
            SiegeMachine, settings=settings(max_examples=150, stateful_step_count=40, deadline=None)
        )

    def test_corpus(self) -> None:
        """The seeds are what the script makes, and break nothing."""
        wanted = seeds()
        found = {str(path.relative_to(CORPUS)): path for path in CORPUS.rglob("*") if path.is_file()}
        self.assertEqual(sorted(wanted), sorted(found))
        for name, path in found.items():
            script = path.read_bytes()
            self.assertEqual(wanted[name], script, name)
            if name.startswith("siege/"):
                ByteScript(script).play()

    def test_everyVersionStreams(self) -> None:
        """The standby that behaves gets WAL in every dialect."""
        for version in VERSIONS:
            siege = Siege(version)
            siege.grow(5000)
            siege.standby_reads()
            self.assertGreater(siege._standby_at, 0x1F0000, version)
            siege.end()

    def test_passwordsAreAsked(self) -> None:
        """A siege has clients who come in by SCRAM, and others who do not."""
        scram = PARAMETERS.index({"user": "scram"})
        for proof, is_in in ((0, True), (4, False), (5, False), (6, False), (7, False)):
            siege = Siege(180000)
            siege.start_up(scram)
            siege.begin_scram(0)
            siege.end_scram(proof)
            self.assertIs(is_in, siege.offender.client.protocol.session is not None, proof)
            siege.end()


class PlantedTests(SynchronousTestCase):
    """What would be a hole is seen."""

    def planted(self, owner: Any, name: str, bad: Callable[..., Any], seed: str) -> None:
        """Check that the siege of that seed is lost when *bad* takes the place of a method."""
        self.patch(owner, name, bad)
        with self.assertRaises(Broken):
            ByteScript(seeds()[f"siege/{seed}"]).play()

    def test_untypedError(self) -> None:
        """An exception of another kind."""

        def received(self: CommandPhase, message: object) -> None:
            raise ValueError("planted")

        self.planted(CommandPhase, "received", received, "commands")
        self.flushLoggedErrors(ValueError)

    def test_unboundedInput(self) -> None:
        """A packet of any length before the client is let in."""
        self.patch(FrontendBuffer, "next_packet", lambda self: None)
        siege = Siege(180000)
        self.addCleanup(siege.close)
        siege.connect(0)
        siege.large(0)
        self.assertRaises(Broken, siege.check)

    def test_placeKept(self) -> None:
        """A place in the slot table that nobody gives back."""
        self.planted(SlotTable, "free", lambda self, entry: None, "cancel")

    def test_notAMessage(self) -> None:
        """Output that is no message, an error without a SQLSTATE, the end inside a message."""
        for bad, whole in (
            (b"Z\0\0\0\3", False),
            (b"?\0\0\0\4", False),
            (b"E\0\0\0\x0aSX\0M\0\0", False),
            (b"Z\0\0\0\5", True),
        ):
            with self.assertRaises(Broken):
                check_output(bad, whole=whole)
