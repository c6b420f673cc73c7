"""An app with small untrained models, its studies, and a client, in this process."""

from __future__ import annotations

import json
import os
import runpy
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from multiad_med.testing.brains import head, write_nifti
from multiad_med.testing.cohorts import FAST, write_fake_model
from tests.bundles.models import infer as infer_bundle

BRAIN, LIVER, RETINA = "multiad_brain_mri", "multiad_liver_ct", "multiad_retina_oct"
SHIMS = Path(__file__).with_name("shims")
REASON = "MONAI Label is not installed; it has an environment of its own (docs/label.md)"

# Of an environment that is not activated, where itkimage2segimage is.
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
SHIM = runpy.run_path(str(SHIMS / "sitecustomize.py"))  # kept, and with it what it declares


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip this folder's tests where there is no MONAI Label."""
    if find_spec("monailabel") is None:
        for item in items:
            if Path(__file__).parent in item.path.parents:
                item.add_marker(pytest.mark.skip(reason=REASON))


def make_app(folder: Path, *bundles: str, seed: int = 0) -> Path:
    """What ``multiad label init`` makes, with a small size in the bundles' configs."""
    from multiad_med.label.launch import init

    named = []
    for name in bundles:
        model = write_fake_model(name, folder.parent / f"{name}-{seed}.pt", seed=seed)
        named.append(f"{name}={model}")
    init(folder, named)
    for name in bundles:
        for config in ("inference.json", "train.json"):
            path = folder / "model" / name / "configs" / config
            path.write_text(json.dumps({**json.loads(path.read_text()), "size": FAST["size"]}))
    return folder


def make_heads(folder: Path) -> Path:
    """Four heads: two plain, one oblique, one with permuted and mirrored axes."""
    plain = np.diag([4.0, 4.0, 8.0, 1.0])
    oblique = nib.affines.from_matvec(
        nib.eulerangles.euler2mat(0.3, -0.2, 0.1) @ np.diag([4.0, 4.0, 8.0]), (-70, 12, 30)
    )
    permuted = np.array([[0, 0, -4.0, 60], [-4.0, 0, 0, 70], [0, 8.0, 0, -30], [0, 0, 0, 1]])
    volumes = [head(np.random.default_rng(seed), (32, 36, 8)) for seed in range(4)]
    write_nifti(folder / "a.nii.gz", volumes[0], plain)
    write_nifti(folder / "b.nii.gz", volumes[1], plain)
    write_nifti(folder / "oblique.nii.gz", volumes[2], oblique)
    write_nifti(folder / "permuted.nii.gz", volumes[3].transpose(1, 2, 0), permuted)
    return folder


@dataclass
class Server:
    """An app in this process.

    Attributes:
        client: a FastAPI TestClient.
        app: folder of the app.
        studies: folder of its studies.
    """

    client: Any
    app: Path
    studies: Path

    def infer(self, model: str, study: str, **params: Any) -> Any:
        """``/infer`` for parameters only."""
        return self.ask(model, study, "json", **params)

    def ask(self, model: str, study: str, output: str, **params: Any) -> Any:
        """``/infer``."""
        return self.client.post(
            f"/infer/{model}",
            params={"image": study, "output": output},
            data={"params": json.dumps(params)},
        )


def serve(app: Path, studies: Path | str, cache: Path, **changed: Any) -> Server:
    """A client of an app, as MONAI Label's own tests make one."""
    from fastapi.testclient import TestClient
    from monailabel.config import settings

    settings.MONAI_LABEL_APP_DIR = str(app)
    settings.MONAI_LABEL_STUDIES = str(studies)
    settings.MONAI_LABEL_DATASTORE_AUTO_RELOAD = False
    settings.MONAI_LABEL_APP_CONF = {}
    settings.MONAI_LABEL_SESSION_PATH = str(cache / "sessions")
    settings.MONAI_LABEL_DICOMWEB_CACHE_PATH = str(cache / "dicom")
    for name, value in changed.items():
        setattr(settings, name, value)
    from multiad_med.label.server import app as server

    return Server(TestClient(server, raise_server_exceptions=False), app, Path(studies))


@pytest.fixture(scope="session")
def app_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An app with the three bundles, not to be changed."""
    return make_app(tmp_path_factory.mktemp("label") / "app", BRAIN, LIVER, RETINA)


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with :func:`make_heads` in ``studies``."""
    folder = tmp_path_factory.mktemp("served")
    make_heads(folder / "studies")
    return folder


@pytest.fixture
def server(app_folder: Path, heads: Path) -> Server:
    """The app with :func:`make_heads`; MONAI Label keeps one app for each folder of studies."""
    return serve(app_folder, heads / "studies", heads)


@pytest.fixture(scope="module")
def own_maps(app_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Runs a bundle's own inference on a folder; where its results are."""

    def run(name: str, data: Path) -> Path:
        out = tmp_path_factory.mktemp("own")
        infer_bundle(name, data, app_folder / "model" / name / "models" / "model.pt", out)
        return out

    return run
