"""Pictures of masks. Rows are deflated as they are: choosing a filter for each row takes most of Pillow's time."""

import struct
import zlib

import numpy as np

_SIGNATURE = b'\x89PNG\r\n\x1a\n'
_GREY_8_BIT = (8, 0, 0, 0, 0)               # bit depth, colour type, compression, filter method, interlace


def encode_mask(mask: np.ndarray) -> bytes:
    """Return an (h, w) bool mask as an 8-bit grey PNG file, 255 where it is True (ISO/IEC 15948)."""
    h, w = mask.shape
    rows = np.zeros((h, w + 1), dtype=np.uint8)                 # the first byte of a row is its filter: none
    rows[:, 1:][mask] = 255
    header = struct.pack('>II5B', w, h, *_GREY_8_BIT)
    chunks = ((b'IHDR', header), (b'IDAT', zlib.compress(rows.data, level=1)), (b'IEND', b''))
    return _SIGNATURE + b''.join(_encode_chunk(name, content) for name, content in chunks)


def _encode_chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack('>I', len(content)) + name + content + struct.pack('>I', zlib.crc32(name + content))
