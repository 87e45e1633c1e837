"""Files for other programs, from records and masks: Topaz, EMAN, crYOLO, COCO and cryoDRGN."""

import contextlib
import pickle
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from cryogem.conventions import euler_to_matrix
from cryogem.dataset.tables import select_particles
from cryogem.io.files import replace_when_done
from cryogem.records import Micrograph, Particle

TOPAZ_HEAD = 'image_name\tx_coord\ty_coord\n'
COCO_CATEGORIES = [{'id': 1, 'name': 'particle', 'supercategory': 'particle'}]
_CBOX_COLUMNS = ('CoordinateX', 'CoordinateY', 'CoordinateZ', 'Width', 'Height', 'Depth', 'EstWidth', 'EstHeight',
                 'Confidence', 'NumBoxes', 'Angle')


def format_topaz(record: Micrograph) -> str:
    """Return the pickable particles as rows of Topaz: image name without extension, x, y, tab-separated."""
    return ''.join('\t'.join(map(str, (record.name, *particle.coordinate_xy))) + '\n'
                   for particle in select_particles(record))


def format_eman_boxes(record: Micrograph, box_size: int) -> str:
    """Return the pickable particles as EMAN1 boxes: x and y of the corner at the origin, width, height; px.

    The coordinate is the pixel at box_size // 2 of its box, as in every program of the field.
    """
    return ''.join(f'{x}\t{y}\t{box_size}\t{box_size}\n' for x, y in _list_corners(record, box_size))


def format_cryolo_boxes(record: Micrograph, box_size: int) -> str:
    """Return the pickable particles as a crYOLO CBOX file, version 1.0: corners and sizes in px, confidence 1."""
    lines = ['data_global', '', '_cbox_format_version 1.0', '', 'data_cryolo', '', 'loop_']
    lines += [f'_{column} #{i}' for i, column in enumerate(_CBOX_COLUMNS, 1)]
    lines += [f'{x:.1f} {y:.1f} <NA> {box_size:.1f} {box_size:.1f} <NA> {box_size:.1f} {box_size:.1f} 1.0 <NA> <NA>'
              for x, y in _list_corners(record, box_size)]
    return '\n'.join([*lines, '', 'data_cryolo_include', '', 'loop_', '_slice_index #1', '', ''])


def encode_instances(instance_mask: np.ndarray, record: Micrograph) -> list[dict[str, Any]]:
    """Return the COCO annotations of one micrograph: one for each particle that owns pixels of its (h, w) mask.

    Masks are uncompressed run lengths, column by column as COCO counts them, background first. ``id`` is the instance
    and ``image_id`` is left out: both are numbered when the files of all micrographs are brought together.
    """
    columns = np.ascontiguousarray(instance_mask.T)
    flat = columns.ravel()
    starts = np.concatenate([[0], np.flatnonzero(np.diff(flat)) + 1])
    ends, owners = np.append(starts[1:], flat.size), flat[starts]
    order = np.argsort(owners, kind='stable')
    bounds = np.searchsorted(owners[order], [0, *(one.instance_id for one in record.particles)], side='left')
    after = np.searchsorted(owners[order], [0, *(one.instance_id for one in record.particles)], side='right')
    annotations = []
    for particle, low, high in zip(record.particles, bounds[1:], after[1:], strict=True):
        if low == high:
            continue                                    # wholly below others: nothing of it is seen
        runs = order[low:high]
        annotations.append({
            'id': particle.instance_id, 'category_id': 1, 'iscrowd': 0,
            'area': int((ends[runs] - starts[runs]).sum()), **_encode_runs(starts[runs], ends[runs], columns.shape),
            'is_pickable': record.is_pickable(particle), 'visible_fraction': particle.visible_fraction})
    return annotations


def describe_image(record: Micrograph, image_id: int) -> dict[str, Any]:
    """Return the COCO entry of one micrograph."""
    return {'id': image_id, 'file_name': f'micrographs/{record.name}.mrc', 'height': record.shape[0],
            'width': record.shape[1]}


def write_cryodrgn(poses_path: Path, ctf_path: Path, records: Iterable[Micrograph], n: int, box_size: int) -> None:
    """Write poses.pkl and ctf.pkl of the n pickable particles of all records, as cryoDRGN reads them.

    ``poses.pkl`` is a tuple of (n, 3, 3) rotations and (n, 2) translations (x, y) in fractions of the box; ``ctf.pkl``
    is (n, 9): box (px), pixel size (Å), defocus U, V (Å), astigmatism angle (degrees), voltage (kV), Cs (mm), amplitude
    contrast, phase shift (degrees). All float32. They wait in files, not in memory.
    """
    with _open_array(poses_path.parent, (n, 9)) as rotations, _open_array(poses_path.parent, (n, 2)) as translations, \
            _open_array(poses_path.parent, (n, 9)) as optics:
        first = 0
        for record in records:
            own = [_describe_particle(record, one, box_size) for one in select_particles(record)]
            rows = slice(first, first + len(own))
            for array, part in zip((rotations, translations, optics), (slice(0, 9), slice(9, 11), slice(11, 20)),
                                   strict=True):
                array[rows] = np.array(own, dtype=np.float32).reshape(-1, 20)[:, part]
            first += len(own)
        with replace_when_done(poses_path) as temporary, temporary.open('wb') as file:
            pickle.dump((rotations.reshape(n, 3, 3), translations), file, protocol=5)
        with replace_when_done(ctf_path) as temporary, temporary.open('wb') as file:
            pickle.dump(optics, file, protocol=5)


@contextlib.contextmanager
def _open_array(folder: Path, shape: tuple[int, int]) -> Iterator[np.ndarray]:
    """Give a float32 array that lies in a file without a name."""
    if not shape[0]:
        yield np.empty(shape, dtype=np.float32)
        return
    with tempfile.TemporaryFile(dir=folder) as file:
        yield np.memmap(file, np.float32, 'w+', shape=shape).view(np.ndarray)


def _describe_particle(record: Micrograph, particle: Particle, box_size: int) -> list[float]:
    """Return 9 numbers of rotation, 2 of translation and 9 of optics."""
    rotation = euler_to_matrix(np.array([particle.rot, particle.tilt, particle.psi]))
    ctf = record.ctf.at_height(particle.height)
    return [*rotation.ravel(), *(one / box_size for one in particle.origin_xy), box_size, record.pixel_size,
            ctf.defocus_u, ctf.defocus_v, ctf.defocus_angle, ctf.voltage, ctf.spherical_aberration,
            ctf.amplitude_contrast, ctf.phase_shift]


def _list_corners(record: Micrograph, box_size: int) -> list[tuple[int, int]]:
    return [(x - box_size // 2, y - box_size // 2)
            for x, y in (particle.coordinate_xy for particle in select_particles(record))]


def _encode_runs(starts: np.ndarray, ends: np.ndarray, shape_xy: tuple[int, ...]) -> dict[str, Any]:
    """Return segmentation and bounding box (x, y, width, height) of pixels [start, end) counted along columns."""
    width, height = shape_xy
    edges = np.empty(2 * len(starts) + 2, dtype=np.int64)
    edges[0], edges[-1] = 0, width * height
    edges[1:-1:2], edges[2:-1:2] = starts, ends
    x_low, x_high = int(starts[0] // height), int((ends[-1] - 1) // height)
    is_whole = starts // height != (ends - 1) // height         # a run that goes on in the next column
    y_low = 0 if is_whole.any() else int((starts % height).min())
    y_high = height - 1 if is_whole.any() else int(((ends - 1) % height).max())
    return {'segmentation': {'size': [height, width], 'counts': np.diff(edges).tolist()},
            'bbox': [x_low, y_low, x_high - x_low + 1, y_high - y_low + 1]}
