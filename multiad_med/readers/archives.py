"""Archives, unpacked without trust in what they say about themselves."""

from __future__ import annotations

import os
import re
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any, Self

from multiad_med.utils.atomic import atomic_path
from multiad_med.utils.errors import MultiADError, reader_errors

__all__ = ["ArchiveError", "unpack"]

_CHUNK = 2**20
_RATIO = 1000
_RATIO_FLOOR = 100 * 2**20
_BLOCK = 512
_DRIVE = re.compile(r"^[A-Za-z]:")

_Member = tuple[str, int, IO[bytes] | None]
"""Name, declared size, and content; None for a folder."""


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
    of members are ignored. A backslash in a name counts as a separator. No more of a member is read
    than it declares, so it is the declared sizes that are checked.

    Args:
        archive: its first bytes tell the format, not its name.
        folder: must not exist, or be empty; the folder above it is made.
        max_bytes: most bytes that all members may have.
        max_members: most members.

    Returns:
        The folder.

    Raises:
        FileError: when it cannot be read, or the folder cannot be written.
        ArchiveError: when it is damaged, truncated, empty, encrypted or no zip or tar; when a
            member would lie outside the folder, is a link or a device, or comes twice; when it exceeds
            the limits or expands more than 1000-fold (beyond 100 MiB); when the folder holds something.
    """
    source, target = Path(archive), Path(folder)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ArchiveError(f"{target}: exists already and is not empty; choose another folder.")
    with reader_errors(source, ArchiveError, "cannot be unpacked"):
        bytes_left = min(max_bytes, max(_RATIO_FLOOR, _RATIO * source.stat().st_size))
        with source.open("rb") as stream:
            members = _zip_members if stream.read(2) == b"PK" else _tar_members
        with atomic_path(target) as partial:
            partial.mkdir()
            for count, (name, size, content) in enumerate(members(source), 1):
                bytes_left -= size
                if count > max_members:
                    raise ArchiveError(f"{source}: more members than allowed; see 'max_members'.")
                if bytes_left < 0:
                    raise ArchiveError(
                        f"{source}: expands to more than is allowed ('max_bytes', {_RATIO} times its "
                        f"size), at member {name!r}. If you trust it, unpack it by hand."
                    )
                _write(source, partial, name, content)
            if not any(partial.iterdir()):
                raise ArchiveError(f"{source}: the archive is empty.")
    return target


def _write(archive: Path, folder: Path, name: str, content: IO[bytes] | None) -> None:
    parts = PurePosixPath(name.replace("\\", "/"))
    if parts.is_absolute() or _DRIVE.match(name) or ".." in parts.parts or "\0" in name:
        raise ArchiveError(f"{archive}: member {name!r} would lie outside the folder; refused.")
    path = folder / parts
    if content is None:
        path.mkdir(parents=True, exist_ok=True)
        return
    if os.path.lexists(path):
        raise ArchiveError(f"{archive}: member {name!r} exists twice.")
    path.parent.mkdir(parents=True, exist_ok=True)
    with content, path.open("xb") as file:
        shutil.copyfileobj(content, file, _CHUNK)


def _zip_members(source: Path) -> Iterator[_Member]:
    with zipfile.ZipFile(source) as archive:
        for member in archive.infolist():
            kind = stat.S_IFMT(member.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise ArchiveError(f"{source}: member {member.filename!r} is a link or a device.")
            if member.flag_bits & 1:
                raise ArchiveError(f"{source}: member {member.filename!r} is encrypted.")
            # The name as stored: zipfile cuts it at a null byte.
            name = member.orig_filename
            is_folder = name.endswith(("/", "\\"))
            yield name, member.file_size, None if is_folder else archive.open(member)


class _Header(tarfile.TarInfo):
    """A tar's header, which may not ask for so many bytes at once that they would fill memory."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        """Return the header in a block."""
        header = super().frombuf(buf, encoding, errors)
        if not header.isfile() and header.size > _CHUNK:
            raise ValueError(f"damaged: a header claims {header.size} bytes")
        return header


def _tar_members(source: Path) -> Iterator[_Member]:
    with tarfile.open(source, tarinfo=_Header, errorlevel=2) as archive:
        for member in archive:
            if not (member.isfile() or member.isdir()):
                raise ArchiveError(f"{source}: member {member.name!r} is a link or a device.")
            yield member.name, member.size, archive.extractfile(member)
        # tarfile takes a damaged header for the end, and gzip checks its checksum only at its own end.
        stream: Any = archive.fileobj
        stream.seek(archive.offset)
        if stream.read(_BLOCK) != bytes(_BLOCK):
            raise ArchiveError(f"{source}: truncated or damaged: it has no end mark.")
        padding = 0
        while chunk := stream.read(_CHUNK):
            padding += len(chunk)
            if padding > _RATIO_FLOOR:
                raise ArchiveError(f"{source}: more than {_RATIO_FLOOR} bytes follow the end mark.")
