"""Names at their old places: they work for one release and say where they are now."""

import subprocess
import sys
from importlib import import_module

import pytest

from multiad_med._moved import MODULES, PACKAGES


@pytest.mark.parametrize("old", sorted(MODULES))
def test_an_old_module_gives_the_new_ones_names(old: str) -> None:
    if old.startswith("label."):
        pytest.importorskip("monailabel")
    old_module, new = (
        import_module(f"multiad_med.{old}"),
        import_module(f"multiad_med.{MODULES[old]}"),
    )
    assert new.__all__
    for name in new.__all__:
        with pytest.warns(DeprecationWarning, match=rf"is now multiad_med\.{MODULES[old]}\.{name}"):
            assert getattr(old_module, name) is getattr(new, name)


@pytest.mark.parametrize("old", sorted(PACKAGES))
def test_an_old_package_gives_the_names_of_the_rooms_that_it_became(old: str) -> None:
    package = import_module(f"multiad_med.{old}")
    for place in PACKAGES[old]:
        new = import_module(f"multiad_med.{place}")
        for name in {*new.__all__} - {m.removeprefix(f"{old}.") for m in MODULES}:
            with pytest.warns(DeprecationWarning, match=f"multiad_med.{old}.{name} is now"):
                getattr(package, name)


@pytest.mark.slow
def test_a_bundle_of_the_last_release_finds_its_parts() -> None:
    code = (
        "from multiad_med.engines import ModelLoader; from multiad_med.io import SaveImageMapd;"
        "from multiad_med.io.scores import decision;"
        "import multiad_med.losses; print(multiad_med.losses.FeatureDistillationLoss.__name__)"
    )
    command = [sys.executable, "-W", "error::ImportWarning", "-W", "always", "-c", code]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "FeatureDistillationLoss"
    assert "multiad_med.engines.ModelLoader is now multiad_med.training.ModelLoader" in run.stderr


@pytest.mark.parametrize(
    ("old", "name", "new"),
    [
        ("data", "SliceStore", "multiad_med.data.SliceCache"),
        ("transforms", "EvenLightd", "multiad_med.transforms.NormaliseBrightnessd"),
        ("preparation", "load_pictures", "multiad_med.preparation.load_images"),
        ("preparation.sources", "load_pictures", "multiad_med.preparation.load_images"),
        ("io", "LoadPicturesd", "multiad_med.readers.LoadImagesd"),
        ("io", "SavePictureMapd", "multiad_med.inference.SaveTiffMapd"),
    ],
)
def test_an_old_name_gives_the_new_one(old: str, name: str, new: str) -> None:
    place, _, today = new.rpartition(".")
    with pytest.warns(DeprecationWarning, match=f"multiad_med.{old}.{name} is now {new}"):
        found = getattr(import_module(f"multiad_med.{old}"), name)
    assert found is getattr(import_module(place), today)


def test_a_name_that_never_was_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="nonsense"):
        import_module("multiad_med.engines").nonsense  # noqa: B018
    with pytest.raises(ImportError):
        import_module("multiad_med.nowhere")


def test_experts_are_offered_beside_the_networks() -> None:
    networks, experts = (
        import_module(f"multiad_med.{p}") for p in ("networks", "networks.experts")
    )
    assert set(experts.__all__) <= set(networks.__all__)
