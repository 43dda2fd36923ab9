"""
Replication slots: what a client was promised, kept over its connection and over a crash.

(Not to be mixed up with the slot table, which is the list of walsenders that are connected.)
"""

from .files import REAL_SLOT_FILES, RealSlotFiles, SlotFiles
from .slot import Availability, HeldSlot, ReplicationSlot
from .slots import ReplicationSlots
from .state import MAX_NAME_LENGTH, WAL_REMOVED, SlotState, check_name, decode_state, encode_state
from .storage import SLOTS_DIRECTORY, SlotStorage, StoredSlots

__all__ = [
    "MAX_NAME_LENGTH",
    "REAL_SLOT_FILES",
    "SLOTS_DIRECTORY",
    "WAL_REMOVED",
    "Availability",
    "HeldSlot",
    "RealSlotFiles",
    "ReplicationSlot",
    "ReplicationSlots",
    "SlotFiles",
    "SlotState",
    "SlotStorage",
    "StoredSlots",
    "check_name",
    "decode_state",
    "encode_state",
]
