"""The two contracts inside the sender: where slices go, and who is told about a stream."""

from __future__ import annotations

from zope.interface import Interface


class IWalConsumer(Interface):
    """
    Takes the bytes of one stream to one client, in the order in which they are given.

    From `start` to the result of `finish` *every* byte to the client goes through here.
    """

    def start(producer: object) -> None:
        """
        Take over the connection for *producer* (`twisted.internet.interfaces.IPushProducer`).

        The consumer calls ``resumeProducing`` when the first byte may come.  It
        may call ``pauseProducing`` from inside `send` and `write`.
        """

    def send(prefix: bytes, piece: object) -> None:
        """
        Send *prefix*, then the bytes of *piece* (`walsender.source.WalSlice`).

        Not while the producer is paused.
        """

    def write(data: bytes) -> None:
        """Send *data* after all that has been given before; small, and possible at any time."""

    def finish() -> object:
        """
        Give the connection back; a Deferred fires when the transport may be written to again.

        Nothing that was given before is lost; if the connection is, it never fires.
        """

    def close() -> None:
        """
        Let go of everything at once: the connection is lost or about to be aborted.

        Harmless when repeated, and after `finish`.
        """


class IStreamOwner(Interface):
    """What a producer tells the conversation that it belongs to."""

    def wal_sent(position: int) -> None:
        """Everything before *position* has been handed to the consumer."""

    def caught_up() -> None:
        """Nothing is left to send for now."""

    def timeline_ended(end: object) -> None:
        """All of a historic timeline is sent, up to its `walsender.source.TimelineEnd`."""

    def stream_failed(error: object) -> None:
        """
        The next WAL cannot be read: a `walsender.errors.WalsenderError`.

        The client is at a message boundary and can be told.
        """

    def stream_broken(error: object) -> None:
        """As `stream_failed`, but in the middle of a message: the connection must be aborted."""
