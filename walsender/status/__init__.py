"""What the server says of itself over HTTP: metrics for Prometheus, health for probes, JSON for scripts."""

from __future__ import annotations

from .site import StatusSite, make_site

__all__ = ["StatusSite", "make_site"]
