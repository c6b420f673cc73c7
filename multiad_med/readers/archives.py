"""Archives from others, unpacked without trust in what they say about themselves."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import re
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from multiad_med.utils.atomic import atomic_path
from multiad_med.utils.errors import MultiADError, reader_errors

__all__ = ["ArchiveError", "unpack"]

_CHUNK = 2**20
_RATIO = 1000
_RATIO_FLOOR = 100 * 2**20
_BLOCK = 512
_DRIVE = re.compile(r"^[A-Za-z]:")
_COMPRESSIONS: dict[bytes, Callable[..., Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ": lzma.open,
}


class ArchiveError(MultiADError, ValueError):
    """An archive was not unpacked; the message names it, the member, and the reason."""


def unpack(
    archive: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    max_bytes: int = 200 * 10**9,
    max_members: int = 1_000_000,
) -> Path:
    """Unpack a zip or tar archive (plain, gzip, bzip2 or xz) into a new folder, wholly or not at all.

    Members are plain files and folders; archives among them stay packed. Permissions, owners and times
    of members are not taken over. A backslash in a name counts as a separator.

    Args:
        archive: its first bytes tell the format, not its name.
        folder: must not exist, or be empty; the folder above it is made.
        max_bytes: most bytes that all members may have; what is written is counted, not what is declared.
        max_members: most members.

    Returns:
        The folder.

    Raises:
        FileError: when it cannot be read, or the folder not be written.
        ArchiveError: when it is damaged, truncated, empty, encrypted or no zip or tar; when a
            member would lie outside the folder, is a link or a device, or comes twice; when it exceeds
            the limits or expands more than 1000-fold (beyond 100 MiB); when the folder holds something.
    """
    source, target = Path(archive), Path(folder)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ArchiveError(f"{target}: exists already and is not empty; choose another folder.")
    with reader_errors(source, ArchiveError, "cannot be unpacked"):
        size = source.stat().st_size
        limit = min(max_bytes, max(_RATIO_FLOOR, _RATIO * size))
        with source.open("rb") as stream:
            members = _zip_members if stream.read(2) == b"PK" else _tar_members
        with atomic_path(target) as partial:
            partial.mkdir()
            writer = _Writer(source, partial, limit, max_members)
            for name, content in members(source):
                writer.add(name, content)
            if not any(partial.iterdir()):
                raise ArchiveError(f"{source}: the archive is empty.")
    return target


@dataclass
class _Writer:
    archive: Path
    folder: Path
    bytes_left: int
    members_left: int

    def add(self, name: str, content: IO[bytes] | None) -> None:
        """Write a file, or make a folder if there is no content."""
        self.members_left -= 1
        if self.members_left < 0:
            raise ArchiveError(f"{self.archive}: more members than allowed; see 'max_members'.")
        path = self.folder.joinpath(*_inside(self.archive, name))
        if content is None:
            path.mkdir(parents=True, exist_ok=True)
            return
        if os.path.lexists(path):
            raise ArchiveError(f"{self.archive}: member {name!r} exists twice.")
        path.parent.mkdir(parents=True, exist_ok=True)
        with content, path.open("xb") as file:
            while chunk := content.read(_CHUNK):
                self.bytes_left -= len(chunk)
                if self.bytes_left < 0:
                    raise ArchiveError(
                        f"{self.archive}: expands to more than is allowed ('max_bytes', {_RATIO} times "
                        f"its size), at member {name!r}. If it is to be trusted, unpack it by hand."
                    )
                file.write(chunk)


def _inside(archive: Path, name: str) -> tuple[str, ...]:
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or _DRIVE.match(name) or ".." in path.parts or "\0" in name:
        raise ArchiveError(f"{archive}: member {name!r} would lie outside the folder; refused.")
    return path.parts


def _zip_members(source: Path) -> Iterator[tuple[str, IO[bytes] | None]]:
    with zipfile.ZipFile(source) as archive:
        for member in archive.infolist():
            kind = stat.S_IFMT(member.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise ArchiveError(f"{source}: member {member.filename!r} is a link or a device.")
            if member.flag_bits & 1:
                raise ArchiveError(f"{source}: member {member.filename!r} is encrypted.")
            # The name as stored: zipfile cuts it at a null byte.
            name = member.orig_filename
            yield name, None if name.endswith(("/", "\\")) else archive.open(member)


def _tar_members(source: Path) -> Iterator[tuple[str, IO[bytes] | None]]:
    with source.open("rb") as stream:
        start = stream.read(6)
        stream.seek(0)
        opener = next((o for magic, o in _COMPRESSIONS.items() if start.startswith(magic)), None)
        content = _Guarded(opener(stream) if opener else stream, source)
        with tarfile.open(fileobj=content, mode="r:", errorlevel=2) as archive:
            for member in archive:
                if not (member.isfile() or member.isdir()):
                    raise ArchiveError(f"{source}: member {member.name!r} is a link or a device.")
                yield member.name, None if member.isdir() else archive.extractfile(member)
        # tarfile takes a damaged header for the end, and gzip checks its sum only at its own end.
        if content.last != bytes(_BLOCK):
            raise ArchiveError(f"{source}: truncated or damaged: it has no end mark.")
        padding = 0
        while chunk := content.read(_CHUNK):
            padding += len(chunk)
            if padding > _RATIO_FLOOR:
                raise ArchiveError(f"{source}: more than {_RATIO_FLOOR} bytes follow the end mark.")


class _Guarded(io.RawIOBase):
    """A tar's bytes, of which no header may ask for so many at once that they would fill the memory.

    Attributes:
        last: what was read last.
    """

    def __init__(self, stream: IO[bytes], source: Path) -> None:
        self.stream = stream
        self.source = source
        self.last = b""

    def read(self, size: int = -1) -> bytes:
        """The next bytes, at most one chunk."""
        if not 0 <= size <= _CHUNK:
            raise ArchiveError(f"{self.source}: damaged: a header claims {size} bytes.")
        self.last = self.stream.read(size)
        return self.last

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a position."""
        return self.stream.seek(offset, whence)

    def tell(self) -> int:
        """The position."""
        return self.stream.tell()
