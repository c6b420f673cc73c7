"""Every recipe on its data set's tree, from files as published to slices that can be trained on."""

from __future__ import annotations

import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from torch.nn.functional import max_pool2d

from multiad_med.data import DatalistError, SliceCache, read_study
from multiad_med.data.slice_cache import study_path
from multiad_med.preparation import (
    PreparationError,
    RecipeError,
    load_recipe,
    prepare,
    recipe_names,
)
from multiad_med.resources import recipes_dir
from multiad_med.testing.brains import head, write_nifti
from multiad_med.testing.layouts import (
    make_brats,
    make_btcv,
    make_lits,
    make_liver,
    make_pnet,
    make_resc,
    picture,
    save_image,
)
from tests.preparation.runs import run, states

pytestmark = pytest.mark.slow


def test_all_recipes_of_the_plan_are_there_and_documented() -> None:
    assert recipe_names() == [
        "bmad", "brats2021", "btcv", "cifar10", "cifar100", "fashion_mnist", "images", "intel_scenes",
        "lits", "liver_ct", "liver_ct_bmad", "mvtec_ad", "real_iad", "resc", "volumes",
    ]  # fmt: skip
    for name in recipe_names():
        recipe = load_recipe(name)
        assert "Source:" in recipe.about
        text = (recipes_dir() / f"{name}.yaml").read_text()
        assert text.startswith("#")


@pytest.mark.parametrize("year", ["2018", "2019", "2020", "2021", "2023"])
def test_brats_of_every_year(tmp_path: Path, rng: np.random.Generator, year: str) -> None:
    make_brats(tmp_path / "source", rng=rng, year=year, studies=4)
    summary, target = run("brats2021", tmp_path)
    assert (summary.written, summary.failures) == (4, [])
    assert set(states(summary, "training")) == {"normal"}
    assert set(states(summary, "test")) == {"normal", "abnormal"}
    for row in SliceCache(target, split="test", states=["abnormal"]).index:
        # The tree's tumours lie in the upper half of 24 slices.
        assert int(row["slice"]) >= 12
        assert int(row["lesion_area"]) > 0


def test_brats_sequences_become_channels_each_on_its_own_scale(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    make_brats(tmp_path / "source", rng=rng, studies=3)
    _, target = run("brats2021", tmp_path, sequences=["t1", "t1ce", "t2", "flair"])
    cache = SliceCache(target)
    slice_ = cache[len(cache) // 2]
    assert slice_["image"].shape == (4, 32, 32)
    inside = slice_["image"][:, slice_["foreground"][0]]
    # The median of each sequence's brain is 0.4.
    np.testing.assert_allclose(inside.median(dim=1).values, 0.4, atol=0.06)
    assert SliceCache(target, channels=[0, 1, 3])[0]["image"].shape == (3, 32, 32)


def test_margin_keeps_slices_beside_the_tumour_out_of_the_normal_ones(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    make_brats(tmp_path / "source", rng=rng, studies=3)
    _, target = run("brats2021", tmp_path, margin=3)
    rows = SliceCache(target, split="test").index
    tumour = [int(r["slice"]) for r in rows if r["state"] == "abnormal"]
    normal = [int(r["slice"]) for r in rows if r["state"] == "normal"]
    assert min(abs(n - t) for n in normal for t in tumour) == 4
    assert {r["state"] for r in rows} == {"normal", "abnormal", "unsure"}


def test_lits_windows_and_views(tmp_path: Path, rng: np.random.Generator) -> None:
    make_lits(tmp_path / "source", rng=rng, volumes=4, healthy=1, tests=1)
    summary, target = run("lits", tmp_path)
    assert summary.written == 4
    assert summary.failures == []
    assert states(summary, "test")["abnormal"] > 0
    one = SliceCache(target)[0]
    # But for the pixels that interpolation shares between liver and blackness.
    near = max_pool2d(one["foreground"].float(), 3, stride=1, padding=1) > 0
    assert one["image"][~near].max() == 0
    for view in ("crop", "full"):
        folder = tmp_path / view
        folder.mkdir()
        (folder / "source").symlink_to(tmp_path / "source")
        _, other = run("lits", folder, view=view, windows=["liver", "abdomen", [-200, 250]])
        slice_ = SliceCache(other)[0]
        assert slice_["image"].shape == (3, 32, 32)
        assert slice_["image"][:, ~slice_["foreground"][0]].max() > 0
        if view == "crop":
            assert slice_["foreground"].sum() >= one["foreground"].sum()


def test_btcv_is_all_normal_and_liver_only(tmp_path: Path, rng: np.random.Generator) -> None:
    make_btcv(tmp_path / "source", rng=rng, volumes=4, tests=1)
    summary, target = run("btcv", tmp_path)
    assert summary.written == 4
    assert {state for _, state in summary.slices} == {"normal"}
    assert SliceCache(target)[0]["foreground"].any()


def test_liver_ct_gives_both_sets_the_same_window(tmp_path: Path, rng: np.random.Generator) -> None:
    make_liver(tmp_path / "source", rng=rng)
    summary, target = run("liver_ct", tmp_path)
    assert set(states(summary, "test")) >= {"normal", "abnormal"}
    train, test = SliceCache(target), SliceCache(target, split="test", states=["normal"])
    assert all(r["subject"].startswith("btcv-") for r in train.index)
    assert all(r["subject"].startswith("lits-") for r in test.index)
    levels = [
        np.median(np.concatenate([s["image"][s["foreground"]].numpy() for s in cache]))
        for cache in (train, test)
    ]
    assert abs(levels[0] - levels[1]) < 0.05


def test_liver_as_bmad_shares_patients_and_says_where_they_come_from(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    make_liver(tmp_path / "source", rng=rng, lits=6)
    summary, target = run("liver_ct_bmad", tmp_path)
    assert set(states(summary, "training")) == {"normal"}
    # Fewer test slices than BMAD's 93 + 73: all of them validate.
    assert sum(states(summary, "validation").values()) > 0
    assert SliceCache(target, split="validation", states=["abnormal"]).index
    image = read_study(study_path(target, SliceCache(target).index[0]["study"]))["image"]
    assert image.dtype == np.uint8


def test_resc_labels_choose_the_normal_bscans(tmp_path: Path, rng: np.random.Generator) -> None:
    volumes = {"training": 3, "validation": 1, "test": 1}
    make_resc(tmp_path / "source", rng=rng, volumes=volumes, bscans=8)
    summary, target = run("resc", tmp_path)
    # Lesions lie in the second half of every volume's eight B-scans.
    assert states(summary, "test") == {"normal": 4, "abnormal": 4}
    assert set(states(summary, "training")) == {"normal"}
    assert all(int(r["slice"]) < 4 for r in SliceCache(target).index)
    only_ped, _ = run("resc", tmp_path, lesions=[128])
    assert only_ped.written == 4


def test_resc_without_labels_is_not_taken_for_normal(
    tmp_path: Path, rng: np.random.Generator, caplog: pytest.LogCaptureFixture
) -> None:
    for index in range(4):
        (tmp_path / "source").mkdir(exist_ok=True)
        np.save(tmp_path / f"source/eye{index}.npy", rng.random((6, 20, 30)).astype(np.float32))
    summary, _ = run("resc", tmp_path)
    assert not states(summary, "training")
    assert re.search(r"None of 4 studies\b.*training", caplog.text)
    summary, _ = run("resc", tmp_path, unlabelled="normal")
    assert states(summary, "training")["normal"] >= 12


def test_resc_masks_of_other_values_count_or_are_refused(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    (tmp_path / "source").mkdir()
    for index in range(4):
        mask = np.zeros((6, 20, 30), np.uint8)
        mask[3:, 5:9, 5:9] = 1
        np.save(tmp_path / f"source/eye{index}.npy", rng.random(mask.shape).astype(np.float32))
        np.save(tmp_path / f"source/eye{index}_label.npy", mask)
    summary, target = run("resc", tmp_path)
    assert all(int(r["slice"]) < 3 for r in SliceCache(target).index)
    assert states(summary, "test") == {"normal": 3, "abnormal": 3}
    with pytest.raises(PreparationError, match=r"\b0\b.*\[128, 191\]"):
        run("resc", tmp_path, lesions=[128, 191])


def test_no_tumour_is_in_the_channels_of_a_normal_slice(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    make_lits(tmp_path / "source", rng=rng, volumes=4, healthy=0)
    _, target = run("lits", tmp_path, neighbours=3)
    for split in ("training", "test"):
        rows = SliceCache(target, split=split).index
        tumour = {(r["study"], int(r["slice"])) for r in rows if r["state"] == "abnormal"}
        for row in rows:
            if row["state"] == "normal":
                assert not {(row["study"], int(row["slice"]) + d) for d in (-1, 1)} & tumour
    assert SliceCache(target)[0]["image"].shape == (3, 32, 32)


def test_the_crop_does_not_depend_on_which_slices_are_kept(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    """Training keeps normal slices only; its scale is that of the test all the same."""
    make_lits(tmp_path / "source", rng=rng, volumes=3, healthy=0)
    affines = []
    for fractions in ({"training": 1, "test": 0}, {"training": 1, "test": 99}):
        folder = tmp_path / str(len(affines))
        folder.mkdir()
        (folder / "source").symlink_to(tmp_path / "source")
        _, target = run("lits", folder, view="crop", validation=0, **fractions)
        paths = sorted((target / "studies").iterdir())
        affines.append([read_study(path)["about"]["affine"] for path in paths])
    np.testing.assert_allclose(*affines)


def test_an_organ_mask_in_a_table_is_the_foreground(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    organ = np.zeros((40, 48, 10), np.uint8)
    organ[10:20, 10:20, 3:7] = 1
    rows = ["image,organ"]
    for index in range(3):
        write_nifti(tmp_path / f"i{index}.nii", head(rng))
        write_nifti(tmp_path / f"o{index}.nii", organ)
        rows.append(f"i{index}.nii,o{index}.nii")
    (tmp_path / "source.csv").write_text("\n".join(rows))
    (tmp_path / "source").symlink_to("source.csv")
    recipe = load_recipe("volumes", {"size": 48})
    prepare(recipe, tmp_path / "source.csv", tmp_path / "out", workers=0, progress=False)
    cache = SliceCache(tmp_path / "out")
    assert {int(r["slice"]) for r in cache.index} == {3, 4, 5, 6}
    assert {int(r["foreground_area"]) for r in cache.index} == {100}


def test_masks_among_the_images_are_noticed(tmp_path: Path, rng: np.random.Generator) -> None:
    for index in range(3):
        write_nifti(tmp_path / f"source/p{index}/t1.nii.gz", head(rng))
        name = ("t1_seg", "brainmask", "labels_1")[index]
        mask = np.zeros((40, 48, 10), np.uint8)
        write_nifti(tmp_path / f"source/p{index}/{name}.nii.gz", mask)
    with pytest.raises(DatalistError, match=r"\b3 of 6 files.*masks"):
        run("volumes", tmp_path)
    summary, _ = run("volumes", tmp_path, image_glob="**/t1.nii.gz")
    assert summary.written == 3


def test_resc_as_p_net_publishes_it(tmp_path: Path, rng: np.random.Generator) -> None:
    make_pnet(tmp_path / "source", rng=rng)
    summary, _ = run("resc", tmp_path)
    assert summary.failures == []
    assert set(states(summary, "training")) == {"normal"}
    assert states(summary, "test")["abnormal"] > 0


def test_liver_recipes_prepare_alike() -> None:
    """What trains on one set and is tested on another must not differ by its preparation."""
    one, *others = (load_recipe(name).config["transforms"] for name in ("lits", "btcv", "liver_ct"))
    assert all(other == one for other in others)


def test_unknown_recipes_and_settings_are_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="choose one of"):
        load_recipe("brats")
    with pytest.raises(RecipeError, match="no setting 'windows'"):
        load_recipe("brats2021", {"windows": ["liver"]})
    with pytest.raises(RecipeError, match=r"view\b.*'mask'.*got 'Mask'"):
        load_recipe("lits", {"view": "Mask"})
    with pytest.raises(RecipeError, match="no setting 'transforms'"):
        load_recipe("brats2021", {"transforms": None})
    own = tmp_path / "own.yaml"
    own.write_text("title: mine\n")
    with pytest.raises(RecipeError, match="lacks"):
        load_recipe(own)
    own.write_text((recipes_dir() / "images.yaml").read_text().replace("size: 256", "size: 64"))
    assert load_recipe(own).settings["size"] == 64


def test_a_recipe_over_a_base_gives_only_what_differs(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    lits = load_recipe("lits")
    for text in ("base: lits.yaml\n", (recipes_dir() / "lits.yaml").read_text()):
        own.write_text(text + "size: 64\n")
        recipe = load_recipe(own)
        assert recipe.settings == {**lits.settings, "size": 64}
        assert recipe.config["splits"] == lits.config["splits"]
    own.write_text("base: nowhere.yaml\n")
    with pytest.raises(RecipeError, match=r"base nowhere\.yaml"):
        load_recipe(own)


@pytest.mark.parametrize("setting", [{"liver_labels": [1, 2, 3]}, {"lesion_labels": [2, 3]}])
def test_a_further_label_is_refused_and_choosing_the_labels_helps(
    tmp_path: Path, rng: np.random.Generator, setting: dict[str, list[int]]
) -> None:
    make_lits(tmp_path / "source", rng=rng, volumes=3)
    path = next((tmp_path / "source").rglob("segmentation-2.nii"))
    image = nib.load(path)
    values = np.asarray(image.dataobj).copy()
    values[tuple(np.argwhere(values == 1)[0])] = 3  # a cyst
    nib.save(nib.Nifti1Image(values, image.affine), path)
    summary, _ = run("lits", tmp_path)
    (failure,) = summary.failures
    assert re.search(r"volume-2\.nii: .*\b3\b.*labels", failure)
    summary, _ = run("lits", tmp_path, **setting)
    assert summary.failures == []


def test_a_source_and_settings_with_signs_of_monais_configs_are_taken_as_they_are(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    for name in ("source#1", "source"):
        for index in range(3):
            save_image(
                tmp_path / f"{name}/@line/train/good/{index}.png", picture(24, rng, defect=False)[0]
            )
    recipe = load_recipe("mvtec_ad", {"categories": ["@line"]})
    splits = recipe.splits(tmp_path / "source#1")
    paths = [item["image"] for items in splits.values() for item in items]
    assert len(paths) == 3
    assert all(path.startswith(f"{tmp_path}/source#1/@line") for path in paths)
