"""Every setting has a test that shows what it does."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Final

from twisted.trial.unittest import SynchronousTestCase

from walsender.settings import SETTINGS

TESTS: Final = Path(__file__).parents[2]

#: Shows that what is set arrives where it is to have its effect, at the start and with a reload.
DIRECTORY: Final = "test_service_settings.test_directory"
RELAY: Final = "test_service_settings.test_relay"

#: What shows the effect; where that is a test of the part that has it, also one that the setting gets there.
EFFECTS: Final[dict[str, tuple[str, ...]]] = {
    "wal_directory": ("test_embedding.test_sampleApplication",),
    "listen": ("test_twistd_start.test_portInUse",),
    "http": ("test_status.test_drain",),
    "cluster_name": ("test_systemd.test_foreground",),
    "update_process_title": ("test_supervision.test_title", DIRECTORY),
    "primary_conninfo": ("test_relay.test_relayFollowsAPromotion",),
    "primary_slot_name": ("test_retention.test_sizeLimit",),
    "create_primary_slot": ("test_retention.test_sizeLimit",),
    "wal_receiver_timeout": ("test_receiver.test_anUpstreamThatDoesNotAnswerACommandIsLeft", RELAY),
    "wal_receiver_status_interval": ("test_receiver.test_withoutAnIntervalNothingIsHeldBackForGood", RELAY),
    "wal_retrieve_retry_interval": ("test_relay_crashes.test_lostUpstream", RELAY),
    "restore_command": ("test_fetched_wal.test_restoredForADirectory",),
    "hot_standby_feedback": ("test_receiver.test_feedbackGoesToTheUpstreamAndIsTakenBackOnce", RELAY),
    "wal_keep_size": ("test_retention.test_lostSlot",),
    "max_slot_wal_keep_size": ("test_retention.test_lostSlot",),
    "max_wal_directory_size": ("test_retention.test_sizeLimit",),
    "max_wal_senders": ("test_modern_refusals.test_tooMany", DIRECTORY),
    "max_replication_slots": ("test_slot_commands.test_createErrors", DIRECTORY),
    "wal_sender_timeout": ("test_raw_dialects.test_silence", DIRECTORY),
    "wal_sender_shutdown_timeout": ("test_twistd_signals.test_drainIsBounded",),
    "wal_sender_delay": ("test_directory_source.test_changedDelay", DIRECTORY),
    "authentication_timeout": ("test_tls.test_silence",),
    "hba_file": ("test_access_files.test_rules",),
    "ident_file": ("test_access.test_files",),
    "auth_file": ("test_access_files.test_rules",),
    "ssl": ("test_tls.test_versions",),
    "ssl_cert_file": ("test_tls.test_reload",),
    "ssl_key_file": ("test_tls.test_reload",),
    "ssl_ca_file": ("test_tls.test_oddCertificate",),
    "ssl_crl_file": ("test_tls.test_oddCertificate",),
    "ssl_min_protocol_version": ("test_tls.test_versions",),
    "state_directory": ("test_twistd_start.test_stateDirectoryLocked",),
    "fsync": ("test_directory_files.test_off", DIRECTORY),
    "verify_wal": ("test_verify_wal.test_bad",),
    "protocol_dialect": ("test_twistd_signals.test_terminationInTheFirstDialect",),
    "sendfile": ("test_kernel_consumer.test_onlyBareSockets", DIRECTORY),
    "cold_read_rate": ("test_giving_way.test_noRate", DIRECTORY),
    "inotify": ("test_notifier.test_without_inotify", DIRECTORY),
    "log_destination": ("test_twistd_log.test_forms",),
    "log_line_prefix": ("test_twistd_log.test_forms",),
    "log_min_messages": ("test_twistd_log.test_forms",),
    "log_min_error_statement": ("test_twistd_log.test_statements",),
    "log_connections": ("test_connection_log.test_eachWord", DIRECTORY),
    "log_disconnections": ("test_connection_log.test_disconnectionAlone", DIRECTORY),
    "log_replication_commands": ("test_connection_log.test_command", DIRECTORY),
}


class EffectTests(SynchronousTestCase):
    """The list against the table, and against the tests."""

    def test_everySetting(self) -> None:
        """The list has each setting."""
        self.assertEqual([setting.name for setting in SETTINGS], list(EFFECTS))

    def test_everyTest(self) -> None:
        """What the list names is there; and the file of the last one, which sets it, names the setting."""
        for name, tests in EFFECTS.items():
            text = ""
            spelled = {name, f"--{name.replace('_', '-')}"}
            for test in tests:
                file, _, function = test.partition(".")
                found = list(TESTS.rglob(f"{file}.py"))
                self.assertEqual(1, len(found), test)
                text = found[0].read_text()
                defined = {
                    node.name
                    for node in ast.walk(ast.parse(text))
                    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
                }
                self.assertIn(function, defined, name)
            self.assertTrue(any(one in text for one in spelled), f"{tests[-1]} does not set {name}")
