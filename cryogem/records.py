"""Everything known about an image: the ground truth. Drawn once, before any pixel; the writers only write it."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from cryogem.conventions import split_center


def name_micrograph(prefix: str, index: int) -> str:
    """Return the name of micrograph `index` (from 0) of a run: prefix_00001, prefix_00002, ..."""
    return f'{prefix}_{index + 1:05d}'


@dataclass(frozen=True)
class Ctf:
    """Contrast transfer function of one micrograph or particle (RELION/CTFFIND form)."""

    defocus_u: float                        # Å, underfocus positive, defocus_u >= defocus_v
    defocus_v: float                        # Å
    defocus_angle: float                    # degrees from the x axis to U, [0, 180)
    voltage: float = 300.0                  # kV
    spherical_aberration: float = 2.7       # mm
    amplitude_contrast: float = 0.1         # fraction
    phase_shift: float = 0.0                # degrees
    b_factor: float = 0.0                   # Å², envelope exp(-B s²/4)

    def at_height(self, height: float) -> 'Ctf':
        """Return the CTF of a particle `height` Å above the focal plane of its micrograph."""
        return dataclasses.replace(self, defocus_u=self.defocus_u + height, defocus_v=self.defocus_v + height)


@dataclass(frozen=True)
class Particle:
    """One painted particle."""

    instance_id: int                        # value in the instance mask, from 1
    center_yx: tuple[float, float]          # px, sub-pixel
    height: float                           # Å, added to the micrograph's defocus
    rot: float                              # degrees, RELION ZYZ
    tilt: float
    psi: float
    volume_index: int = 0                   # conformer: which of the input maps, from 0
    random_subset: int = 1                  # 1 or 2
    visible_fraction: float = 1.0           # share of its projected mask inside the frame
    overlap_fraction: float = 0.0           # share of its visible projected mask that others cover too

    @property
    def coordinate_xy(self) -> tuple[int, int]:
        """Integer centre (x, y) as written in tables, px."""
        return split_center(self.center_yx[1])[0], split_center(self.center_yx[0])[0]

    @property
    def origin_xy(self) -> tuple[float, float]:
        """RELION origin (x, y) in px: what is left of the centre, ``centre = coordinate - origin``."""
        return split_center(self.center_yx[1])[1], split_center(self.center_yx[0])[1]


@dataclass(frozen=True)
class Micrograph:
    """One simulated or generated micrograph and all that was drawn for it."""

    index: int                              # from 0; with config and seed it determines everything else
    name: str                               # file name without folder and extension
    shape: tuple[int, int]                  # (h, w), px
    pixel_size: float                       # Å/px
    ctf: Ctf
    source: int                             # index of the real micrograph whose ice, noise and grey scale it takes
    ice_flips: tuple[bool, bool]            # ice mirrored along (y, x)
    signal_scale: float                     # contrast units per unit of projected density
    grey_mean: float                        # grey value of contrast 0
    grey_sd: float                          # grey values per contrast unit
    particles: tuple[Particle, ...] = field(default=())
    n_requested: int = 0                    # particles that were to lie inside the frame
    stored_scale: float = 1.0               # grey value = value in the file · stored_scale + stored_offset
    stored_offset: float = 0.0

    def is_pickable(self, particle: Particle, minimum_visible: float = 0.5) -> bool:
        """Say whether a picker should find `particle`: its coordinate inside the frame and enough of it visible."""
        return self.is_center_inside(particle) and particle.visible_fraction >= minimum_visible

    def is_center_inside(self, particle: Particle) -> bool:
        """Say whether the particle's integer coordinate is a pixel of the frame."""
        x, y = particle.coordinate_xy
        return 0 <= y < self.shape[0] and 0 <= x < self.shape[1]

    def to_json(self) -> dict[str, Any]:
        """Return the record as plain JSON values."""
        particles = tuple(dict(vars(one)) for one in self.particles)        # twenty times as fast as asdict
        return {**vars(self), 'ctf': dict(vars(self.ctf)), 'particles': particles}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> 'Micrograph':
        """Rebuild a record from `to_json` values read back from a file."""
        particles = tuple(
            Particle(**{**one, 'center_yx': tuple(one['center_yx'])}) for one in values['particles']
        )
        return cls(**{**values, 'shape': tuple(values['shape']), 'ice_flips': tuple(values['ice_flips']),
                      'ctf': Ctf(**values['ctf']), 'particles': particles})
