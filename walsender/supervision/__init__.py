"""What the program tells the machine that it runs on: systemd, and whoever lists processes."""

from __future__ import annotations

from .notify import ServiceManager
from .process_title import ProcessTitle
from .supervisor import Supervisor

__all__ = ["ProcessTitle", "ServiceManager", "Supervisor"]
