"""
The conversation as data: its states, and which message or event leads from one to the next.

What is absent is illegal: for a message that is the client's fault, and the
dialect words the refusal; for an event of our own it is a bug.  The table belongs
to the dialect: those before 9.3 know neither CopyDone nor an end of a timeline,
and their tables are smaller.  The diagram in the documentation is drawn from here.

While WAL streams, no table is asked per slice; only what the standby sends is
looked up.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final

from walsender.errors import WalsenderError
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
)
from walsender.wire.dialect import Dialect, ModernDialect


class State(enum.Enum):
    """Where the conversation stands."""

    STARTUP = "packets carry no type byte yet"
    AUTHENTICATION = "the start-up packet is here, the client is not let in"
    COMMAND = "one command at a time"
    STREAMING = "WAL flows"
    ENDING = "we have sent CopyDone, the standby has not"
    STOPPING = "shutting down: the last WAL is on its way"
    CLOSED = "nothing more is read or written"


class Authenticated:
    """Event: the client may come in."""


class StreamStarted:
    """Event: START_REPLICATION has been accepted."""


class TimelineEnded:
    """Event: all of a historic timeline has been sent."""


class StreamFailed:
    """Event: the next WAL cannot be read; an ERROR inside COPY ends COPY, not the session."""


class ShutdownBegun:
    """Event: the server is being stopped."""


Transitions = Mapping[State, Mapping[type, State]]

_BEGINNING: Final[dict[State, Mapping[type, State]]] = {
    State.STARTUP: {
        SSLRequest: State.STARTUP,
        GSSENCRequest: State.STARTUP,
        CancelRequest: State.CLOSED,  # PostgreSQL never answers one
        StartupMessage: State.AUTHENTICATION,
    },
    # Nobody says good-bye here: a Terminate is no password.
    State.AUTHENTICATION: {PasswordMessage: State.AUTHENTICATION, Authenticated: State.COMMAND},
}

# Replication protocol from 9.3 on.
MODERN: Final[Transitions] = {
    **_BEGINNING,
    State.COMMAND: {
        Query: State.COMMAND,
        StreamStarted: State.STREAMING,
        # Answered with an error that leaves the session intact.
        ExtendedQuery: State.COMMAND,
        FunctionCall: State.COMMAND,
        Sync: State.COMMAND,
        Flush: State.COMMAND,
        # Late messages of a COPY that has ended: ignored.
        CopyData: State.COMMAND,
        CopyDone: State.COMMAND,
        CopyFail: State.COMMAND,
        Terminate: State.CLOSED,
    },
    State.STREAMING: {
        CopyData: State.STREAMING,
        # Answered with ours at once.  Three states hold the four combinations of
        # "who is done copying".
        CopyDone: State.COMMAND,
        TimelineEnded: State.ENDING,
        StreamFailed: State.COMMAND,
        ShutdownBegun: State.STOPPING,
        Terminate: State.CLOSED,
    },
    State.ENDING: {
        CopyData: State.ENDING,
        CopyDone: State.COMMAND,
        StreamFailed: State.COMMAND,
        ShutdownBegun: State.STOPPING,
        Terminate: State.CLOSED,
    },
    State.STOPPING: {
        CopyData: State.STOPPING,
        CopyDone: State.STOPPING,
        StreamFailed: State.CLOSED,
        Terminate: State.CLOSED,
    },
    State.CLOSED: {},
}

# Before 9.3: one command starts the stream, only the connection's end stops it.
_ONE_COMMAND: Final[Mapping[type, State]] = {
    Query: State.COMMAND,
    StreamStarted: State.STREAMING,
    Terminate: State.CLOSED,
}

# 9.1 and 9.2: the standby reports while WAL streams.
REPORTING: Final[Transitions] = {
    **_BEGINNING,
    State.COMMAND: _ONE_COMMAND,
    State.STREAMING: {
        CopyData: State.STREAMING,
        StreamFailed: State.CLOSED,
        ShutdownBegun: State.STOPPING,
        Terminate: State.CLOSED,
    },
    State.STOPPING: {CopyData: State.STOPPING, StreamFailed: State.CLOSED, Terminate: State.CLOSED},
    State.CLOSED: {},
}

# The first walsender and 9.0: the standby can do nothing but go.
FIRST: Final[Transitions] = {
    **_BEGINNING,
    State.COMMAND: _ONE_COMMAND,
    State.STREAMING: {
        StreamFailed: State.CLOSED,
        ShutdownBegun: State.STOPPING,
        Terminate: State.CLOSED,
    },
    State.STOPPING: {StreamFailed: State.CLOSED, Terminate: State.CLOSED},
    State.CLOSED: {},
}


def transitions_of(dialect: Dialect) -> Transitions:
    """Return the table of *dialect*."""
    if isinstance(dialect, ModernDialect):
        return MODERN
    return REPORTING if dialect.copy_both else FIRST


class IllegalTransition(WalsenderError, sqlstate="08P01", severity="FATAL"):
    """A message or event that the state does not know."""


def next_state(transitions: Transitions, state: State, received: type) -> State:
    """
    Return the state that follows when *received* arrives in *state*.

    :raises IllegalTransition: the table has no such entry.
    """
    try:
        return transitions[state][received]
    except KeyError:
        raise IllegalTransition(f"{received.__name__} in state {state.name}") from None
