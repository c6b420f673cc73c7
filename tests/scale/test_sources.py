"""Tables, datalists, folders and a DICOMweb server as sources; what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fsspec
import pytest

from multiad_med.data import DatalistError
from multiad_med.inference.predictor import StudyPredictor
from multiad_med.preparation.sources import StudyKind
from multiad_med.scale.fetch import check_scheme, fetch_folder, fetched, local_path
from multiad_med.scale.sources import ListedStudies, list_studies
from multiad_med.serving import FoundStudies, dicomweb
from multiad_med.serving.ledger import FoundStudy
from multiad_med.utils.errors import FileError, InputError, MultiADError
from tests.bundles.test_folder_inference import nifti_head

pa = pytest.importorskip("pyarrow", reason="needs the extra scale")


@pytest.fixture(scope="module")
def predictor(model: Path) -> StudyPredictor:
    return StudyPredictor(model, device="cpu", size=64)


def listed(source: object, predictor: StudyPredictor, out: Path) -> ListedStudies:
    return list_studies(str(source), predictor, output=out)


ROWS = [{"image": "a.nii.gz", "id": "x"}, {"image": "/d/b.nii.gz", "organ": "m.nii.gz", "id": None}]


def write_table(folder: Path, suffix: str) -> Path:
    path = folder / f"table{suffix}"
    if suffix == ".parquet":
        import pyarrow.parquet as pq

        schema = pa.schema(dict.fromkeys(("image", "organ", "id"), pa.string()))
        pq.write_table(pa.Table.from_pylist(ROWS, schema), path)
    elif suffix == ".csv":
        path.write_text("image,organ,id\na.nii.gz,,x\n/d/b.nii.gz,m.nii.gz,\n")
    elif suffix == ".jsonl":
        path.write_text("\n".join(json.dumps(row) for row in ROWS) + "\n")
    else:
        path.write_text(json.dumps(ROWS))
    return path


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl", ".json"])
def test_paths_of_a_table_are_relative_to_it(
    suffix: str, predictor: StudyPredictor, tmp_path: Path
) -> None:
    found = listed(write_table(tmp_path, suffix), predictor, tmp_path / "out")
    assert [study.item for study in found.studies] == [
        {"image": f"{tmp_path}/a.nii.gz"},
        {"image": "/d/b.nii.gz", "organ": f"{tmp_path}/m.nii.gz"},
    ]
    assert [study.id for study in found.studies] == ["x", ""]
    assert found.source == tmp_path


def test_a_table_of_addresses_may_be_behind_one(predictor: StudyPredictor, tmp_path: Path) -> None:
    text = "image\nmemory://b/a.nii.gz\nfile:///d/c.nii.gz\n"
    fsspec.filesystem("memory").pipe("/list.csv", text.encode())
    found = listed("memory://list.csv", predictor, tmp_path / "out")
    folder = fetch_folder(tmp_path / "out")
    assert found.source == folder
    assert found.studies[0].uris == {"image": "memory://b/a.nii.gz"}
    assert found.studies[0].item == {"image": str(folder / "memory/b/a.nii.gz")}
    assert found.studies[1].item == {"image": "/d/c.nii.gz"}
    fsspec.filesystem("memory").pipe("/list.csv", b"image\na.nii.gz\n")
    with pytest.raises(InputError, match=r"row 1: give an address, not the path a.nii.gz"):
        listed("memory://list.csv", predictor, tmp_path / "out")


def test_folders_and_datalists_are_listed_as_by_the_bundle(
    predictor: StudyPredictor, cohort: Path, tmp_path: Path
) -> None:
    names = [f"s{i}.nii.gz" for i in (4, 5)]
    for source in (cohort, cohort / "datalist.json"):
        found = listed(source, predictor, tmp_path / "out")
        assert [Path(study.item["image"]).name for study in found.studies] == names
        assert found.source == cohort
    image = nifti_head(tmp_path / "in/a.nii.gz")
    found = listed(image, predictor, tmp_path / "out")
    assert [study.item["image"] for study in found.studies] == [str(image)]
    assert found.source == image.parent


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("t.csv", "path\na\n", r"row 1: the column `image` must be .*The columns are \['path'\]"),
        ("t.csv", "image\n", "has no row"),
        ("t.jsonl", "{", "not a readable table"),
        ("t.json", "[1]", "some are no rows"),
        ("t.parquet", "nothing", "not a readable table"),
        ("t.csv", "image\nnosuch://b/a.nii.gz\n", "nosuch:// cannot be read here"),
    ],
)
def test_what_is_no_table_is_refused(
    name: str, content: str, why: str, predictor: StudyPredictor, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises((InputError, DatalistError), match=why):
        listed(tmp_path / name, predictor, tmp_path / "out")


def test_a_table_that_is_not_there_is_a_named_error(
    predictor: StudyPredictor, tmp_path: Path
) -> None:
    with pytest.raises(FileError, match=r"none.csv cannot be read"):
        listed(tmp_path / "none.csv", predictor, tmp_path / "out")


class FakePacs:
    """A DICOMweb server with two series."""

    made: list[dict[str, Any]] = []  # noqa: RUF012 - what it was asked for

    def __init__(self, url: str, *, folder: Path, **asked: Any) -> None:
        self.url, self.folder = url, folder
        self.made.append({"url": url, **asked})

    def find(self) -> FoundStudies:
        place = json.dumps({"study": "1.2"})
        return FoundStudies([FoundStudy(f"1.2.{n}", "6", place) for n in (1, 2)])

    def fetch(self, study: FoundStudy) -> None:
        assert json.loads(study.place) == {"study": "1.2"}
        assert study.version == "6"  # so that a series that comes in part is refused
        (self.folder / study.key).mkdir(parents=True)
        (self.folder / study.key / "0.dcm").write_text(self.url)


def test_a_search_of_a_dicomweb_server(
    predictor: StudyPredictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dicomweb, "DicomwebSource", FakePacs)
    source = "http://pacs:8042/dicom-web/?StudyDate=20260101-&Modality=MR"
    found = listed(source, predictor, tmp_path / "out")
    asked = FakePacs.made[-1]
    assert asked["url"] == "http://pacs:8042/dicom-web"
    assert asked["filters"] == {"StudyDate": "20260101-", "Modality": "MR"}
    folder = fetch_folder(tmp_path / "out")
    study = found.studies[1]
    uri = "http://pacs:8042/dicom-web/studies/1.2/series/1.2.2"
    assert (study.uris, study.id) == ({"image": uri}, "1.2.2")
    assert study.item == {"image": str(folder / "1.2.2")}
    with fetched(study, folder, StudyKind.MR):
        assert (folder / "1.2.2/0.dcm").read_text() == "http://pacs:8042/dicom-web"
    assert not (folder / "1.2.2").exists()


def test_a_search_by_no_attribute_of_dicom_is_refused(
    predictor: StudyPredictor, tmp_path: Path
) -> None:
    pytest.importorskip("dicomweb_client", reason="needs the extra pacs")
    with pytest.raises(MultiADError, match=r"such as StudyDate; 'StudyDat' is none"):
        listed("http://pacs/dicom-web?StudyDat=20260101", predictor, tmp_path / "out")


def test_a_table_behind_an_address_that_goes_on_is_a_table(
    predictor: StudyPredictor, tmp_path: Path
) -> None:
    with pytest.raises(FileError, match=r"t\.csv\?signature=1 cannot be read"):
        listed("http://127.0.0.1:9/t.csv?signature=1", predictor, tmp_path / "out")


def test_the_id_0_is_one(predictor: StudyPredictor, tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text(json.dumps([{"image": f"{n}.nii", "id": n} for n in range(2)]))
    found = listed(tmp_path / "t.json", predictor, tmp_path / "out")
    assert [study.id for study in found.studies] == ["0", "1"]


def test_an_organs_mask_that_two_images_share_is_fetched_for_each(
    predictor: StudyPredictor, tmp_path: Path
) -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe({f"/o/{name}.nii": name.encode() for name in ("arterial", "venous", "liver")})
    organ = "memory://o/liver.nii"
    rows = [{"image": f"memory://o/{name}.nii", "organ": organ} for name in ("arterial", "venous")]
    (tmp_path / "t.json").write_text(json.dumps(rows))
    first, second = listed(tmp_path / "t.json", predictor, tmp_path / "out").studies
    folder = fetch_folder(tmp_path / "out")
    with fetched(first, folder):
        with fetched(second, folder):
            assert Path(second.item["organ"]).read_text() == "liver"
        assert Path(first.item["organ"]).read_text() == "liver"
    assert not [path for path in folder.rglob("*") if path.is_file()]


def test_what_a_killed_worker_left_of_a_folder_is_fetched_anew(
    predictor: StudyPredictor, tmp_path: Path
) -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe({f"/series/{n}.dcm": str(n).encode() for n in range(3)})
    (tmp_path / "t.csv").write_text("image\nmemory://series\n")
    (study,) = listed(tmp_path / "t.csv", predictor, tmp_path / "out").studies
    place = Path(study.item["image"])
    place.mkdir(parents=True)
    (place / "0.dcm").write_text("half")
    with fetched(study, fetch_folder(tmp_path / "out")):
        found = {path.name: path.read_text() for path in place.iterdir()}
    assert found == {"0.dcm": "0", "1.dcm": "1", "2.dcm": "2"}


def test_what_is_fetched_is_its_owners_alone(predictor: StudyPredictor, tmp_path: Path) -> None:
    fsspec.filesystem("memory").pipe("/mine/a.nii", b"1")
    (tmp_path / "t.csv").write_text("image\nmemory://mine/a.nii\n")
    (study,) = listed(tmp_path / "t.csv", predictor, tmp_path / "out").studies
    folder = fetch_folder(tmp_path / "out")
    folder.mkdir(mode=0o755)
    with fetched(study, folder):
        assert folder.stat().st_mode & 0o777 == 0o700


def test_addresses_stay_inside_the_folder() -> None:
    assert local_path("s3://b/../../etc/x.nii", Path("/t")) == Path("/t/s3/b/etc/x.nii")
    check_scheme("memory://a")
    check_scheme("https://pacs/studies/1.2/series/1.3")
