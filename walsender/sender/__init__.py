"""One standby's conversation and position: protocol, states, producer, consumers, slot table, factory."""

from walsender.sender.connection_log import Logged
from walsender.sender.factory import WalSenderFactory
from walsender.sender.interfaces import IServerReactor, IServerTls
from walsender.sender.protocol import WalSender
from walsender.sender.slot_table import SlotTable, WalSenderEntry

__all__ = [
    "IServerReactor",
    "IServerTls",
    "Logged",
    "SlotTable",
    "WalSender",
    "WalSenderEntry",
    "WalSenderFactory",
]
