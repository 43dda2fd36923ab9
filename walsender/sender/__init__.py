"""One standby's conversation and position: protocol, states, producer, consumers, slot table, factory."""

from walsender.sender.factory import WalSenderFactory
from walsender.sender.interfaces import IServerReactor, IServerTls
from walsender.sender.protocol import WalSender
from walsender.sender.slot_table import SlotTable, WalSenderEntry

__all__ = ["IServerReactor", "IServerTls", "SlotTable", "WalSender", "WalSenderEntry", "WalSenderFactory"]
