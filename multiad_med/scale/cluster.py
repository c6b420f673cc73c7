"""Ray, started on this machine or found at an address."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from multiad_med.utils.errors import InputError, missing_package
from multiad_med.utils.processes import processors
from multiad_med.utils.quick_start import import_monai_quickly

__all__ = ["LOCAL", "Workers", "ray_cluster", "workers_for"]

LOCAL, AUTO = "local", "auto"
_PATIENCE = 5.0  # seconds for a connection

_ENVIRONMENT = {
    # Studies and their paths are nobody else's business; Ray would report its use.
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # its errors are Python's too
    # Ray ends a worker after one idle second, and the next one imports torch and MONAI again.
    "RAY_idle_worker_killing_time_threshold_ms": "600000",
}

_LOCAL_ENVIRONMENT = {
    # Notes of every task for a dashboard, which is not there, would be kept for good.
    "RAY_task_events_report_interval_ms": "0",
    # Workers compute in threads, whose heaps glibc would return to the system after every study.
    "MALLOC_ARENA_MAX": "1",
}

# Run by each worker as it starts: all import MONAI, on the same cores.
_QUICKLY = f"{import_monai_quickly.__module__}.{import_monai_quickly.__name__}"

_ADVICE = (
    "Start a cluster's head with `ray start --head` and give HOST:PORT, by default port 6379; on a node "
    "of a cluster give auto; to use this machine alone give local."
)


@dataclass(frozen=True)
class Workers:
    """What the cluster gives to the network.

    Attributes:
        count: how many actors hold the network.
        gpus: GPUs of each: 1, or 0 where they use a processor core.
    """

    count: int
    gpus: int

    @property
    def device(self) -> str:
        """Where the network is, for torch."""
        return "cuda" if self.gpus else "cpu"


@contextmanager
def ray_cluster(address: str) -> Iterator[None]:
    """Use Ray inside the context. A program that is connected already uses that connection.

    Args:
        address: ``local`` for this machine, ``auto`` for the cluster that this machine belongs to, or
            ``HOST:PORT`` of a cluster's head.

    Raises:
        MissingPackageError: without the extra ``scale``.
        InputError: when nothing answers at the address.
    """
    environment = _ENVIRONMENT | (_LOCAL_ENVIRONMENT if address == LOCAL else _authentication())
    with _given(environment), _connected(address):
        yield


@contextmanager
def _given(environment: Mapping[str, str]) -> Iterator[None]:
    """Have variables of the environment inside the context; those that are set stay as they are.

    What was meant for one cluster would else be handed to the processes of the next.
    """
    new = {name: value for name, value in environment.items() if name not in os.environ}
    os.environ.update(new)
    try:
        yield
    finally:
        for name in new:
            os.environ.pop(name, None)


@contextmanager
def _connected(address: str) -> Iterator[None]:
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise missing_package("ray") from error
    if ray.is_initialized():
        yield
        return
    options: dict[str, Any] = {
        "log_to_driver": False,
        "logging_level": logging.ERROR,
        "runtime_env": {"worker_process_setup_hook": _QUICKLY},
    }
    if address == LOCAL:
        options |= {"num_cpus": processors(), "include_dashboard": False}
    else:
        address = _answering(address)
    try:
        ray.init(address=address, **options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise InputError(f"--ray {address}: no Ray cluster answers: {error} {_ADVICE}") from error
    try:
        yield
    finally:
        ray.shutdown()


def _authentication() -> dict[str, str]:
    """Return that Ray shall show its token, where this user has one; a cluster may ignore it.

    Ray writes one when it starts on a machine. From then on a cluster of `ray start` asks for it, but a
    program that connects does not show it by itself.
    """
    has_token = (Path.home() / ".ray" / "auth_token").is_file()
    return {"RAY_AUTH_MODE": "token"} if has_token else {}


def _answering(address: str) -> str:
    """Return the address of a cluster's head, once something listens there.

    Ray itself waits a minute, and then ends the process.
    """
    given = os.environ.get("RAY_ADDRESS", AUTO) if address == AUTO else address
    if given == AUTO:
        return given
    host, _, port = given.rpartition(":")
    if "://" in given or not host or not port.isdecimal():
        raise InputError(f"--ray {given}: this is no address of a cluster's head. {_ADVICE}")
    try:
        socket.create_connection((host, int(port)), timeout=_PATIENCE).close()
    except OSError as error:
        raise InputError(f"--ray {given}: nothing answers there ({error}). {_ADVICE}") from error
    return given


def workers_for(device: str, actors: int | None = None) -> Workers:
    """Return how many actors the connected cluster has room for: one per GPU, else one per core.

    Args:
        device: ``auto``, ``cpu`` or ``cuda``.
        actors: how many there shall be, if not these.

    Raises:
        InputError: on another device, or ``cuda`` in a cluster without GPUs.
    """
    import ray

    if device not in ("auto", "cpu", "cuda"):
        raise InputError(
            f"--device {device}: Ray gives out the GPUs itself. Choose auto, cpu or cuda."
        )
    resources = ray.cluster_resources()
    gpus = 0 if device == "cpu" else int(resources.get("GPU", 0))
    if gpus:
        return Workers(actors or gpus, 1)
    if device == "cuda":
        raise InputError("--device cuda: the Ray cluster has no GPU.")
    return Workers(actors or max(1, int(resources.get("CPU", 1))), 0)
