"""The image size that a compressed frame itself states, which decoders allocate by."""

from __future__ import annotations

import struct

__all__ = ["codestream_shape"]

_JPEG_2000_START = b"\xff\x4f\xff\x51"
_JPEG_START = b"\xff\xd8"
# Start-of-frame markers of JPEG (all but DHT, JPG and DAC in C0..CF) and JPEG-LS (F7).
_JPEG_FRAMES = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
_JPEG_SCAN = 0xDA


def codestream_shape(data: bytes) -> tuple[int, int] | None:
    """Return rows and columns of a JPEG, JPEG-LS or JPEG 2000 frame; None if its header is damaged.

    A JPEG 2000 frame may lie in a JP2 file's boxes, before which nothing else is large.
    """
    try:
        if data.startswith(_JPEG_START):
            return _jpeg_shape(data)
        start = data.index(_JPEG_2000_START, 0, 1024)
        right, bottom, left, top = struct.unpack_from(">4I", data, start + 8)
    except (ValueError, struct.error):
        return None
    return bottom - top, right - left


def _jpeg_shape(data: bytes) -> tuple[int, int] | None:
    offset = len(_JPEG_START)
    while True:
        prefix, marker, length = struct.unpack_from(">BBH", data, offset)
        if prefix != 0xFF or marker == _JPEG_SCAN:
            return None
        if marker in _JPEG_FRAMES:
            _, rows, columns = struct.unpack_from(">BHH", data, offset + 4)
            return rows, columns
        # A fill byte may stand before a marker.
        offset += 1 if marker == 0xFF else 2 + length
