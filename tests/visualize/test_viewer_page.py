"""The page is whole in itself, and shows in a browser what the map says, where it says it."""

from __future__ import annotations

import base64
import gzip
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from multiad_med.testing.brains import write_nifti
from multiad_med.visualize import ViewedStudy, load_study, view
from multiad_med.visualize.embedded import halved
from multiad_med.visualize.viewer_page import write_page
from tests.visualize.chromium import Chromium
from tests.visualize.studies import MARK, SHAPE, STORED, affine, volumes, write_study


class Page(HTMLParser):
    """The references of a page, and the text of its elements with an id."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.references: list[tuple[str, str]] = []
        self.policy, self._open = "", ""
        self.texts: dict[str, str] = {}
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = {name: value or "" for name, value in attrs}
        self._open = named.get("id", "")
        for name in ("src", "href", "data", "srcset", "poster", "action", "xlink:href"):
            if name in named:
                self.references.append((tag, named[name]))
        if named.get("http-equiv") == "Content-Security-Policy":
            self.policy = named["content"]

    def handle_data(self, data: str) -> None:
        if self._open:
            self.texts[self._open] = self.texts.get(self._open, "") + data

    def handle_endtag(self, tag: str) -> None:
        self._open = ""

    def volume(self, name: str) -> nib.Nifti1Image:
        content = gzip.decompress(base64.b64decode(self.texts[name]))
        return nib.Nifti1Image.from_bytes(content)


def _page(folder: Path, viewed: ViewedStudy) -> Path:
    write_page(viewed, folder / "viewer.html")
    return folder / "viewer.html"


@pytest.mark.slow
def test_page_refers_to_nothing_and_forbids_requests(tmp_path: Path) -> None:
    study, anomaly_map, _ = write_study(tmp_path)
    _, path = view(study, anomaly_map, tmp_path / "out")
    page = Page(path)
    assert page.references == []
    assert page.policy.startswith("default-src 'none';")
    assert "http" not in page.policy
    style = files("multiad_med.visualize").joinpath("assets/viewer.css").read_text()
    assert "url(" not in style
    assert "@import" not in style


def test_page_holds_the_volumes_and_nothing_else_of_the_header(tmp_path: Path) -> None:
    study, anomaly_map, _ = write_study(tmp_path, "PIR", 15.0)
    image = nib.load(study)
    image.header["descrip"] = b"Jane Doe"
    image.header["db_name"] = b"Jane Doe"
    nib.save(image, study)
    viewed = load_study(study, anomaly_map)
    path = _page(tmp_path, viewed)
    assert "Jane Doe" not in path.read_text(encoding="utf-8")
    assert str(tmp_path) not in path.read_text(encoding="utf-8")
    page = Page(path)
    expected_image, expected_map = volumes()
    back = page.volume("image")
    assert not bytes(back.header["descrip"]).strip(b"\0")
    np.testing.assert_allclose(back.affine, affine(15.0), atol=1e-4)
    np.testing.assert_array_equal(back.get_fdata(), expected_image)
    heat = page.volume("map")
    assert heat.get_data_dtype() == np.uint8
    np.testing.assert_allclose(heat.affine, affine(15.0), atol=1e-4)
    np.testing.assert_allclose(heat.get_fdata(), expected_map, atol=0.004)


def test_a_map_reaches_the_threshold_in_the_page_where_it_does_in_the_file(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    heat = rng.random(SHAPE, np.float32)
    heat[0, 0, :4] = [0.5, np.nextafter(np.float32(0.5), np.float32(0)) - 1e-6, 1.0, 0.0]
    study, _, _ = write_study(tmp_path)
    anomaly_map = write_nifti(tmp_path / "other_anomaly_map.nii.gz", heat, affine())
    page = Page(_page(tmp_path, load_study(study, anomaly_map)))
    # nibabel scales in float64: 125 * float32(0.004) is 0.5 but for 1e-8.
    np.testing.assert_array_equal(page.volume("map").get_fdata() > 0.4999, heat >= 0.5)


def test_image_of_floats_keeps_4096_levels(tmp_path: Path) -> None:
    image = np.random.default_rng(0).normal(0, 3, SHAPE).astype(np.float32)
    _, anomaly_map, _ = write_study(tmp_path, scores=False)
    study = write_nifti(tmp_path / "floats.nii.gz", image, affine())
    page = Page(_page(tmp_path, load_study(study, anomaly_map)))
    step = np.ptp(image) / 4095
    np.testing.assert_allclose(page.volume("image").get_fdata(), image, atol=0.51 * step)


def test_large_studies_are_halved_in_the_slice_and_keep_their_place(tmp_path: Path) -> None:
    study, anomaly_map, _ = write_study(tmp_path, "PIR", 15.0)
    viewed = load_study(study, anomaly_map)
    small = halved(viewed, largest=23 * 13 * 12)  # 12 x 14 x 12 after one, 24 x 28 x 12 before
    assert small.image.shape == (12, 14, 12)
    assert small.anomaly_map.max() == viewed.anomaly_map.max()
    at = np.unravel_index(int(small.anomaly_map.argmax()), small.image.shape)
    np.testing.assert_array_equal(at, [MARK[0] // 2, MARK[1] // 2, MARK[2]])
    # Voxel n is the middle of 2 n and 2 n + 1.
    middle = [2 * at[0] + 0.5, 2 * at[1] + 0.5, at[2], 1]
    np.testing.assert_allclose(small.affine @ [*at, 1], affine(15.0) @ middle, atol=1e-4)
    assert small.image[0, 0, 0] == 75
    np.testing.assert_array_equal(small.slice_values(), viewed.slice_values())
    assert halved(viewed) is viewed


def test_odd_sizes_are_halved_without_losing_a_voxel(tmp_path: Path) -> None:
    image = np.arange(5 * 3 * 2, dtype=np.int16).reshape(5, 3, 2)
    study = write_nifti(tmp_path / "odd.nii.gz", image)
    anomaly_map = write_nifti(tmp_path / "map.nii.gz", (image / 29).astype(np.float32))
    small = halved(load_study(study, anomaly_map), largest=12)
    assert small.image.shape == (3, 2, 2)
    assert small.image[2, 1, 1] == 29
    assert small.image[0, 0, 0] == (0 + 2 + 6 + 8) / 4


def test_names_are_escaped(tmp_path: Path) -> None:
    study, anomaly_map, _ = write_study(tmp_path)
    odd = study.rename(tmp_path / "<img src=x onerror=alert(1)>.nii.gz")
    page = _page(tmp_path, load_study(odd, anomaly_map))
    assert Page(page).references == []
    assert "&lt;img src=x" in page.read_text(encoding="utf-8")


def test_facts_for_the_script(tmp_path: Path) -> None:
    study, anomaly_map, mark = write_study(tmp_path, "LPS")
    facts = json.loads(Page(_page(tmp_path, load_study(study, anomaly_map))).texts["facts"])
    assert facts["start"] == list(MARK)
    assert (np.asarray(facts["toSource"]) @ [*MARK, 1])[:3].tolist() == list(mark)
    assert facts["slices"][0] is None
    assert set(facts["semantic"]) == {None}  # of a model without a semantic student
    assert facts["sliceThreshold"] == 0.55
    assert facts["windows"] == {}


def test_niivue_is_the_version_that_is_named_beside_it() -> None:
    import hashlib

    folder = files("multiad_med.visualize").joinpath("niivue")
    named = folder.joinpath("README.md").read_text(encoding="utf-8")
    build = folder.joinpath("niivue.umd.js").read_bytes()
    assert hashlib.sha256(build).hexdigest() in named
    assert "0.69.0" in named
    assert folder.joinpath("LICENSE").read_text(encoding="utf-8").startswith("BSD 2-Clause")


# In the browser.


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    browser = Chromium(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


def _heat(image: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Where an image has the map's orange; grey image, white letters and the blue cross have none."""
    red, _, blue = (image[..., channel].astype(int) for channel in range(3))
    return red - blue > 50


def _ground(image: NDArray[np.uint8]) -> tuple[int, int, int, int]:
    """First and last row and column of the volume in an image, whose voxels are nearly all white."""
    light = image.min(axis=2) > 120
    rows = np.flatnonzero(light.mean(axis=1) > 0.2)
    columns = np.flatnonzero(light.mean(axis=0) > 0.2)
    return int(rows[0]), int(rows[-1]), int(columns[0]), int(columns[-1])


@pytest.mark.slow
@pytest.mark.parametrize("stored", STORED)
def test_marked_voxel_is_drawn_where_it_lies(
    tmp_path: Path, stored: str, chromium: Chromium
) -> None:
    study, anomaly_map, mark = write_study(tmp_path, *STORED[stored])
    assert chromium.open(_page(tmp_path, load_study(study, anomaly_map))) == "ready"
    place = affine(STORED[stored][1]) @ [*MARK, 1]
    readout = chromium.run("document.getElementById('readout').textContent")
    assert f"voxel {', '.join(map(str, mark))} of the file" in readout
    shown = [float(x) for x in re.findall(r"RAS\+ (.*) mm", readout)[0].split(",")]
    np.testing.assert_allclose(shown, place[:3], atol=0.051)
    assert "map 0.700" in readout
    i, j, k = ((m + 0.5) / n for m, n in zip(MARK, SHAPE, strict=True))
    # Radiological: the right of the patient on the left of the image; rows from above.
    expected = {"0": (1 - j, 1 - i), "1": (1 - k, 1 - i), "2": (1 - k, j)}
    for plane, (down, across) in expected.items():
        chromium.set("planes", plane)
        image = chromium.screenshot("canvas")
        top, bottom, left, right = _ground(image)
        rows, columns = np.nonzero(_heat(image))
        measured = (
            (rows.mean() + 0.5 - top) / (bottom - top + 1),
            (columns.mean() + 0.5 - left) / (right - left + 1),
        )
        assert measured == pytest.approx((down, across), abs=0.02), plane


@pytest.mark.slow
def test_page_asks_for_nothing_and_logs_no_error(tmp_path: Path, chromium: Chromium) -> None:
    study, anomaly_map, _ = write_study(tmp_path)
    path = _page(tmp_path, load_study(study, anomaly_map))
    assert chromium.open(path) == "ready"
    chromium.screenshot()
    others = [url for url in chromium.requests if not url.startswith("data:")]
    assert others == [path.resolve().as_uri()]
    assert chromium.messages == []


@pytest.mark.slow
def test_threshold_and_opacity_change_what_is_drawn(tmp_path: Path, chromium: Chromium) -> None:
    study, anomaly_map, _ = write_study(tmp_path)
    chromium.open(_page(tmp_path, load_study(study, anomaly_map)))
    chromium.set("planes", "0")

    def drawn() -> NDArray[np.bool_]:
        return _heat(chromium.screenshot("canvas"))

    whole = drawn().sum()
    chromium.set("threshold", 0.6)  # the cube's own value
    assert drawn().sum() == pytest.approx(whole, rel=0.02)
    chromium.set("threshold", 0.652)  # between the cube and its middle voxel
    middle = drawn().sum()
    assert 0 < middle / whole < 0.25
    chromium.set("threshold", 0.752)
    assert drawn().sum() == 0
    chromium.set("threshold", 0.5)
    strong = chromium.screenshot("canvas")
    marked = _heat(strong)
    chromium.set("opacity", 0.3)
    weak = chromium.screenshot("canvas")
    contrast = [(p[..., 0].astype(int) - p[..., 2])[marked].mean() for p in (strong, weak)]
    assert contrast[1] < 0.75 * contrast[0]
    chromium.set("opacity", 0)
    assert drawn().sum() == 0


@pytest.mark.slow
def test_slices_scroll_in_each_plane_and_by_the_strip(tmp_path: Path, chromium: Chromium) -> None:
    study, anomaly_map, _ = write_study(tmp_path, "LPS")
    chromium.open(_page(tmp_path, load_study(study, anomaly_map)))
    for plane, value, expected in (
        ("axial", 2, "18, 8, 2"),
        ("coronal", 7, "18, 20, 2"),
        ("sagittal", 23, "0, 20, 2"),
    ):
        chromium.set(plane, value)
        assert f"voxel {expected} of" in chromium.run(
            "document.getElementById('readout').textContent"
        )
    numbers = "[...document.querySelectorAll('output')].slice(2).map(o => o.value).join()"
    assert chromium.run(numbers) == "2,20,0"  # axial, coronal, sagittal, as in the file
    assert chromium.run("document.querySelectorAll('#strip .bar').length") == SHAPE[2] - 2
    assert chromium.run("document.querySelectorAll('#strip .bar.above').length") == 1
    chromium.run(
        "(s => { const b = s.getBoundingClientRect(); s.dispatchEvent(new MouseEvent('click',"
        f"{{clientX: b.left + b.width * {(MARK[2] + 0.5) / SHAPE[2]}, clientY: b.top + 5}})); }})"
        "(document.getElementById('strip'))"
    )
    assert chromium.run("document.getElementById('axial').value") == str(MARK[2])
    # A wheel over the axial plane goes to a neighbour.
    chromium.set("planes", "0")
    box = chromium.run(
        "(r => [r.x + r.width / 2, r.y + r.height / 2])"
        "(document.getElementById('canvas').getBoundingClientRect())"
    )
    chromium.call("Input.dispatchMouseEvent", type="mouseMoved", x=box[0], y=box[1])
    chromium.call(
        "Input.dispatchMouseEvent", type="mouseWheel", x=box[0], y=box[1], deltaX=0, deltaY=100
    )
    chromium.screenshot()
    assert abs(int(chromium.run("document.getElementById('axial').value")) - MARK[2]) == 1


@pytest.mark.slow
def test_score_threshold_and_decision_are_told(tmp_path: Path, chromium: Chromium) -> None:
    study, anomaly_map, _ = write_study(tmp_path)
    chromium.open(_page(tmp_path, load_study(study, anomaly_map)))
    told = "document.getElementById('decision')"
    decision = r"\b0\.800\b.*\b0\.04\b.*\b0\.700\b.*: anomalous$"
    assert re.search(decision, chromium.run(f"{told}.textContent"))
    (tmp_path / "study_anomaly.json").unlink()
    chromium.open(_page(tmp_path, load_study(study, anomaly_map)))
    assert "no scores" in chromium.run(f"{told}.textContent")
    assert chromium.run("document.querySelectorAll('#strip .threshold').length") == 0


@pytest.mark.slow
def test_next_finding_goes_from_one_to_the_other_and_the_worst_slice_comes_first(
    tmp_path: Path, chromium: Chromium
) -> None:
    study, anomaly_map, _ = write_study(tmp_path)
    image = nib.load(anomaly_map)
    heat = image.get_fdata(dtype=np.float32)
    heat[20, 4, 2] = 0.95  # higher than the mark, in a slice of a lower score
    write_nifti(anomaly_map, heat, image.affine)
    chromium.open(_page(tmp_path, load_study(study, anomaly_map)))

    def at() -> str:
        return str(chromium.run("document.getElementById('readout').textContent")).split("\n")[0]

    def told() -> str:
        return str(chromium.run("document.getElementById('finding').textContent"))

    mark, other = f"voxel {', '.join(map(str, MARK))} of the file", "voxel 20, 4, 2 of the file"
    assert (at(), told()) == (mark, "2 of 2 findings: map 0.700")
    chromium.run("document.getElementById('next').click()")
    assert (at(), told()) == (other, "1 of 2 findings: map 0.950")
    chromium.run("document.dispatchEvent(new KeyboardEvent('keydown', {key: 'n', bubbles: true}))")
    assert at() == mark
    chromium.run("document.getElementById('previous').click()")
    assert at() == other
    chromium.run("document.getElementById('worst').click()")
    assert at() == mark


@pytest.mark.slow
def test_a_map_without_finding_says_so(tmp_path: Path, chromium: Chromium) -> None:
    image, heat = volumes()
    study = write_nifti(tmp_path / "a.nii.gz", image)
    anomaly_map = write_nifti(tmp_path / "a_anomaly_map.nii.gz", heat / 2)
    chromium.open(_page(tmp_path, load_study(study, anomaly_map)))
    assert chromium.run("document.getElementById('next').disabled") is True
    finding = chromium.run("document.getElementById('finding').textContent")
    assert re.search(r"nowhere.*\b0\.5\b", finding)


@pytest.mark.slow
def test_windows_of_a_ct_change_the_image(tmp_path: Path, chromium: Chromium) -> None:
    image, heat = volumes()
    study = write_nifti(tmp_path / "ct.nii.gz", (image - 1000).astype(np.int16))  # air, -900 HU
    anomaly_map = write_nifti(tmp_path / "ct_anomaly_map.nii.gz", heat)
    chromium.open(_page(tmp_path, load_study(study, anomaly_map)))
    assert chromium.run("document.getElementById('window').value") == "abdomen"
    chromium.set("opacity", 0)
    dark = chromium.screenshot("canvas").mean()
    chromium.set("window", "lung")
    assert chromium.run("document.getElementById('black').value") == "-1350"
    assert chromium.screenshot("canvas").mean() > dark + 5


@pytest.mark.slow
def test_bscans_stand_upright(tmp_path: Path, chromium: Chromium) -> None:
    image = np.full((40, 30, 6), 100, np.int16)  # columns, rows, B-scans
    image[0, 0, 0] = 0
    heat = np.full(image.shape, 0.1, np.float32)
    heat[8:11, 21:24, 2] = 0.7
    study = write_nifti(tmp_path / "eye.nii.gz", image)
    anomaly_map = write_nifti(tmp_path / "eye_anomaly_map.nii.gz", heat)
    chromium.open(_page(tmp_path, load_study(study, anomaly_map, bscans=True)))
    chromium.set("planes", "0")
    image = chromium.screenshot("canvas")
    top, bottom, left, right = _ground(image)
    rows, columns = np.nonzero(_heat(image))
    measured = (rows.mean() - top) / (bottom - top), (columns.mean() - left) / (right - left)
    assert measured == pytest.approx((22.5 / 30, 9.5 / 40), abs=0.02)
    assert "mm" not in chromium.run("document.getElementById('readout').textContent")
    caption = chromium.run("document.querySelector('figcaption').textContent")
    assert re.search("highest.*B-scan", caption)
