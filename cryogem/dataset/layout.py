"""Names of the files in a dataset folder: written once, used by writer and reader."""

from pathlib import Path

CONFIG, MANIFEST, CALIBRATION = 'config.json', 'manifest.json', 'calibration.json'
OUTLINE = 'outline.json'                    # what is known before the first micrograph
MICROGRAPHS_STAR, PARTICLES_STAR, OTHERS_STAR = 'micrographs.star', 'particles.star', 'particles_other.star'
COORDINATES_TEXT = 'coordinates.txt'
STACK, CLEAN_STACK, CLEAN_PARTICLES_STAR = 'particles.mrcs', 'clean_particles.mrcs', 'clean_particles.star'
FOLDERS = ('micrographs', 'clean', 'masks', 'records', 'coordinates', 'specimen')


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


def record_path(folder: Path, name: str) -> Path:
    """Return where its record lies; it is written last, so its presence means that the micrograph is finished."""
    return folder / 'records' / f'{name}.json'


def coordinates_path(folder: Path, name: str) -> Path:
    """Return where the coordinates of its pickable particles lie."""
    return folder / 'coordinates' / f'{name}.star'


def volume_path(folder: Path, index: int) -> Path:
    """Return where a map lies as it was projected."""
    return folder / 'specimen' / f'volume_{index + 1:02d}.mrc'


def mask_path(folder: Path, index: int) -> Path:
    """Return where the soft solvent mask of that map lies."""
    return folder / 'specimen' / f'mask_{index + 1:02d}.mrc'
