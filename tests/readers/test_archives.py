"""Archives: unpacked wholly, or refused without a trace."""

from __future__ import annotations

import gzip
import io
import random
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from multiad_med.readers.archives import ArchiveError, unpack
from multiad_med.utils import FileError

FILES = {"a/1.dcm": b"one" * 1000, "a/b/2.dcm": b"two", "empty": b""}


def write_zip(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo("folder/"), b"")
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return path


def write_tar(path: Path, members: dict[str, bytes], mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as archive:
        folder = tarfile.TarInfo("folder")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def write_special_tar(path: Path, **fields: object) -> Path:
    member = tarfile.TarInfo("special")
    for name, value in fields.items():
        setattr(member, name, value)
    with tarfile.open(path, "w") as archive:
        archive.addfile(member)
    return path


def assert_refused(archive: Path, message: str | None = None, **options: int) -> None:
    before = sorted(path for path in archive.parent.rglob("*"))
    with pytest.raises(ArchiveError, match=message) as caught:
        unpack(archive, archive.parent / "out", **options)
    assert str(archive) in str(caught.value)
    assert sorted(archive.parent.rglob("*")) == before


@pytest.mark.parametrize("mode", ["zip", "w", "w:gz", "w:bz2", "w:xz"])
def test_archive_is_unpacked_whatever_its_name(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "study.bin"
    write_zip(path, FILES) if mode == "zip" else write_tar(path, FILES, mode)
    folder = unpack(path, tmp_path / "new" / "out")
    assert folder == tmp_path / "new" / "out"
    found = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
    assert {name: p.read_bytes() for name, p in found.items()} == FILES
    assert (folder / "folder").is_dir()
    assert [p.name for p in folder.parent.iterdir()] == ["out"]


def test_many_bytes_pass_that_do_not_compress(tmp_path: Path) -> None:
    content = random.Random(0).randbytes(3 * 2**20)
    for write in (write_zip, write_tar):
        archive = write(tmp_path / write.__name__, {"a": content})
        folder = unpack(archive, tmp_path / f"out-{write.__name__}")
        assert (folder / "a").read_bytes() == content


def test_archives_inside_stay_packed(tmp_path: Path) -> None:
    inner = write_zip(tmp_path / "inner.zip", FILES).read_bytes()
    folder = unpack(write_zip(tmp_path / "outer.zip", {"inner.zip": inner}), tmp_path / "out")
    assert (folder / "inner.zip").read_bytes() == inner


def test_backslashes_separate_folders(tmp_path: Path) -> None:
    folder = unpack(write_zip(tmp_path / "a.zip", {"s\\": b"", "s\\1.dcm": b"x"}), tmp_path / "out")
    assert (folder / "s" / "1.dcm").read_bytes() == b"x"


@pytest.mark.parametrize("write", [write_zip, write_tar])
@pytest.mark.parametrize(
    "name", ["../evil", "a/../../evil", "/evil", "C:\\evil", "c:evil", "..\\evil", "\\\\host\\evil"]
)
def test_members_that_climb_out_are_refused(
    tmp_path: Path, write: Callable[..., Path], name: str
) -> None:
    assert_refused(write(tmp_path / "a", {"good": b"x", name: b"x"}), "outside the folder")


@pytest.mark.parametrize(
    ("kind", "target"),
    [
        (tarfile.SYMTYPE, "/etc/passwd"),
        (tarfile.SYMTYPE, "../.."),
        (tarfile.LNKTYPE, "../secret"),
        (tarfile.CHRTYPE, ""),
        (tarfile.BLKTYPE, ""),
        (tarfile.FIFOTYPE, ""),
    ],
)
def test_links_and_devices_in_a_tar_are_refused(tmp_path: Path, kind: bytes, target: str) -> None:
    path = write_special_tar(tmp_path / "a.tar", type=kind, linkname=target)
    assert_refused(path, "a link or a device")


def test_links_in_a_zip_are_refused(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("link")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(link, "/etc")
    assert_refused(tmp_path / "a.zip", "a link or a device")


def test_encrypted_members_are_refused(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", {"a": b"x"})
    data = bytearray(path.read_bytes())
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.rindex(mark) + offset] |= 1
    path.write_bytes(data)
    assert_refused(path, "encrypted")


@pytest.mark.slow
@pytest.mark.parametrize("write", [write_zip, write_tar])
def test_expansion_beyond_the_ratio_is_refused(tmp_path: Path, write: Callable[..., Path]) -> None:
    assert_refused(write(tmp_path / "a", {"bomb": bytes(101 * 2**20)}), "expands to more")


@pytest.mark.parametrize("write", [write_zip, write_tar])
def test_limits_of_bytes_and_members_hold(tmp_path: Path, write: Callable[..., Path]) -> None:
    archive = write(tmp_path / "a", FILES)
    assert_refused(archive, "expands to more", max_bytes=3000)
    assert_refused(archive, "more members", max_members=3)
    assert unpack(archive, tmp_path / "out", max_bytes=3003, max_members=4).is_dir()


def test_a_header_that_claims_gigabytes_is_refused(tmp_path: Path) -> None:
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, 2**32
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(header.tobuf() + bytes(2**21)))
    assert_refused(tmp_path / "a.tar.gz", "a header claims")


@pytest.mark.slow
def test_padding_without_end_is_refused(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", FILES, "w")
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(path.read_bytes() + bytes(101 * 2**20)))
    assert_refused(tmp_path / "a.tar.gz", "follow the end mark")


def test_a_member_that_comes_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("same"))
        archive.addfile(tarfile.TarInfo("same"))
    assert_refused(path, "exists")


@pytest.mark.parametrize("kind", ["zip", "w", "w:gz", "w:bz2", "w:xz"])
@pytest.mark.parametrize("share", [0, 0.3, 0.7, 0.95])
def test_truncated_archives_are_refused(tmp_path: Path, kind: str, share: float) -> None:
    path = tmp_path / "a"
    content = {name: random.Random(0).randbytes(20000) for name in "xyz"}
    write_zip(path, content) if kind == "zip" else write_tar(path, content, kind)
    data = path.read_bytes()
    if kind == "w":
        data = data[: 512 + 3 * (512 + 20480)]  # tar's own end is 10 KiB of padding
    path.write_bytes(data[: int(share * len(data))])
    assert_refused(path)


def test_tar_without_its_end_mark_is_refused(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", {"a": b"x" * 512}, "w")
    path.write_bytes(path.read_bytes()[: 3 * 512])
    assert_refused(path, "no end mark")


def test_damage_is_noticed_by_the_checksum(tmp_path: Path) -> None:
    for write in (write_zip, write_tar):
        path = write(tmp_path / write.__name__, {"a": random.Random(0).randbytes(20000)})
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 0x10
        path.write_bytes(data)
        assert_refused(path)


@pytest.mark.parametrize("content", [b"", b"PK", b"just text", bytes(1024)])
def test_what_is_no_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(content)
    assert_refused(path)


def test_absent_archive_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"absent\.zip cannot be read: No such file"):
        unpack(tmp_path / "absent.zip", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    archive = write_zip(tmp_path / "a.zip", FILES)
    with pytest.raises(ArchiveError, match="not empty"):
        unpack(archive, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]
