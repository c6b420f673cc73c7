"""The front door: trains, predicts, and takes every form of study, as the bundle's command line does."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from PIL import Image

from multiad_med import AnomalyDetector, Result
from multiad_med.data import StudyError
from multiad_med.readers import LoadVolume
from multiad_med.resources import bundle_path, run_bundle
from multiad_med.testing.cohorts import COHORTS, write_fake_model
from multiad_med.utils.errors import InputError, MultiADError
from tests.bundles.test_folder_inference import nifti_head
from tests.bundles.test_sources import dicom_head

FAST_TRAINING = {"size": 64, "max_epochs": 1, "batch_size": 4}


def run_monai(bundle: str, verb: str, config: str, folder: Path, **options: Any) -> None:
    """``python -m monai.bundle run VERB``, as a user types it."""
    root = bundle_path(bundle)
    given = {
        "config_file": root / "configs" / config,
        "meta_file": root / "configs" / "metadata.json",
        "bundle_root": root,
        "device": "cpu",
        **options,
    }
    subprocess.run(
        [sys.executable, "-m", "monai.bundle", "run", verb]
        + [f"--{name}={value}" for name, value in given.items()],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])},
        check=True,
        capture_output=True,
        timeout=280,
    )


@pytest.fixture
def one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def brain(tmp_path_factory: pytest.TempPathFactory) -> AnomalyDetector:
    path = write_fake_model("multiad_brain_mri", tmp_path_factory.mktemp("brain") / "model.pt")
    return AnomalyDetector.load(path, device="cpu", size=64)


@pytest.fixture(scope="module")
def industrial(tmp_path_factory: pytest.TempPathFactory) -> AnomalyDetector:
    path = write_fake_model("multiad_industrial", tmp_path_factory.mktemp("images") / "model.pt")
    return AnomalyDetector.load(path, device="cpu", size=64)


@pytest.mark.slow
@pytest.mark.parametrize("domain", ["brain_mri", "industrial"])
def test_weights_and_maps_are_those_of_the_bundles_command_line_bit_by_bit(
    domain: str, tmp_path: Path, one_thread: None
) -> None:
    bundle = f"multiad_{domain}"
    data = COHORTS[bundle](tmp_path)
    detector = AnomalyDetector(domain, device="cpu", **FAST_TRAINING)
    detector.fit(data, output=tmp_path / "run")
    models = tmp_path / "monai"
    run_monai(
        bundle,
        "training",
        "train.json",
        tmp_path,
        dataset_dir=data,
        ckpt_dir=models,
        output_dir=models,
        **FAST_TRAINING,
    )
    ours, theirs = (
        torch.load(folder / "model.pt", weights_only=True) for folder in (tmp_path / "run", models)
    )
    weights = [name for name in theirs if "extra_state" not in name]
    assert weights
    for name in weights:
        assert torch.equal(ours[name], theirs[name]), name

    run_monai(
        bundle,
        "inference",
        "inference.json",
        tmp_path,
        dataset_dir=data,
        ckpt_path=models / "model.pt",
        output_dir=tmp_path / "maps",
    )
    results = list(detector.predict_folder(data, output=tmp_path / "ours"))
    assert results
    for result in results:
        inside = result.map_file.relative_to(tmp_path / "ours")
        assert result.map.std() > 0
        assert result.map_file.read_bytes() == (tmp_path / "maps" / inside).read_bytes()
        single = detector.predict(result.source)
        np.testing.assert_array_equal(single.map, result.map)
        assert single.score == result.score


@pytest.mark.slow
def test_a_volume_gives_one_map_in_whatever_form_it_comes(
    brain: AnomalyDetector, tmp_path: Path
) -> None:
    path = nifti_head(tmp_path / "a.nii.gz")
    of_file = brain.predict(path)
    volume = nib.load(path)
    array = np.asarray(volume.dataobj)
    assert of_file.map.shape == array.shape
    np.testing.assert_allclose(of_file.affine, volume.affine, atol=1e-6)
    np.testing.assert_array_equal(of_file.mask, of_file.map >= 0.5)
    forms: dict[str, Callable[[], Result]] = {
        "text": lambda: brain.predict(str(path)),
        "nibabel": lambda: brain.predict(volume),
        "array": lambda: brain.predict(array, affine=volume.affine),
        "channel": lambda: brain.predict(array[None], affine=volume.affine),
        "tensor": lambda: brain.predict(torch.from_numpy(array + 0), affine=volume.affine),
        "MetaTensor": lambda: brain.predict(
            MetaTensor(torch.from_numpy(array + 0), affine=torch.from_numpy(volume.affine))
        ),
    }
    for name, form in forms.items():
        result = form()
        np.testing.assert_array_equal(result.map, of_file.map, err_msg=name)
        assert result.slices == of_file.slices


def test_a_dicom_series_is_a_folder_or_its_files(brain: AnomalyDetector, tmp_path: Path) -> None:
    series = Path(dicom_head(tmp_path, "anna"))
    one, two = (brain.predict(form) for form in (series, sorted(map(str, series.iterdir()))))
    np.testing.assert_array_equal(one.map, two.map)
    volume = LoadVolume()(series)
    assert one.map.shape == tuple(volume.shape[1:])
    np.testing.assert_allclose(one.affine, volume.affine, atol=1e-5)


@pytest.mark.slow
def test_an_image_gives_one_map_in_whatever_form_it_comes(
    industrial: AnomalyDetector, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    array = rng.integers(0, 255, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(array).save(tmp_path / "a.png")
    of_file = industrial.predict(tmp_path / "a.png")
    assert of_file.map.shape == (40, 60)
    assert of_file.affine is None
    tensor = torch.from_numpy(array).movedim(-1, 0)
    for form in (array, tensor, tensor / 255, array / 255):
        np.testing.assert_array_equal(industrial.predict(form).map, of_file.map)
    grey = rng.integers(0, 2**16, (40, 60), dtype=np.uint16)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    of_grey = industrial.predict(tmp_path / "grey.png")
    for form in (grey, grey / 65535, torch.from_numpy(grey / 65535)[None]):
        np.testing.assert_array_equal(industrial.predict(form).map, of_grey.map)


def test_an_organ_comes_in_the_forms_that_a_volume_does(tmp_path: Path) -> None:
    data = COHORTS["multiad_liver_ct"](tmp_path)
    model = write_fake_model("multiad_liver_ct", tmp_path / "model.pt")
    detector = AnomalyDetector.load(model, device="cpu", size=64)
    image, organ = (data / f"{kind}/s4.nii.gz" for kind in ("images", "organs"))
    of_files = detector.predict(image, organ=organ)
    assert of_files.map.max() > 0
    loaded = nib.load(image)
    of_arrays = detector.predict(
        np.asarray(loaded.dataobj),
        affine=loaded.affine,
        organ=np.asarray(nib.load(organ).dataobj) > 0,
    )
    np.testing.assert_array_equal(of_arrays.map, of_files.map)


def test_a_result_tells_saves_and_shows_itself(brain: AnomalyDetector, tmp_path: Path) -> None:
    path = nifti_head(tmp_path / "a.nii.gz")
    result = brain.predict(path)
    flagged = sum(bool(s["flagged"]) for s in result.slices)
    assert repr(result) == (
        f"Result(a.nii.gz: {result.verdict}, score {result.score:.3f}, p-value "
        f"{result.p_value:.3f}; {flagged} of {len(result.slices)} slices anomalous)"
    )
    assert (result.p_value <= 0.05) == result.anomalous
    copies = result.save(tmp_path / "maps")
    assert [copy.name for copy in copies] == [
        "a_anomaly_map.nii.gz",
        "a_anomaly_mask.nii.gz",
        "a_anomaly.json",
    ]
    np.testing.assert_array_equal(nib.load(copies[0]).get_fdata(dtype=np.float32), result.map)
    (axes,) = result.show().axes
    drawn = axes.images[0].get_array()
    assert drawn.std() > 0.05


def test_results_of_another_study_of_one_name_are_not_replaced(
    brain: AnomalyDetector, tmp_path: Path
) -> None:
    one, two = (
        brain.predict(nifti_head(tmp_path / f"{patient}/t1.nii.gz", seed=number))
        for number, patient in enumerate("ab")
    )
    copies = one.save(tmp_path / "maps")
    one.save(tmp_path / "maps")
    before = copies[0].read_bytes()
    with pytest.raises(InputError, match=r"b/t1\.nii\.gz .*replace.*a/t1\.nii\.gz"):
        two.save(tmp_path / "maps")
    assert copies[0].read_bytes() == before


def test_half_precision_is_taken(brain: AnomalyDetector, tmp_path: Path) -> None:
    volume = nib.load(nifti_head(tmp_path / "a.nii.gz"))
    values = torch.from_numpy(volume.get_fdata(dtype=np.float32)).bfloat16()
    single, half = (brain.predict(v, affine=volume.affine) for v in (values.float(), values))
    np.testing.assert_array_equal(half.map, single.map)


@pytest.mark.slow
def test_settings_of_load_reach_the_evaluation(tmp_path: Path) -> None:
    data = COHORTS["multiad_brain_mri"](tmp_path)
    model = write_fake_model("multiad_brain_mri", tmp_path / "model.pt")
    detector = AnomalyDetector.load(model, device="cpu", size=64)
    metrics = detector.evaluate(data, output=tmp_path / "report", bootstrap=5)
    assert metrics["manifest"]["config"]["size"] == 64  # the bundle's own would be 256


@pytest.mark.slow
def test_a_device_may_be_a_word_wherever_it_is_given(tmp_path: Path) -> None:
    data = COHORTS["multiad_brain_mri"](tmp_path)
    detector = AnomalyDetector("brain_mri", device="cpu", **FAST_TRAINING)
    assert detector.fit(data, output=tmp_path / "run").model.is_file()
    run_bundle(
        "multiad_brain_mri",
        "inference.json",
        workflow_type="infer",
        dataset_dir=str(data),
        ckpt_path=str(detector.model),
        output_dir=str(tmp_path / "maps"),
        device="cpu",
    )
    assert (tmp_path / "maps/summary.csv").is_file()


def test_a_folder_goes_on_after_a_bad_study_and_ends_with_it(
    brain: AnomalyDetector, tmp_path: Path
) -> None:
    for name in "abc":
        nifti_head(tmp_path / f"in/{name}.nii.gz", seed=ord(name))
    bad = tmp_path / "in/b.nii.gz"
    bad.write_bytes(bad.read_bytes()[:300])
    found = brain.predict_folder(tmp_path / "in")
    results = [next(found), next(found)]
    with pytest.raises(StudyError, match=r"1 of 3 studies failed:\n.*b\.nii\.gz"):
        next(found)
    assert [result.name for result in results] == ["a.nii.gz", "c.nii.gz"]
    assert all(result.map.std() > 0 for result in results)
    again = list(brain.predict_folder(tmp_path / "in", image_glob="*a.nii.gz"))
    assert [result.name for result in again] == ["a.nii.gz"]


def test_what_is_wrong_is_told_by_name(
    brain: AnomalyDetector, industrial: AnomalyDetector, tmp_path: Path
) -> None:
    array = np.zeros((8, 8, 4), dtype=np.float32)
    cases: list[tuple[Callable[[], Any], str]] = [
        (lambda: AnomalyDetector("brain"), r"Unknown domain 'brain'. Did you mean brain_mri\?"),
        (lambda: AnomalyDetector("brain_mri", sizze=3), r"no setting sizze .*Did you mean size\?"),
        (
            lambda: AnomalyDetector("brain_mri", **{"loss#hardest": 0.2, "train#datalader": 1}),
            r"no setting train#datalader .*Did you mean train#dataloader\?",
        ),
        (lambda: AnomalyDetector("brain_mri", device="tpu0"), "device 'tpu0' cannot be used"),
        (lambda: AnomalyDetector("brain_mri", dataset_dir="x"), "dataset_dir is no setting here"),
        (lambda: brain.predict_folder(tmp_path, ckpt_path="x"), "ckpt_path is no setting here"),
        (lambda: AnomalyDetector("brain_mri").predict("x.nii"), "no model yet"),
        (lambda: AnomalyDetector.load(tmp_path / "no.pt"), "no weights file"),
        (lambda: brain.predict_folder(tmp_path, sw_batch=1), r"Did you mean sw_batch_size\?"),
        (lambda: brain.predict(array), "no place in space: give affine"),
        (lambda: brain.predict(array[0], affine=np.eye(4)), r"\(1, X, Y, Z\), got \(8, 4\)"),
        (lambda: brain.predict(array, affine=np.zeros((4, 4))), "can be inverted"),
        (lambda: brain.predict(array.astype(complex), affine=np.eye(4)), "array of numbers"),
        (
            lambda: brain.predict(nib.Nifti1Image(array, np.eye(4)), affine=np.eye(4)),
            "has an affine of its own",
        ),
        (lambda: industrial.predict(array[..., :2]), "C 1 or 3; got"),
        (lambda: industrial.predict(array[..., :3] + 2), r"in \[0, 1\], got 2 to 2"),
        (lambda: industrial.predict(array[..., 0].astype(np.int32)), "got int32"),
        (lambda: brain.predict(tmp_path / "none.nii.gz"), "No such file"),
        (
            lambda: brain.predict(np.stack([array, array - 1000], 0)[:, 0], affine=np.eye(4)),
            "as of a CT in HU",
        ),
    ]
    for call, message in cases:
        with pytest.raises(MultiADError, match=message):
            call()


@pytest.mark.slow
def test_importing_the_package_loads_nothing_heavy() -> None:
    program = (
        "import sys, multiad_med; assert not {'torch', 'monai', 'numpy'} & set(sys.modules); "
        "assert multiad_med.AnomalyDetector.__name__ == 'AnomalyDetector'; print('fine')"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ended.stdout == "fine\n", ended.stderr
