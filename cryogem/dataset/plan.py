"""What a run writes, known before its first micrograph."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryogem import __version__
from cryogem.dataset import layout
from cryogem.errors import InputError
from cryogem.imaging.refinement import FineGrid
from cryogem.io.files import read_json
from cryogem.records import name_micrograph


@dataclass(frozen=True)
class Plan:
    """What a run writes: ``outline.json`` of its folder."""

    command: str                            # simulate or generate
    seed: int
    prefix: str                             # micrographs are prefix_00001, prefix_00002, ...
    n_micrographs: int
    pixel_size: float                       # Å/px of all that is written
    shape: tuple[int, int]                  # (h, w) of the micrographs, px
    box_size: int                           # px, of coordinates and particle images
    symmetry: str = 'C1'                    # but for C1 the tables also say the equivalent pose in the asymmetric unit
    particles: str = 'none'                 # particle stacks: none, clean, generated or both
    formats: tuple[str, ...] = ()           # what is written besides micrographs and RELION's tables
    pixel_type: str = 'float32'             # of the micrographs

    @property
    def has_images(self) -> bool:
        """Whether particles are cut from the micrographs."""
        return self.particles in ('generated', 'both')

    @property
    def has_clean_images(self) -> bool:
        """Whether noise-free particle images are made."""
        return self.particles in ('clean', 'both')

    def find_grid(self, working_pixel_size: float) -> FineGrid | None:
        """Return the pixels that are written, where they are not those that the run works with (Å/px)."""
        if abs(working_pixel_size / self.pixel_size - 1) < 1e-6:
            return None
        return FineGrid(working_pixel_size, self.pixel_size, self.shape)

    def list_names(self) -> Iterator[str]:
        """Yield the names of the micrographs by index."""
        return (name_micrograph(self.prefix, index) for index in range(self.n_micrographs))

    def to_json(self) -> dict[str, Any]:
        """Return the plan as plain JSON values."""
        return {'version': __version__, **dataclasses.asdict(self)}


def read_plan(folder: Path, key: str) -> Plan:
    """Read outline.json of a dataset folder that was given for the setting `key`.

    Raises
    ------
    InputError : it is missing, damaged or of another version.
    """
    values = read_json(folder / layout.OUTLINE, key)
    try:
        values.pop('version')
        return Plan(**{**values, 'shape': tuple(values['shape']), 'formats': tuple(values['formats'])})
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f'{key} {str(folder)!r} has a {layout.OUTLINE} that is damaged or of another version '
                         f'({error}); make the run again') from error
