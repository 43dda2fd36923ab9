"""
The metrics, as a collector of ``prometheus_client``.

Where postgres_exporter has a name for a thing, that name and its labels: those of its collectors
``stat_replication``, ``replication_slots`` and ``stat_wal_receiver``, and the names that those of slots had
before its version 0.20.  Everything else is ``walsender_…``.  What is not known has no sample.

Source: postgres_exporter, collector/pg_stat_replication.go, collector/pg_replication_slots.go,
collector/pg_stat_walreceiver.go.
"""

from __future__ import annotations

import platform
import time
from typing import TYPE_CHECKING, Any, Final, TypeVar

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

from walsender.timings import BUCKETS

from .picture import TWISTED_VERSION, VERSION

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from prometheus_client.metrics_core import Metric

    from walsender.console.snapshot import Snapshot
    from walsender.sender.slot_table import WalSenderEntry
    from walsender.timings import Stopwatch, Timings
    from walsender.upstream import ReceiverStatus

    from .picture import Picture

# A thread that computes keeps the interpreter for 5 ms at a time, which whoever streams WAL would wait for.
# So it rests in between, for as short as the kernel can; a sample costs some 20 µs.
_REST: Final = 0.00001  # seconds
_REST_EVERY: Final = 16  # samples

_Item = TypeVar("_Item")


def _resting(items: Iterable[_Item]) -> Iterator[_Item]:
    """Yield *items*, and let other threads run now and then."""
    for number, item in enumerate(items):
        if number % _REST_EVERY == 0:
            time.sleep(_REST)
        yield item


class _Samples(list[Any]):
    """Samples that let other threads run while they are put into words."""

    def __iter__(self) -> Iterator[Any]:
        return _resting(super().__iter__())


class PictureCollector:
    """Gives the metrics of one moment."""

    def __init__(self, picture: Picture) -> None:
        self._picture = picture

    def collect(self) -> Iterator[Metric]:
        """See `prometheus_client.registry.Collector`."""
        for family in self._families():
            if family.samples:
                family.samples = _Samples(family.samples)
                yield family

    def _families(self) -> Iterator[Metric]:
        picture = self._picture
        yield _gauge(
            "walsender_build_info",
            "Versions of the program and what it runs on.",
            {"version": VERSION, "python": platform.python_version(), "twisted": TWISTED_VERSION},
            1,
        )
        yield _gauge("walsender_start_time_seconds", "When it was started.", {}, picture.started_at)
        yield _gauge(
            "walsender_healthy", "Whether WAL is served, as /health says.", {}, picture.health.is_good
        )
        yield _gauge(
            "walsender_ready",
            "Whether a standby may be sent here, as /readiness says.",
            {},
            picture.readiness.is_good,
        )
        yield _gauge("walsender_connections", "Walsenders in use.", {}, len(picture.walsenders))
        yield _gauge("walsender_max_wal_senders", "How many there may be.", {}, picture.max_wal_senders)
        sent = CounterMetricFamily("walsender_sent_bytes", "WAL sent to all clients together.")
        sent.add_metric((), picture.sent_bytes)
        yield sent
        if picture.certificate_end is not None:
            yield _gauge(
                "walsender_ssl_certificate_not_after_seconds",
                "Until when the certificate is good.",
                {},
                picture.certificate_end,
            )
        yield from _disk(picture.timings, is_relay=picture.is_relay)
        if picture.is_relay:
            yield from _upstream(picture.receiver)
            if (outage := picture.health.not_receiving) is not None:
                yield _gauge(
                    "walsender_upstream_lost_time_seconds",
                    "Since when nothing is received.",
                    {},
                    outage.since,
                )
        if picture.server is not None:
            yield from _wal(picture.server)
            yield from _stat_replication(picture.server)
            yield from _standbys(picture.server)
            yield from _slots(picture.server)


def _gauge(name: str, help_text: str, labels: dict[str, str], value: float) -> GaugeMetricFamily:
    """Return a family with one sample."""
    family = GaugeMetricFamily(name, help_text, labels=tuple(labels))
    family.add_metric(tuple(labels.values()), float(value))
    return family


def _disk(timings: Timings, *, is_relay: bool) -> Iterator[Metric]:
    yield _gauge("walsender_disk_silent_seconds", "How long the disk has not answered.", {}, timings.stuck())
    yield _histogram("walsender_fsync_seconds", "How long it takes to flush a file with WAL.", timings.flush)
    if is_relay:
        yield _histogram(
            "walsender_receive_seconds",
            "How long it takes from when WAL has come until it is durable.",
            timings.receive,
        )


def _histogram(name: str, help_text: str, stopwatch: Stopwatch) -> HistogramMetricFamily:
    counts, total = stopwatch.histogram()
    bounds = [*map(str, BUCKETS), "+Inf"]
    return HistogramMetricFamily(
        name, help_text, buckets=list(zip(bounds, counts, strict=True)), sum_value=total
    )


def _upstream(receiver: ReceiverStatus | None) -> Iterator[Metric]:
    yield _gauge("walsender_upstream_streaming", "Whether WAL is received.", {}, receiver is not None)
    if receiver is None:
        return
    yield _gauge(
        "walsender_upstream_lag_bytes",
        "The upstream's WAL that is not durable here.",
        {},
        receiver.lag,
    )
    labels = {
        "upstream_host": receiver.upstream_address.get("host", ""),
        "slot_name": receiver.slot_name,
        "status": "streaming",
    }
    for column, help_text, value in (
        ("receive_start_lsn", "Where the stream began.", receiver.start_lsn),
        ("receive_start_tli", "Its timeline then.", receiver.timeline),
        ("flushed_lsn", "Up to where it is durable.", receiver.flushed_lsn),
        ("received_tli", "Its timeline.", receiver.timeline),
        ("last_msg_send_time", "When the upstream sent its last message.", receiver.sent_at),
        ("last_msg_receipt_time", "When that came.", receiver.received_at),
        ("latest_end_lsn", "Where the upstream's WAL ended then.", receiver.upstream_end),
        ("latest_end_time", "When that was.", receiver.sent_at),
    ):
        if value is not None:
            yield _gauge(f"pg_stat_wal_receiver_{column}", help_text, labels, value)


def _wal(server: Snapshot) -> Iterator[Metric]:
    yield _gauge(
        "walsender_wal_info",
        "Whose WAL it is.",
        {"system_identifier": str(server.system_identifier)},
        1,
    )
    yield _gauge("walsender_timeline", "The current timeline.", {}, server.timeline)
    yield _gauge("walsender_flush_lsn_bytes", "Up to where standbys may have WAL.", {}, server.flush_position)
    yield _gauge("walsender_segment_size_bytes", "Size of a segment.", {}, server.geometry.segment_size)
    most = next((int(one.setting) for one in server.settings if one.name == "max_wal_directory_size"), -1)
    if most >= 0:
        yield _gauge("walsender_max_wal_directory_size_bytes", "How much WAL there may be.", {}, most << 20)
    directory = server.directory
    if directory is None:
        return
    earliest = directory.earliest(server.timeline, server.flush_position)
    yield _gauge("walsender_earliest_lsn_bytes", "From where on WAL is held without a gap.", {}, earliest)
    held = GaugeMetricFamily("walsender_segments", "Segments that are held.", labels=("timeline",))
    missing = GaugeMetricFamily("walsender_segments_missing", "Segments in gaps.", labels=("timeline",))
    for timeline in directory.timelines:
        held.add_metric((str(timeline),), sum(map(len, directory.ranges[timeline])))
        missing.add_metric((str(timeline),), sum(map(len, directory.gaps(timeline))))
    yield from (held, missing)


def client_address(entry: WalSenderEntry) -> str:
    """Return a client's address; empty for a unix socket."""
    return entry.address if entry.port >= 0 else ""


def _stat_replication(server: Snapshot) -> Iterator[Metric]:
    labels = ("application_name", "client_addr", "state", "slot_name", "pid")
    slots = {slot.owner: slot.name for slot in server.slots}
    end = GaugeMetricFamily(
        "pg_stat_replication_pg_current_wal_lsn_bytes", "WAL position in bytes.", labels=labels
    )
    lag = GaugeMetricFamily(
        "pg_stat_replication_pg_wal_lsn_diff", "WAL that the standby has not replayed.", labels=labels
    )
    for entry in _resting(server.walsenders):
        slot_name = slots.get(entry.process_id, "")
        names = (entry.application_name, client_address(entry), entry.state, slot_name, str(entry.process_id))
        end.add_metric(names, server.flush_position)
        if entry.replay_lsn:
            lag.add_metric(names, server.flush_position - server.geometry.position(entry.replay_lsn))
    yield from (end, lag)


def _standbys(server: Snapshot) -> Iterator[Metric]:
    labels = ("application_name", "client_addr", "pid")
    state = GaugeMetricFamily(
        "walsender_standby_state", "1 for the state that it is in.", labels=(*labels, "state")
    )
    reached = GaugeMetricFamily(
        "walsender_standby_lsn_bytes", "Positions of each standby.", labels=(*labels, "position")
    )
    behind = GaugeMetricFamily(
        "walsender_standby_lag_bytes", "What it is behind the flush position.", labels=(*labels, "position")
    )
    late = GaugeMetricFamily(
        "walsender_standby_lag_seconds",
        "How old WAL was when the standby reported it; none while it is idle.",
        labels=(*labels, "position"),
    )
    reply = GaugeMetricFamily(
        "walsender_standby_reply_time_seconds", "The standby's clock in its last report.", labels=labels
    )
    sent = CounterMetricFamily("walsender_standby_sent_bytes", "WAL sent to it.", labels=labels)
    for entry in _resting(server.walsenders):
        names = (entry.application_name, client_address(entry), str(entry.process_id))
        state.add_metric((*names, entry.state), 1)
        sent.add_metric(names, entry.sent_bytes)
        if entry.reply_time is not None:
            reply.add_metric(names, entry.reply_time)
        for name, lsn, lag in (
            ("sent", entry.sent_lsn, None),
            ("write", entry.write_lsn, entry.write_lag),
            ("flush", entry.flush_lsn, entry.flush_lag),
            ("replay", entry.replay_lsn, entry.replay_lag),
        ):
            if lsn:
                position = server.geometry.position(lsn)
                reached.add_metric((*names, name), position)
                behind.add_metric((*names, name), server.flush_position - position)
            if lag is not None:
                late.add_metric((*names, name), lag)
    yield from (state, reached, behind, late, reply, sent)


def _slots(server: Snapshot) -> Iterator[Metric]:
    old, typed = ("slot_name", "database"), ("slot_name", "slot_type")
    active = GaugeMetricFamily("pg_replication_slots_active", "Whether it is in use.", labels=old)
    held_back = GaugeMetricFamily(
        "pg_replication_slots_pg_wal_lsn_diff", "WAL that is kept for it, in bytes.", labels=old
    )
    for slot in server.slots:
        names = (slot.name, "")
        active.add_metric(names, slot.owner is not None)
        if slot.restart_lsn:
            held_back.add_metric(names, server.flush_position - server.geometry.position(slot.restart_lsn))
    yield from (active, held_back)
    for prefix in ("pg_replication_slots", "pg_replication_slot"):
        is_active = GaugeMetricFamily(f"{prefix}_slot_is_active", "Whether it is in use.", labels=typed)
        current = GaugeMetricFamily(f"{prefix}_slot_current_wal_lsn", "WAL position in bytes.", labels=typed)
        safe = GaugeMetricFamily(
            f"{prefix}_safe_wal_size_bytes",
            "WAL that may still come before it loses what it needs.",
            labels=typed,
        )
        status = GaugeMetricFamily(
            f"{prefix}_wal_status", "1 for the status that it has.", labels=(*typed, "wal_status")
        )
        for slot in server.slots:
            names = (slot.name, "physical")
            is_active.add_metric(names, slot.owner is not None)
            current.add_metric(names, server.flush_position)
            wal_status, size = server.availability_of(slot)
            if size is not None:
                safe.add_metric(names, size)
            if wal_status is not None:
                status.add_metric((*names, wal_status), 1)
        yield from (is_active, current, safe, status)


def expose(picture: Picture, accept: str) -> tuple[str, bytes]:
    """
    Return the content type and the metrics, in the format that the header ``Accept`` asks for.

    It may take some milliseconds, and belongs in a thread.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(PictureCollector(picture))
    # Memory, processor time and descriptors, as every Prometheus client tells them.
    registry.register(ProcessCollector(registry=None))
    encode, content_type = choose_encoder(accept)
    return content_type, encode(registry)
