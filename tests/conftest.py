"""Shared fixtures: small volumes with known geometry, small networks, real data where present."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:  # before torch is imported: workers share the processors
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

from multiad_med.testing import make_brains
from multiad_med.testing.cohorts import write_fake_model

REAL_DATA = Path(os.environ.get("MULTIAD_DATA", Path(__file__).parents[2] / "shared" / "data"))


def pytest_configure(config: pytest.Config) -> None:
    """Let MONAI Label's environment warn: its packages are old, and are not ours to mend."""
    if find_spec("monailabel"):
        config.addinivalue_line("filterwarnings", "default")


@pytest.fixture
def real_data() -> Path:
    """Folder of real images, skipped where it is absent (set MULTIAD_DATA to its path)."""
    if not REAL_DATA.is_dir():
        pytest.skip(f"real data not found at {REAL_DATA}; set MULTIAD_DATA to their folder")
    return REAL_DATA


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    """The folder of :func:`make_brains`."""
    return make_brains(tmp_path)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained model of the brain bundle."""
    return write_fake_model("multiad_brain_mri", tmp_path_factory.mktemp("model") / "model.pt")


@pytest.fixture(scope="session", autouse=True)
def _temporary_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Start with an empty folder for temporary files: an earlier run of the tests may have left some."""
    folder = tmp_path_factory.mktemp("temporary")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(folder))
        yield


@pytest.fixture(scope="session", autouse=True)
def _exports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep networks that were converted for other run-times out of the home folder."""
    folder = tmp_path_factory.mktemp("exports")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("multiad_med.inference.exports.exports_dir", lambda: folder)
        yield
