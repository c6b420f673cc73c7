"""Exports of the bundles' networks give the eager maps: ONNX Runtime, and OpenVINO on whole volumes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.bundle import create_workflow, onnx_export
from monai.transforms import LoadImage

from multiad_med.networks import open_model
from multiad_med.resources import bundle_path
from multiad_med.testing.cohorts import COHORTS, FAST, one_bundle_per_input, write_fake_model

ort = pytest.importorskip("onnxruntime", reason="the extra `export` is not installed")
pytest.importorskip("onnxscript", reason="the extra `export` is not installed")

SIZE = FAST["size"]
DYNAMIC_BATCH = {
    "input_names": ["image"],
    "output_names": ["pred"],
    "dynamic_axes": {"image": {0: "batch"}},
}


def arguments(name: str, folder: Path) -> dict[str, Any]:
    """What ``onnx_export`` is given."""
    configs = bundle_path(name) / "configs"
    return {
        "net_id": "network_def",
        "filepath": str(folder / "model.onnx"),
        "ckpt_file": str(folder / "model.pt"),
        "meta_file": str(configs / "metadata.json"),
        "config_file": str(configs / "inference.json"),
        "input_shape": [2, 3, SIZE, SIZE],
        "converter_kwargs": DYNAMIC_BATCH,
    }


@torch.no_grad()
def assert_onnx_gives_the_maps(folder: Path) -> None:
    network = open_model(folder / "model.pt").eval()
    session = ort.InferenceSession(folder / "model.onnx")
    for batch in (1, 3):
        x = torch.rand(batch, 3, SIZE, SIZE)
        expected = network(x).numpy()
        assert expected.std() > 1e-3
        (maps,) = session.run(["pred"], {"image": x.numpy()})
        np.testing.assert_allclose(maps, expected, atol=1e-4)


@pytest.fixture(scope="module", params=one_bundle_per_input())
def exported(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path]:
    """A bundle, and a folder in which its command line has exported a model of random weights."""
    name, folder = request.param, tmp_path_factory.mktemp("exported")
    write_fake_model(name, folder / "model.pt")
    options = [f"--{key}={value}" for key, value in arguments(name, folder).items()]
    subprocess.run(
        [sys.executable, "-m", "monai.bundle", "onnx_export", *options],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=True,
        capture_output=True,
        timeout=280,
    )
    return name, folder


def test_onnx_runtime_gives_the_eager_maps_for_any_batch(exported: tuple[str, Path]) -> None:
    assert_onnx_gives_the_maps(exported[1])


@pytest.mark.parametrize("preset", ["efficientnet_lite0", "resnet18"])
def test_other_presets_export_too(tmp_path: Path, preset: str) -> None:
    write_fake_model("multiad_brain_mri", tmp_path / "model.pt", preset=preset)
    onnx_export(**arguments("multiad_brain_mri", tmp_path), preset=preset)
    assert_onnx_gives_the_maps(tmp_path)


def test_openvino_writes_the_eager_maps_of_whole_studies(
    exported: tuple[str, Path], tmp_path: Path
) -> None:
    pytest.importorskip("openvino", reason="the extra `export` is not installed")
    name, folder = exported
    root, data = bundle_path(name), COHORTS[name](tmp_path)
    for out, runtime in (("eager", "torch"), ("openvino", "openvino")):
        flow = create_workflow(
            config_file=str(root / "configs/inference.json"),
            workflow_type="infer",
            bundle_root=str(root),
            dataset_dir=str(data),
            output_dir=str(tmp_path / out),
            ckpt_path=str(folder / "model.pt"),
            runtime=runtime,
            **FAST,
        )
        flow.run()
        flow.finalize()
    found = (tmp_path / "eager").rglob("*")
    maps = sorted(path for path in found if path.name.endswith(("_anomaly_map.nii.gz", ".tiff")))
    assert maps
    for path in maps:
        one = LoadImage(image_only=True)(path)
        two = LoadImage(image_only=True)(
            tmp_path / "openvino" / path.relative_to(tmp_path / "eager")
        )
        assert float(one.std()) > 1e-3
        torch.testing.assert_close(two.affine, one.affine)
        torch.testing.assert_close(two.as_tensor(), one.as_tensor(), atol=1e-3, rtol=0)
