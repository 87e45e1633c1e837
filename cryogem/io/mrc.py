"""Images and volumes: MRC through mrcfile, TIFF and PNG through tifffile and Pillow."""

import contextlib
import enum
import hashlib
import math
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
from mrcfile.constants import MAP_ID
from mrcfile.dtypes import HEADER_DTYPE
from mrcfile.utils import machine_stamp_from_byte_order, mode_from_dtype

from cryogem.errors import InputError
from cryogem.io.files import replace_when_done

_IMAGE_SUFFIXES = {'.png', '.jpg', '.jpeg'}
_TIFF_SUFFIXES = {'.tif', '.tiff'}
LABEL = 'made by cryogem'


def read_micrograph(path: Path, pixel_size: float | None = None) -> tuple[np.ndarray, float]:
    """Read one micrograph of any type.

    Parameters
    ----------
    path : MRC (also a stack of one image), TIFF or PNG file.
    pixel_size : Å/px, or None to take it from the MRC header.

    Returns
    -------
    (h, w) float32 image and its pixel size, Å/px.

    Raises
    ------
    InputError : not readable, not a single grey image, not finite, or no pixel size to be had.
    """
    header_pixel_size = None
    if path.suffix.lower() in _TIFF_SUFFIXES | _IMAGE_SUFFIXES:
        image = _read_picture(path)
    else:
        image, header_pixel_size = _read_mrc(path, 'micrograph')
    image = image[0] if image.ndim == 3 and image.shape[0] == 1 else image
    if image.ndim != 2 or min(image.shape) < 2:
        raise InputError(f'micrograph {str(path)!r} has shape {image.shape}; give files that hold one grey image each')
    image = np.asarray(image, dtype=np.float32)
    if not np.isfinite(image).all():
        raise InputError(f'micrograph {str(path)!r} holds values that are not finite; repair or leave it out')
    return image, _choose_pixel_size(path, pixel_size, header_pixel_size, 'micrograph')


def read_volume(path: Path, pixel_size: float | None = None) -> tuple[np.ndarray, float]:
    """Read a map.

    Returns
    -------
    (n, n, n) float32 density in z, y, x order and its pixel size, Å/px.

    Raises
    ------
    InputError : not readable, not cubic, constant, not finite, or no pixel size to be had.
    """
    volume, header_pixel_size = _read_mrc(path, 'volume')
    if volume.ndim != 3 or len(set(volume.shape)) != 1:
        raise InputError(f'volume {str(path)!r} has shape {volume.shape}; pad or crop it to a cube')
    volume = np.asarray(volume, dtype=np.float32)
    if not np.isfinite(volume).all():
        raise InputError(f'volume {str(path)!r} holds values that are not finite; repair the map')
    if volume.min() == volume.max():
        raise InputError(f'volume {str(path)!r} is constant ({volume.flat[0]:g}); give a map that holds a particle')
    return volume, _choose_pixel_size(path, pixel_size, header_pixel_size, 'volume')


def read_own_volume(path: Path) -> tuple[np.ndarray, float]:
    """Read a map that this program wrote, as `read_volume` does: here 1 Å in the header is no blank."""
    with _open_mrc(path, 'volume', header_only=True) as file:
        header_pixel_size = _read_voxel_size(file)
    return read_volume(path, header_pixel_size or None)


def read_micrograph_header(path: Path, pixel_size: float | None = None) -> tuple[tuple[int, int], float]:
    """Return shape (h, w) and pixel size (Å/px) of a micrograph; an MRC file is not read whole for it."""
    if path.suffix.lower() in _TIFF_SUFFIXES | _IMAGE_SUFFIXES:
        image, pixel_size = read_micrograph(path, pixel_size)
        return (image.shape[0], image.shape[1]), pixel_size
    with _open_mrc(path, 'micrograph', header_only=True) as file:
        shape, header_pixel_size = (int(file.header.ny), int(file.header.nx)), _read_voxel_size(file)
    return shape, _choose_pixel_size(path, pixel_size, header_pixel_size, 'micrograph')


def write_image(path: Path, image: np.ndarray, pixel_size: float, label: str = LABEL) -> str:
    """Write an (h, w) image as MRC (ISPG 0) with its voxel size, whole or not at all; return its SHA-256.

    Parameters
    ----------
    image : int8, int16, float16 (mode 12) or float32.
    label : at most 80 ASCII characters, the first text label of the header.
    """
    return _write_mrc(path, image, pixel_size, _Kind.IMAGES, label)


def write_volume(path: Path, volume: np.ndarray, pixel_size: float) -> None:
    """Write an (n, n, n) map as MRC (ISPG 1) with its voxel size, whole or not at all."""
    _write_mrc(path, volume, pixel_size, _Kind.VOLUME)


def write_stack(path: Path, images: np.ndarray, pixel_size: float) -> None:
    """Write (n, h, w) particle images as an MRC stack (ISPG 0, mz 1), whole or not at all."""
    _write_mrc(path, images, pixel_size, _Kind.IMAGES)


class StackWriter:
    """Writes a stack of n (box, box) images one by one, whole or not at all, without holding them in memory."""

    def __init__(self, path: Path, n: int, box_size: int, pixel_size: float):
        self._path, self._shape, self._pixel_size = path, (n, box_size, box_size), pixel_size
        self._low, self._high, self._sum, self._squares = np.inf, -np.inf, 0.0, 0.0

    def __enter__(self) -> 'StackWriter':
        with contextlib.ExitStack() as opening:         # what fails here must still be told and cleared away
            temporary = opening.enter_context(replace_when_done(self._path))
            self._file = opening.enter_context(temporary.open('wb'))
            if self._shape[0]:                          # MRC cannot hold an empty stack
                self._file.write(bytes(HEADER_DTYPE.itemsize))
            self._closing = opening.pop_all()
        return self

    def append(self, image: np.ndarray) -> None:
        """Write the next image, float32."""
        self._file.write(np.ascontiguousarray(image, dtype='<f4').data)
        self._low, self._high = min(self._low, float(image.min())), max(self._high, float(image.max()))
        self._sum += float(image.sum(dtype=np.float64))
        self._squares += float(np.square(image, dtype=np.float64).sum())

    def __exit__(self, *error: Any) -> None:
        if self._shape[0] and error[0] is None:
            mean = self._sum / math.prod(self._shape)
            deviation = math.sqrt(max(0.0, self._squares / math.prod(self._shape) - mean ** 2))
            statistics = (self._low, self._high, mean, deviation)
            self._file.seek(0)
            self._file.write(_build_header(self._shape, np.dtype(np.float32), self._pixel_size, statistics))
        self._closing.__exit__(*error)


class _Kind(enum.Enum):
    """How programs are to see three dimensions: as slices of one density, or as images."""

    IMAGES = 0                                          # the number of its space group in the header (ISPG)
    VOLUME = 1


def _write_mrc(path: Path, data: np.ndarray, pixel_size: float, kind: _Kind, label: str = LABEL) -> str:
    data = np.ascontiguousarray(data)
    header = _build_header(data.shape, data.dtype, pixel_size, _measure_statistics(data), kind, label)
    digest = hashlib.sha256(header)
    digest.update(data.data)
    with replace_when_done(path) as temporary, temporary.open('wb') as file:
        file.write(header)
        file.write(data.data)
    return digest.hexdigest()


def _measure_statistics(data: np.ndarray) -> tuple[float, float, float, float]:
    """Return minimum, maximum, mean and sd; in one thread, so that they do not depend on the number of threads."""
    exact = data if data.dtype == np.float32 else data.astype(np.float32)
    return float(data.min()), float(data.max()), float(exact.mean(dtype=np.float64)), float(exact.std())


def _build_header(
    shape: tuple[int, ...], dtype: np.dtype, pixel_size: float, statistics: tuple[float, float, float, float],
    kind: _Kind = _Kind.IMAGES, label: str = LABEL,
) -> bytes:
    """Return the 1024 bytes before the data (MRC2014). mrcfile's own writing stamps the time, which would change the
    checksum, and passes over the data several times."""
    header = np.zeros((), dtype=HEADER_DTYPE).view(np.recarray)
    depth, height, width = shape if len(shape) == 3 else (1, *shape)
    header.nx, header.ny, header.nz = header.mx, header.my, header.mz = width, height, depth
    header.mz = depth if kind is _Kind.VOLUME else 1
    header.mode, header.ispg = mode_from_dtype(dtype), kind.value
    header.cella = (width * pixel_size, height * pixel_size, int(header.mz) * pixel_size)
    header.cellb = (90, 90, 90)
    header.mapc, header.mapr, header.maps = 1, 2, 3
    header.dmin, header.dmax, header.dmean, header.rms = statistics
    header.map, header.nversion = MAP_ID, 20141
    header.machst = machine_stamp_from_byte_order('<')
    header.label[0], header.nlabl = label.encode('ascii'), 1
    return header.tobytes()


def _open_mrc(path: Path, what: str, header_only: bool = False) -> mrcfile.mrcfile.MrcFile:
    try:
        return mrcfile.open(path, permissive=False, header_only=header_only)
    except OSError as error:
        raise InputError(f'{what} {str(path)!r} cannot be read: {error}; check the path') from error
    except ValueError as error:
        raise InputError(f'{what} {str(path)!r} is not a valid MRC file: {error}; convert it to MRC') from error


def _read_mrc(path: Path, what: str) -> tuple[np.ndarray, float]:
    with _open_mrc(path, what) as file:
        return np.array(file.data), _read_voxel_size(file)


def _read_voxel_size(file: mrcfile.mrcfile.MrcFile) -> float:
    return float(file.voxel_size.x)


def _read_picture(path: Path) -> np.ndarray:
    import tifffile
    from PIL import Image
    try:
        if path.suffix.lower() in _TIFF_SUFFIXES:
            return np.asarray(tifffile.imread(path))
        with Image.open(path) as picture:
            return np.asarray(picture.convert('L') if picture.mode in ('RGB', 'RGBA', 'P') else picture)
    except (OSError, ValueError, tifffile.TiffFileError) as error:
        raise InputError(f'micrograph {str(path)!r} cannot be read: {error}; give MRC, TIFF or PNG') from error


def _choose_pixel_size(path: Path, said: float | None, header: float | None, what: str) -> float:
    """Return the said pixel size, else the header's unless it is an obvious blank (0, or the 1 Å of many programs)."""
    if said is not None:
        return said
    if header is None or header <= 0 or header == 1.0:
        shown = 'no' if header is None else f'{header:g} Å as'
        setting = 'volume_pixel_size' if what == 'volume' else 'pixel_size'
        raise InputError(f'{setting} is missing: {what} {str(path)!r} has {shown} pixel size in its header; '
                         'give the pixel size in Å/px')
    return header
