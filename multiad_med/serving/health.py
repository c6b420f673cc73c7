"""A worker's health over HTTP, for monitoring: counts, and nothing about a patient."""

from __future__ import annotations

import errno
import json
import threading
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from multiad_med.serving.failures import failure_of
from multiad_med.serving.service_errors import ServingError

__all__ = ["HealthServer"]

Check = Callable[[], tuple[bool, Mapping[str, Any]]]


class _Handler(BaseHTTPRequestHandler):
    """Answer GET by the check of the path."""

    server: _Server
    server_version, sys_version = "multiad", ""
    timeout = 10  # seconds that a client may keep a thread without sending

    def do_GET(self) -> None:
        check = self.server.checks.get(self.path.partition("?")[0])
        if check is None:
            self._answer(HTTPStatus.NOT_FOUND, {"paths": sorted(self.server.checks)})
            return
        try:
            well, about = check()
        except Exception as error:  # a ledger that cannot be read, a full disk
            well, about = False, {"reason": failure_of(error).told}
        status = HTTPStatus.OK if well else HTTPStatus.SERVICE_UNAVAILABLE
        self._answer(status, {"status": "ok" if well else "unavailable", **about})

    def _answer(self, status: HTTPStatus, content: Mapping[str, Any]) -> None:
        body = json.dumps(content).encode() + b"\n"
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Say nothing: a request is no event."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    checks: Mapping[str, Check]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a client that leaves in the middle is no event."""


class HealthServer:
    """Answer ``GET`` on a few paths from a thread, until it is closed.

    Each answer is JSON with ``status``: 200 and ``ok``, or 503 and ``unavailable``. An unknown path is
    404. Nothing of a request is used but its path.

    Args:
        checks: by path; each returns whether all is well, and what else to answer.
        host: address to listen on.
        port: to listen on; 0 takes any that is free.

    Raises:
        ServingError: when the port is in use, or cannot be had.

    Attributes:
        port: that it listens on.
    """

    def __init__(
        self, checks: Mapping[str, Check], *, host: str = "127.0.0.1", port: int = 8050
    ) -> None:
        try:
            self._server = _Server((host, port), _Handler)
        except (OSError, OverflowError) as error:
            in_use = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
            reason = "it is in use, perhaps by another worker" if in_use else str(error)
            raise ServingError(
                f"The health endpoint cannot listen on port {port} of {host}: {reason}. Choose another "
                "with --port; 0 takes any that is free."
            ) from error
        self._server.checks = checks
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.2}, daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
