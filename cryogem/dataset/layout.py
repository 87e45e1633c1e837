"""Names of the files in a dataset folder: written once, used by writer and reader.

What may be relied upon while a run goes on, so that others can take up its micrographs one by one:

* ``outline.json`` (`cryogem.dataset.plan.Plan`) is there before the first micrograph. It says how many there will be,
  how they are named, and the pixel size (Å/px), shape (h, w) and box size (px) of all that is written.
* Files appear whole: they are written under a temporary name (``.NAME.PID.part``) and renamed.
* ``records/<name>.json`` appears after all other files of a micrograph: while it is there, the micrograph is finished.
  It is a JSON object: ``record`` (`cryogem.records.Micrograph`: index, name, shape, pixel_size, ctf, particles, ...)
  and ``checksums`` (SHA-256, by path relative to the folder, of all other files of the micrograph). Micrographs are
  finished in any order.
* ``manifest.json`` appears last, after all tables and stacks. While it is there, what it lists is there and complete.
"""

from collections.abc import Iterator
from pathlib import Path

CONFIG, MANIFEST, CALIBRATION = 'config.json', 'manifest.json', 'calibration.json'
OUTLINE = 'outline.json'                    # what is known before the first micrograph
MICROGRAPHS_STAR, PARTICLES_STAR, OTHERS_STAR = 'micrographs.star', 'particles.star', 'particles_other.star'
COORDINATES_TEXT, INSTANCES = 'coordinates.txt', 'instances.json'
POSES_PICKLE, CTF_PICKLE = 'poses.pkl', 'ctf.pkl'
STACK, CLEAN_STACK, CLEAN_PARTICLES_STAR = 'particles.mrcs', 'clean_particles.mrcs', 'clean_particles.star'
CALIBRATION_REPORT = 'calibration/report.html'           # what was measured, for people, beside calibration.json
CALIBRATION_CURVES, CALIBRATION_SHEET = 'calibration/curves.png', 'calibration/micrographs.png'
OUTLIERS = 'masks'                         # folder beside that report
FOLDERS = ('micrographs', 'clean', 'masks', 'records', 'coordinates', 'boxes', 'specimen')


def micrograph_path(folder: Path, name: str) -> Path:
    """Return where the micrograph lies."""
    return folder / 'micrographs' / f'{name}.mrc'


def clean_path(folder: Path, name: str) -> Path:
    """Return where its noise-free twin lies: signal with CTF, contrast units, no ice."""
    return folder / 'clean' / f'{name}.mrc'


def instance_mask_path(folder: Path, name: str) -> Path:
    """Return where its instance mask lies: one number per particle, 0 outside."""
    return folder / 'masks' / f'{name}.mrc'


def semantic_mask_path(folder: Path, name: str) -> Path:
    """Return where the picture of its semantic mask lies: 255 on particles."""
    return folder / 'masks' / f'{name}.png'


def instances_path(folder: Path, name: str) -> Path:
    """Return where the run-length encoded masks of its particles lie, as in COCO files."""
    return folder / 'masks' / f'{name}.json'


def record_path(folder: Path, name: str) -> Path:
    """Return where its record lies; it is written last, so its presence means that the micrograph is finished."""
    return folder / 'records' / f'{name}.json'


def coordinates_path(folder: Path, name: str) -> Path:
    """Return where the coordinates of its pickable particles lie."""
    return folder / 'coordinates' / f'{name}.star'


def eman_boxes_path(folder: Path, name: str) -> Path:
    """Return where the boxes of its pickable particles lie for EMAN."""
    return folder / 'boxes' / f'{name}.box'


def cryolo_boxes_path(folder: Path, name: str) -> Path:
    """Return where the boxes of its pickable particles lie for crYOLO."""
    return folder / 'boxes' / f'{name}.cbox'


def list_paths(folder: Path, name: str) -> Iterator[Path]:
    """Yield every path that a micrograph can have a file at, its record first."""
    for path in (record_path, micrograph_path, clean_path, instance_mask_path, semantic_mask_path, instances_path,
                 coordinates_path, eman_boxes_path, cryolo_boxes_path):
        yield path(folder, name)


def outlier_path(folder: Path, name: str) -> Path:
    """Return where the picture of what is left out of a real micrograph lies: 255 on carbon, crystals, dirt."""
    return (folder / CALIBRATION_REPORT).parent / OUTLIERS / f'{name}.png'


def volume_path(folder: Path, index: int) -> Path:
    """Return where a map lies as it was projected."""
    return folder / 'specimen' / f'volume_{index + 1:02d}.mrc'


def mask_path(folder: Path, index: int) -> Path:
    """Return where the soft solvent mask of that map lies."""
    return folder / 'specimen' / f'mask_{index + 1:02d}.mrc'
