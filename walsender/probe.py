"""``python -m walsender probe``: asks a running server how it is, for containers and scripts."""

from __future__ import annotations

import http.client
import sys
import urllib.error
import urllib.request
from typing import Final

DEFAULT_URL: Final = "http://127.0.0.1:9187/health"

_TIMEOUT_S: Final = 5.0


def run(url: str) -> int:
    """
    Ask, print the answer, and return the exit status.

    :param url: of ``/health``, ``/liveness`` or ``/readiness``.
    :returns: 0: it is well; 1: it is not, or does not answer.
    """
    # Nobody is in between: who is asked is this machine, whatever proxies the environment names.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=_TIMEOUT_S) as answer:
            print(answer.read().decode(errors="replace").strip())  # noqa: T201
            return 0
    except urllib.error.HTTPError as error:
        print(error.read().decode(errors="replace").strip())  # noqa: T201
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", error)
        print(f"walsender probe: {url}: {reason}", file=sys.stderr)  # noqa: T201
    return 1
