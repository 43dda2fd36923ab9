"""The metrics: which there are, what they say, and that Prometheus can read them."""

from __future__ import annotations

from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from status_helpers import END, RECEIVING, Watched
from twisted.trial.unittest import SynchronousTestCase

from walsender.status.metrics import PictureCollector, expose
from walsender.status.picture import look
from walsender.upstream import NotReceiving


class MetricsTests(SynchronousTestCase):
    """Values by name and labels."""

    def setUp(self) -> None:
        """Make a server."""
        self.watched = Watched()

    def value(self, name: str, **labels: str) -> float | None:
        """Return the value of a series as it is now; ``None``: there is none."""
        registry = CollectorRegistry()
        registry.register(PictureCollector(look(self.watched.view, 1000.0)))
        return registry.get_sample_value(name, labels)

    def check(self, expected: dict[str, float | None], **labels: str) -> None:
        """Compare the series of these labels."""
        self.assertEqual(expected, {name: self.value(name, **labels) for name in expected})

    def test_server(self) -> None:
        """What there is of it once."""
        self.check(
            {
                "walsender_healthy": 1,
                "walsender_ready": 1,
                "walsender_start_time_seconds": 800,
                "walsender_connections": 2,
                "walsender_max_wal_senders": 10,
                "walsender_sent_bytes_total": 0x380000,
                "walsender_timeline": 1,
                "walsender_flush_lsn_bytes": END,
                "walsender_earliest_lsn_bytes": 0x400000,
                "walsender_segment_size_bytes": 1 << 20,
                "walsender_upstream_streaming": None,
            }
        )
        self.check({"walsender_segments": 4, "walsender_segments_missing": 1}, timeline="1")
        self.assertEqual(1, self.value("walsender_wal_info", system_identifier="7300000000000000001"))

    def test_namesOfPostgresExporter(self) -> None:
        """A standby has the series of postgres_exporter, with its labels."""
        labels = {
            "application_name": 'st"1',
            "client_addr": "10.0.0.1",
            "slot_name": "used",
            "state": "streaming",
            "pid": "7",
        }
        self.check(
            {
                "pg_stat_replication_pg_current_wal_lsn_bytes": END,
                "pg_stat_replication_pg_wal_lsn_diff": END - 0x450000,
            },
            **labels,
        )

    def test_standby(self) -> None:
        """A standby has its positions, and how far and how long it is behind."""
        labels = {"application_name": 'st"1', "client_addr": "10.0.0.1", "pid": "7"}
        self.check(
            {"walsender_standby_sent_bytes_total": 0x380000, "walsender_standby_reply_time_seconds": 999},
            **labels,
        )
        self.check({"walsender_standby_state": 1}, **labels, state="streaming")
        for position, lsn, seconds in (
            ("sent", 0x480000, None),
            ("write", 0x470000, 0.5),
            ("flush", 0x460000, 1.5),
            ("replay", 0x450000, 2.5),
        ):
            self.check(
                {
                    "walsender_standby_lsn_bytes": lsn,
                    "walsender_standby_lag_bytes": END - lsn,
                    "walsender_standby_lag_seconds": seconds,
                },
                **labels,
                position=position,
            )

    def test_unknownIsLeftOut(self) -> None:
        """Who has begun nothing has no positions; who came by a unix socket has no address."""
        labels = {"application_name": "pg_receivewal", "client_addr": "", "pid": "8"}
        self.check({"walsender_standby_state": 1}, **labels, state="startup")
        self.check({"walsender_standby_lsn_bytes": None}, **labels, position="sent")
        self.check({"walsender_standby_sent_bytes_total": 0}, **labels)
        exporter = {
            "application_name": "pg_receivewal",
            "client_addr": "",
            "slot_name": "",
            "state": "startup",
            "pid": "8",
        }
        self.check({"pg_stat_replication_pg_wal_lsn_diff": None}, **exporter)

    def test_sentBytesOutliveTheirConnection(self) -> None:
        """What was sent to those who have left, and in streams that are over, still counts."""
        self.watched.standby.reset()
        self.assertEqual(0x380000, self.value("walsender_sent_bytes_total"))
        self.watched.table.free(self.watched.standby)
        self.assertEqual(0x380000, self.value("walsender_sent_bytes_total"))

    def test_slots(self) -> None:
        """A slot says what it holds back and how it is, in each of postgres_exporter's forms."""
        for name, active, kept, safe in (
            ("used", 1, 0x200000, 0x300000),
            ("gone", 0, None, None),
            ("new", 0, None, None),
        ):
            self.check(
                {"pg_replication_slots_active": active, "pg_replication_slots_pg_wal_lsn_diff": kept},
                slot_name=name,
                database="",
            )
            for prefix in ("pg_replication_slot", "pg_replication_slots"):
                self.check(
                    {
                        f"{prefix}_slot_is_active": active,
                        f"{prefix}_slot_current_wal_lsn": END,
                        f"{prefix}_safe_wal_size_bytes": safe,
                    },
                    slot_name=name,
                    slot_type="physical",
                )
        for name, status, value in (("used", "extended", 1), ("gone", "lost", 1), ("new", "reserved", None)):
            for prefix in ("pg_replication_slot", "pg_replication_slots"):
                self.check(
                    {f"{prefix}_wal_status": value},
                    slot_name=name,
                    slot_type="physical",
                    wal_status=status,
                )

    def test_relay(self) -> None:
        """A relay says whether it receives, and if so from where and how far."""
        self.watched.upstream = "host=primary password=x"
        self.watched.outage = NotReceiving(990.5, "no route")
        self.check(
            {
                "walsender_upstream_streaming": 0,
                "walsender_upstream_lag_bytes": None,
                "walsender_upstream_lost_time_seconds": 990.5,
            }
        )
        self.watched.outage = None
        self.watched.receiver = RECEIVING
        self.check(
            {
                "walsender_upstream_streaming": 1,
                "walsender_upstream_lag_bytes": 0x100,
                "walsender_upstream_lost_time_seconds": None,
            }
        )
        self.check(
            {
                "pg_stat_wal_receiver_receive_start_tli": 1,
                "pg_stat_wal_receiver_flushed_lsn": END,
                "pg_stat_wal_receiver_receive_start_lsn": 0x200000,
                "pg_stat_wal_receiver_latest_end_lsn": END + 0x100,
                "pg_stat_wal_receiver_received_tli": 1,
                "pg_stat_wal_receiver_last_msg_receipt_time": 1001.5,
            },
            upstream_host="primary",
            slot_name="relay_slot",
            status="streaming",
        )

    def test_beforeThereIsWal(self) -> None:
        """A server without WAL says that, and nothing that would need some."""
        self.watched.source.ready = False
        nothing = {"walsender_healthy": 0.0, "walsender_ready": 0.0, "walsender_flush_lsn_bytes": None}
        self.check({**nothing, "walsender_connections": 0})


class ExpositionTests(SynchronousTestCase):
    """The text."""

    def test_parses(self) -> None:
        """Prometheus' own parsers read both formats, and no series is there twice."""
        watched = Watched()
        watched.upstream, watched.receiver = "host=primary", RECEIVING
        twin = watched.standby.__class__(9, "10.0.0.1", 4001, 1.0, "repl", 'st"1', "streaming")
        watched.table.reserve(twin)
        picture = look(watched.view, 1000.0)
        for accept, kind, parse in (
            ("", "text/plain", parse_text),
            ("application/openmetrics-text;version=1.0.0", "application/openmetrics-text", parse_openmetrics),
        ):
            content_type, text = expose(picture, accept)
            self.assertEqual(kind, content_type.partition(";")[0])
            found = [
                (sample.name, tuple(sorted(sample.labels.items())))
                for family in parse(text.decode())
                for sample in family.samples
            ]
            self.assertEqual(len(found), len(set(found)))
            names = {name for name, _ in found}
            self.assertLess(
                {"walsender_build_info", "walsender_standby_lag_bytes", "process_open_fds"}, names
            )

    def test_nothingSecret(self) -> None:
        """No connection string is in it."""
        watched = Watched()
        watched.upstream, watched.receiver = "host=primary password=geheim", RECEIVING
        self.assertNotIn(b"geheim", expose(look(watched.view, 1000.0), "")[1])
