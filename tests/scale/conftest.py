"""Ray on this machine, once for a module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from multiad_med.scale.cluster import LOCAL, ray_cluster


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    """Ray in local mode, ended with the module."""
    pytest.importorskip("ray", reason="needs the extra scale")
    with ray_cluster(LOCAL):
        yield
