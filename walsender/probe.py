"""``python -m walsender probe``: asks a running server how it is, for containers and scripts."""

from __future__ import annotations

import http.client
import json
import sys
import urllib.error
import urllib.parse
import urllib.request
from typing import Final

DEFAULT_URL: Final = "http://127.0.0.1:9187/health"

_TIMEOUT_S: Final = 5.0


def run(url: str) -> int:
    """
    Ask, print the answer, and return the exit status.

    :param url: of ``/health``, ``/liveness`` or ``/readiness``; without a path of ``/health``, and
        without a scheme of HTTP.
    :returns: 0: it is well; 1: it is not, or does not answer.
    """
    url = _completed(url)
    # Nobody is in between: who is asked is this machine, whatever proxies the environment names.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=_TIMEOUT_S) as answer:
            _print_line(answer.read())
            return 0
    except urllib.error.HTTPError as error:
        _print_line(error.read())
    except (OSError, http.client.HTTPException, ValueError) as error:
        print(f"walsender probe: {url}: {_reason(error)}", file=sys.stderr)  # noqa: T201
    return 1


def _completed(url: str) -> str:
    whole = url if "://" in url else f"http://{url}"
    try:
        parts = urllib.parse.urlsplit(whole)
    except ValueError:
        return whole  # which is complained of when it is opened
    return parts._replace(path="/health").geturl() if parts.path in {"", "/"} else whole


def _print_line(content: bytes) -> None:
    """Print a probe's answer in one line, and of a page that is none the first one."""
    text = content.decode(errors="replace").strip()
    try:
        line = json.dumps(json.loads(text))
    except ValueError:
        line = text.partition("\n")[0].rstrip()
    print(line)  # noqa: T201


def _reason(error: Exception) -> str:
    reason = getattr(error, "reason", error)
    text = str(getattr(reason, "strerror", None) or reason)
    if isinstance(reason, ConnectionRefusedError):
        text += "; is the server started with --http?"
    return text
