"""The health endpoint answers on loopback, tells counts, and says when its port is taken."""

from __future__ import annotations

import json
import re
import socket
import sqlite3
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import NoReturn

import pytest

from multiad_med.serving import HealthServer, ServingError

CHECKS = {
    "/health": lambda: (True, {"studies": {"done": 3}}),
    "/ready": lambda: (False, {"source": False}),
    "/broken": lambda: 1 / 0,
    "/locked": lambda: _raise(sqlite3.OperationalError("database is locked")),
}


def _raise(error: Exception) -> NoReturn:
    raise error


@pytest.fixture
def server() -> Iterator[HealthServer]:
    server = HealthServer(CHECKS, port=0)
    yield server
    server.close()


def get(server: HealthServer, path: str, method: str = "GET") -> tuple[int, object]:
    request = urllib.request.Request(f"http://127.0.0.1:{server.port}{path}", method=method)
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        text = error.read()
        return error.code, json.loads(text) if text.startswith(b"{") else None


def test_each_path_has_its_check(server: HealthServer) -> None:
    assert get(server, "/health") == (200, {"status": "ok", "studies": {"done": 3}})
    assert get(server, "/health?verbose=1")[0] == 200
    assert get(server, "/ready") == (503, {"status": "unavailable", "source": False})
    status, about = get(server, "/broken")
    assert (status, about["status"]) == (503, "unavailable")
    assert about["reason"].startswith("A fault of the program")
    status, about = get(server, "/locked")
    assert (status, about["status"]) == (503, "unavailable")
    assert re.search("ledger.*database is locked", about["reason"])
    for path in ("/", "/../../etc/passwd", "/health/../ready"):
        assert get(server, path) == (404, {"paths": ["/broken", "/health", "/locked", "/ready"]})
    assert get(server, "/health", method="POST")[0] == 501


def test_it_listens_on_loopback_only_unless_told_otherwise(server: HealthServer) -> None:
    assert server._server.server_address[0] == "127.0.0.1"


def test_a_client_that_leaves_in_the_middle_harms_nothing(server: HealthServer) -> None:
    for _ in range(3):
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(b"GET /heal")
    assert get(server, "/health")[0] == 200


def test_a_port_in_use_is_named(server: HealthServer) -> None:
    with pytest.raises(ServingError, match=rf"port {server.port} of 127\.0\.0\.1.*in use"):
        HealthServer(CHECKS, port=server.port)
    with pytest.raises(ServingError, match="port 70000"):
        HealthServer(CHECKS, port=70000)


def test_a_closed_server_frees_its_port() -> None:
    first = HealthServer(CHECKS, port=0)
    first.close()
    HealthServer(CHECKS, port=first.port).close()
