"""The state tables as data: closed, connected, final where they say so; and drawn in the documentation."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from walsender.sender import states
from walsender.sender.states import (
    FIRST,
    MODERN,
    REPORTING,
    IllegalTransition,
    State,
    next_state,
    transitions_of,
)
from walsender.wire import (
    CancelRequest,
    CopyData,
    CopyDone,
    CopyFail,
    ExtendedQuery,
    Flush,
    FunctionCall,
    GSSENCRequest,
    PasswordMessage,
    Query,
    SSLRequest,
    StartupMessage,
    Sync,
    Terminate,
    UnknownMessage,
)
from walsender.wire.dialect import FirstDialect, dialect_of

if TYPE_CHECKING:
    from walsender.sender.states import Transitions

DOCS = Path(__file__).parents[3] / "docs"

MESSAGES = [
    CancelRequest,
    CopyData,
    CopyDone,
    CopyFail,
    ExtendedQuery,
    Flush,
    FunctionCall,
    GSSENCRequest,
    PasswordMessage,
    Query,
    SSLRequest,
    StartupMessage,
    Sync,
    Terminate,
    UnknownMessage,
]
EVENTS = [
    states.Authenticated,
    states.StreamStarted,
    states.TimelineEnded,
    states.StreamFailed,
    states.ShutdownBegun,
]
TABLES = {"MODERN": MODERN, "REPORTING": REPORTING, "FIRST": FIRST}

tables = st.sampled_from(list(TABLES.values()))
inputs = st.sampled_from(MESSAGES + EVENTS)


def reachable(table: Transitions, start: State = State.STARTUP) -> set[State]:
    """Return all states that can follow *start*, itself included."""
    found = {start}
    todo = [start]
    while todo:
        for state in table[todo.pop()].values():
            if state not in found:
                found.add(state)
                todo.append(state)
    return found


class TableTests(SynchronousTestCase):
    """Properties of all tables."""

    @given(tables, st.sampled_from(State), inputs)
    def test_closed(self, table: Transitions, state: State, received: type) -> None:
        """Whatever arrives in whatever state: a state of the same table, or the typed error."""
        if state not in table:
            self.assertIsNot(MODERN, table)
            return
        try:
            following = next_state(table, state, received)
        except IllegalTransition as error:
            self.assertNotIn(received, table[state])
            self.assertEqual(("08P01", "FATAL"), (error.sqlstate, error.severity))
            self.assertIn(state.name, error.message)
        else:
            self.assertIn(following, table)

    @given(tables, st.lists(inputs, max_size=30))
    def test_walks(self, table: Transitions, received: list[type]) -> None:
        """No sequence of inputs leads out of the table, and nothing leads out of CLOSED."""
        state = State.STARTUP
        for each in received:
            try:
                following = next_state(table, state, each)
            except IllegalTransition:
                continue
            self.assertIsNot(State.CLOSED, state)
            self.assertIn(following, table)
            state = following

    def test_everyStateIsReachable(self) -> None:
        """Each state of a table can be reached, and from each the end can."""
        for name, table in TABLES.items():
            self.assertEqual(set(table), reachable(table), name)
            for state in table:
                self.assertIn(State.CLOSED, reachable(table, state), f"{name} {state.name}")

    def test_closedIsFinal(self) -> None:
        """Nothing is legal any more in CLOSED."""
        for table in TABLES.values():
            self.assertEqual({}, table[State.CLOSED])
            for received in MESSAGES + EVENTS:
                self.assertRaises(IllegalTransition, next_state, table, State.CLOSED, received)

    def test_terminateAlwaysCloses(self) -> None:
        """A client that is let in may say good-bye at any time."""
        for table in TABLES.values():
            for state in set(table) - {State.STARTUP, State.AUTHENTICATION, State.CLOSED}:
                self.assertIs(State.CLOSED, next_state(table, state, Terminate))

    def test_modernHasEveryState(self) -> None:
        """No state is of no use."""
        self.assertEqual(set(State), set(MODERN))

    def test_olderAreSmaller(self) -> None:
        """Before 9.3 there is no end of a stream but the connection's."""
        for table in (REPORTING, FIRST):
            self.assertEqual(set(State) - {State.ENDING}, set(table))
            for received in (CopyDone, Query, states.TimelineEnded):
                self.assertRaises(IllegalTransition, next_state, table, State.STREAMING, received)
            self.assertNotIn(State.COMMAND, reachable(table, State.STREAMING))

    def test_reportsSince91(self) -> None:
        """What a standby reports is read where there are reports, also while the server stops."""
        for state in (State.STREAMING, State.STOPPING):
            self.assertIs(state, next_state(REPORTING, state, CopyData))
            self.assertRaises(IllegalTransition, next_state, FIRST, state, CopyData)

    def test_tableOfADialect(self) -> None:
        """Each era has its table."""
        self.assertIs(FIRST, transitions_of(FirstDialect(180000, "little")))
        for version, table in (
            (90000, FIRST),
            (90100, REPORTING),
            (90200, REPORTING),
            (90300, MODERN),
            (190000, MODERN),
        ):
            self.assertIs(table, transitions_of(dialect_of(version, "little")), version)

    def test_copyEndsInTheCommandPhase(self) -> None:
        """Each way in which a modern stream ends without its connection leads back to commands."""
        for state, received in (
            (State.STREAMING, CopyDone),
            (State.STREAMING, states.StreamFailed),
            (State.ENDING, CopyDone),
            (State.ENDING, states.StreamFailed),
        ):
            self.assertIs(State.COMMAND, next_state(MODERN, state, received))

    def test_onlyKnownInputs(self) -> None:
        """The tables name messages and events only."""
        for table in TABLES.values():
            for transitions in table.values():
                self.assertLessEqual(set(transitions), set(MESSAGES + EVENTS))


class DiagramTests(SynchronousTestCase):
    """The drawing in the documentation."""

    def test_isCurrent(self) -> None:
        """docs/states.md and its drawings are what docs/make_state_diagram.py makes of the tables."""
        script = runpy.run_path(str(DOCS / "make_state_diagram.py"))
        self.assertEqual(script["page"](), (DOCS / "states.md").read_text())
        for file, drawn in script["drawings"]().items():
            self.assertEqual(drawn, (DOCS / file).read_text(), file)

    def test_drawsEveryTransition(self) -> None:
        """Each entry of the tables is on the page and in its drawing, which is sound XML."""
        script = runpy.run_path(str(DOCS / "make_state_diagram.py"))
        page = script["page"]()
        for table in TABLES.values():
            drawn = script["drawing"](table)
            words = " ".join(ET.fromstring(drawn).itertext())
            for state, transitions in table.items():
                for received, following in transitions.items():
                    row = rf"\| `{state.name}` \| `{following.name}` \| .*\b{received.__name__}\b"
                    self.assertRegex(page, row)
                    self.assertRegex(words, rf"\b{received.__name__}\b")
