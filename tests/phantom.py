"""An analytic particle: a sum of Gaussians whose density and projections are known in closed form."""

from dataclasses import dataclass

import numpy as np

from cryogem.specimen.volume import PreparedVolume, measure_diameter


@dataclass(frozen=True)
class GaussianPhantom:
    """Gaussians in space; lengths in Å, positions x, y, z from the rotation centre."""

    positions: np.ndarray                   # (k, 3) Å
    widths: np.ndarray                      # (k,) Å, standard deviations
    heights: np.ndarray                     # (k,) density at the centre of each

    def render(self, box_size: int, pixel_size: float) -> np.ndarray:
        """Return the (n, n, n) density in z, y, x order, the rotation centre at n // 2."""
        axis = (np.arange(box_size) - box_size // 2) * pixel_size
        density = np.zeros((box_size,) * 3)
        for (x, y, z), width, height in zip(self.positions, self.widths, self.heights, strict=True):
            profiles = [np.exp(-(axis - center) ** 2 / (2 * width ** 2)) for center in (z, y, x)]
            density += height * np.einsum('z,y,x->zyx', *profiles)
        return density.astype(np.float32)

    def project(
        self, box_size: int, pixel_size: float, rotation: np.ndarray, shift_yx: tuple[float, float] = (0.0, 0.0)
    ) -> np.ndarray:
        """Return the (n, n) line integrals along z, density·px, of the phantom turned by `rotation`, then moved."""
        axis = (np.arange(box_size) - box_size // 2) * pixel_size
        image = np.zeros((box_size, box_size))
        for position, width, height in zip(self.positions @ rotation.T, self.widths, self.heights, strict=True):
            y = np.exp(-(axis - position[1] - shift_yx[0] * pixel_size) ** 2 / (2 * width ** 2))
            x = np.exp(-(axis - position[0] - shift_yx[1] * pixel_size) ** 2 / (2 * width ** 2))
            image += height * np.sqrt(2 * np.pi) * width / pixel_size * y[:, None] * x
        return image

    def centroid(self) -> np.ndarray:
        """Return the (3,) centre of mass, Å."""
        masses = self.heights * self.widths ** 3
        return masses @ self.positions / masses.sum()

    def prepare(self, box_size: int, pixel_size: float, edge: float = 0.05) -> PreparedVolume:
        """Return the phantom as a map ready for projection; its mask is where it exceeds `edge` of its maximum."""
        density = self.render(box_size, pixel_size)
        mask = (density > edge * density.max()).astype(np.float32)
        return PreparedVolume(density, mask, pixel_size, measure_diameter(mask, pixel_size))


def make_chiral_phantom(scale: float = 1.0) -> GaussianPhantom:
    """Return four Gaussians, no two alike, whose mirror image is not the same particle; about 90 Å at scale 1."""
    positions = np.array([[0.0, 0.0, 0.0], [25.0, 3.0, -4.0], [-4.0, 20.0, 10.0], [6.0, -8.0, 28.0]])
    return GaussianPhantom(scale * positions, scale * np.array([10.0, 7.0, 8.0, 6.5]), np.array([1.0, 1.6, 1.2, 2.0]))


def relative_error(found: np.ndarray, expected: np.ndarray) -> float:
    """Return the root mean square of the difference over that of what is expected."""
    return float(np.sqrt(np.mean((np.asarray(found) - expected) ** 2) / np.mean(np.asarray(expected) ** 2)))
