"""A folder that cannot be of a domain is told before anything heavy is imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from multiad_med.cli.data import check_data
from multiad_med.utils import InputError

VOLUMES = ["brain_mri", "liver_ct"]


def _folder(parent: Path, *names: str) -> Path:
    folder = parent / "data"
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    folder.mkdir(exist_ok=True)
    return folder


@pytest.mark.parametrize("domain", VOLUMES)
def test_images_are_refused_by_domains_of_volumes(tmp_path: Path, domain: str) -> None:
    folder = _folder(tmp_path, "a/x.PNG", "a/y.jpg", "notes.txt", ".DS_Store")
    with pytest.raises(InputError, match=rf"images.*\bx\.PNG\b.*\b{domain}\b") as t:
        check_data(folder, domain)
    assert "industrial" in str(t.value)
    with pytest.raises(InputError, match="holds images"):
        check_data(folder / "a" / "y.jpg", domain)


@pytest.mark.parametrize(
    ("domain", "hint"), [("industrial", "brain_mri"), ("generalist", "`multiad prepare` each")]
)
def test_volumes_are_refused_by_the_domains_of_images(
    tmp_path: Path, domain: str, hint: str
) -> None:
    folder = _folder(tmp_path, "p1/x.nii.gz", "p2/y.dcm")
    with pytest.raises(InputError, match=rf"volumes.*\bx\.nii\.gz\b.*{hint}"):
        check_data(folder, domain)


@pytest.mark.parametrize("domain", [*VOLUMES, "retina_oct", "industrial"])
def test_an_empty_folder_and_none_are_told(tmp_path: Path, domain: str) -> None:
    with pytest.raises(InputError, match="holds no studies"):
        check_data(_folder(tmp_path, "readme.md"), domain)
    with pytest.raises(InputError, match="does not exist"):
        check_data(tmp_path / "nowhere", domain)


@pytest.mark.parametrize(
    ("domain", "name"),
    [
        *(("brain_mri", name) for name in ("x.nii", "IM0001", "x.dcm", "x.img")),
        *(("retina_oct", name) for name in ("x.png", "x.nii.gz", "x.vol")),
        *(("industrial", name) for name in ("x.png", "x.webp")),
        ("brain_mri", "datalist.json"),
        ("industrial", "cache.json"),
    ],
)
def test_what_may_fit_passes(tmp_path: Path, domain: str, name: str) -> None:
    check_data(_folder(tmp_path, "note.txt", name), domain)


def test_it_is_told_without_torch(tmp_path: Path) -> None:
    folder = _folder(tmp_path, "x.png")
    code = (
        "import sys\nfrom multiad_med.cli import app\n"
        f"try: app(['train', 'brain_mri', {str(folder)!r}, '-o', 'out'])\n"
        "finally: print('torch' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 2
    assert run.stdout == "False\n"
    assert run.stderr.startswith("Error: ")
