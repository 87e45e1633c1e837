"""Maps of the particle: masked softly, flattened outside, brought to the working pixel size."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import fft, ndimage  # numpy's transforms know no float32

from cryogem.errors import InputError

_MASK_LOW_PASS = 15.0                       # Å: a coarse outline, blind to noise and to side chains
_MASK_EDGE = 6.0                            # Å: width of the soft edge
_FILTER_MARGIN = 8                          # px around a map that is filtered: the kernel dies out within them
_LEAST_PART = 0.02                          # parts of the particle below this share of the whole are dust


@dataclass(frozen=True)
class PreparedVolume:
    """A map ready for projection."""

    density: np.ndarray                     # (n, n, n) float32, zero outside the mask, mean 1 inside
    mask: np.ndarray                        # (n, n, n) float32 in [0, 1], soft
    pixel_size: float                       # Å/px
    diameter: float                         # Å, twice the largest distance of the mask from the centre of mass

    def find_center_of_mass(self) -> np.ndarray:
        """Return (3,) z, y, x of the centre of mass of the mask, Å from the centre of the box."""
        grid = (np.arange(len(self.mask)) - len(self.mask) // 2) * self.pixel_size
        sums = [self.mask.sum(axis=axes, dtype=np.float64) for axes in ((1, 2), (0, 2), (0, 1))]
        return np.array([(one * grid).sum() / one.sum() for one in sums])


def flatten_solvent(
    density: np.ndarray, pixel_size: float, mask_threshold: float | None = None, low_pass: float | None = None,
    mask: np.ndarray | None = None,
) -> PreparedVolume:
    """Mask a map softly, take its solvent away and scale its protein to 1.

    Parameters
    ----------
    density : (n, n, n) map, protein bright.
    pixel_size : Å/px of the map.
    mask_threshold : density of the outline in the map low-passed to 15 Å; default: by Otsu's method.
    low_pass : Å, resolution limit; default none.
    mask : (n, n, n) in [0, 1], used instead of one made from a threshold.

    Raises
    ------
    InputError : nothing, or everything, is above the threshold, the mask is not in [0, 1], or the protein is not
        brighter than the solvent.
    """
    if mask is None:
        outline = make_outline(density, pixel_size)
        threshold = find_threshold(outline) if mask_threshold is None else mask_threshold
        mask = make_soft_mask(outline > threshold, pixel_size)
    elif mask.min() < -1e-3 or mask.max() > 1 + 1e-3 or not (mask > 0.5).any():
        raise InputError(f'mask has values from {mask.min():.3g} to {mask.max():.3g}; give one from 0 (solvent) to 1')
    if _measure_wall_share(mask) > 0.5:
        raise InputError('volume is as bright at the walls of its box as inside; check that protein is bright in the '
                         'map, and mask_threshold above the solvent')
    flattened = (density - _measure_solvent(density, mask)) * mask
    if low_pass is not None:
        flattened = low_pass_filter(flattened, pixel_size, low_pass)
    level = float(flattened[mask > 0.5].mean())
    if level <= 0:
        raise InputError('volume holds no density above its solvent; check that protein is bright in the map')
    return PreparedVolume((flattened / level).astype(np.float32), mask, pixel_size, measure_diameter(mask, pixel_size))


def bring_to_pixel_size(volume: PreparedVolume, working_pixel_size: float) -> PreparedVolume:
    """Resample a prepared map and cut its box to what the mask needs."""
    density = resample(volume.density, volume.pixel_size, working_pixel_size)
    mask = np.clip(resample(volume.mask, volume.pixel_size, working_pixel_size), 0, 1)
    # measured before resampling, which leaves faint ripples all over the box
    box = find_tight_box(volume.mask, volume.pixel_size / working_pixel_size)
    return PreparedVolume(_center_in_box(density, box), _center_in_box(mask, box), working_pixel_size, volume.diameter)


def make_outline(density: np.ndarray, pixel_size: float) -> np.ndarray:
    """Return an (n, n, n) map as coarse as a mask is cut from: low-passed to 15 Å, or to three of its pixels."""
    return low_pass_filter(density, pixel_size, max(_MASK_LOW_PASS, 3 * pixel_size))


def find_threshold(outline: np.ndarray) -> float:
    """Return the density that separates particle from solvent best (Otsu 1979, IEEE Trans. SMC 9:62)."""
    counts, edges = np.histogram(outline, bins=512)
    centers = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)[:-1]
    above = counts.sum() - below
    sum_below = np.cumsum(counts * centers)[:-1]
    mean_below = sum_below / np.maximum(below, 1)
    mean_above = ((counts * centers).sum() - sum_below) / np.maximum(above, 1)
    between = below * above * (mean_below - mean_above) ** 2
    return float(centers[np.argmax(between)])


def make_soft_mask(is_particle: np.ndarray, pixel_size: float) -> np.ndarray:
    """Turn a rough outline into a solid mask with a cosine edge outside it.

    Parameters
    ----------
    is_particle : (n, n, n) bool, the thresholded map.

    Returns
    -------
    (n, n, n) float32 in [0, 1]; 1 on the particle, falling to 0 over 6 Å (at least 2 px). Dust is dropped.

    Raises
    ------
    InputError : the outline is empty or fills the box.
    """
    if not is_particle.any() or is_particle.all():
        state = 'no voxel' if not is_particle.any() else 'every voxel'
        raise InputError(f'mask_threshold leaves {state} of the volume as particle; give another density')
    labels, n_parts = ndimage.label(is_particle)
    sizes = ndimage.sum_labels(is_particle, labels, np.arange(1, n_parts + 1))
    kept = np.flatnonzero(sizes >= _LEAST_PART * sizes.sum()) + 1
    solid, edge = np.isin(labels, kept), max(_MASK_EDGE / pixel_size, 2.0)
    near = _find_bounds(solid, math.ceil(edge))         # beyond it all is solvent
    distance = ndimage.distance_transform_edt(~ndimage.binary_fill_holes(solid[near]))
    mask = np.zeros(is_particle.shape, dtype=np.float32)
    mask[near] = 0.5 + 0.5 * np.cos(np.pi * np.clip(distance / edge, 0, 1))
    return mask


def low_pass_filter(density: np.ndarray, pixel_size: float, resolution: float) -> np.ndarray:
    """Filter an (n, n, n) map to `resolution` (Å) with a cosine fall-off of two shells."""
    n = density.shape[0]
    radius = _radial_frequency(n)
    cutoff = n * pixel_size / resolution
    window = np.clip((cutoff + 1 - radius) / 2, 0, 1)
    window = 0.5 - 0.5 * np.cos(np.pi * window)
    spectrum = fft.rfftn(density.astype(np.float32, copy=False)) * window.astype(np.float32)
    return fft.irfftn(spectrum, s=density.shape, overwrite_x=True)


def filter_radially(volume: PreparedVolume, gain: Sequence[float] | np.ndarray) -> PreparedVolume:
    """Multiply the transform of a map by a radial gain, in a box with room for what the filter spreads.

    Parameters
    ----------
    gain : amplitude factors at evenly spaced frequencies i / len(gain) of the Nyquist frequency; the last one goes on.
    """
    volume = grow_box(volume, volume.density.shape[0] + 2 * _FILTER_MARGIN)
    n = volume.density.shape[0]
    position = _radial_frequency(n) / (n / 2) * len(gain)
    spectrum = fft.rfftn(volume.density) * np.interp(position, np.arange(len(gain)), gain).astype(np.float32)
    return dataclasses.replace(volume, density=fft.irfftn(spectrum, s=volume.density.shape, overwrite_x=True))


def resample(density: np.ndarray, pixel_size: float, working_pixel_size: float) -> np.ndarray:
    """Fourier-resample a map so that its centre stays at index ``n // 2`` and its values keep their scale.

    The box first grows with zeros to a length whose resampled side is a whole, even number of pixels, so that the
    new pixel size is exact: to within 1e-4 of its value, or 0.02 px over the box.
    """
    if abs(working_pixel_size / pixel_size - 1) < 1e-6 and density.shape[0] % 2 == 0:
        return density.astype(np.float32)
    ratio = pixel_size / working_pixel_size
    old = _find_exact_box(density.shape[0], ratio)
    new = int(round(old * ratio / 2)) * 2
    padded = _center_in_box(density.astype(np.float32, copy=False), old)
    spectrum = fft.fftshift(fft.fftn(fft.ifftshift(padded)))
    spectrum = _center_in_box(spectrum, new)
    if new < old:
        spectrum[0], spectrum[:, 0], spectrum[:, :, 0] = 0, 0, 0      # Nyquist planes have lost their mirror images
    return fft.fftshift(fft.ifftn(fft.ifftshift(spectrum)).real) * np.float32((new / old) ** 3)


def grow_box(volume: PreparedVolume, box_size: int) -> PreparedVolume:
    """Return the volume in a larger even box, so that several maps share one."""
    return dataclasses.replace(volume, density=_center_in_box(volume.density, box_size),
                               mask=_center_in_box(volume.mask, box_size))


def find_tight_box(mask: np.ndarray, scale: float) -> int:
    """Return the even box that holds the mask, times `scale`, and 2 px around it in every orientation."""
    voxels = np.argwhere(mask > 1e-2) - mask.shape[0] // 2
    return 2 * (int(np.ceil(np.linalg.norm(voxels, axis=1).max() * scale)) + 2)


def measure_diameter(mask: np.ndarray, pixel_size: float) -> float:
    """Return twice the largest distance (Å) of the particle (mask above one half) from its centre of mass."""
    voxels = np.argwhere(mask > 0.5)
    distances = np.linalg.norm(voxels - voxels.mean(axis=0), axis=1)
    return float(2 * np.percentile(distances, 99.5) * pixel_size)


def _find_bounds(is_solid: np.ndarray, margin: int) -> tuple[slice, ...]:
    """Return the part of an array that holds all that is solid and `margin` px around it."""
    bounds = ndimage.find_objects(is_solid.astype(np.int8))[0]
    return tuple(slice(max(0, one.start - margin), one.stop + margin) for one in bounds)


def _measure_wall_share(mask: np.ndarray) -> float:
    """Return the share of the six faces of the box that lies in the mask: at most a third for any particle."""
    faces = [mask.take(index, axis) for axis in range(3) for index in (0, -1)]
    return float(np.mean([(face > 0.5).mean() for face in faces]))


def _measure_solvent(density: np.ndarray, mask: np.ndarray) -> float:
    outside = density[mask == 0]
    return float(np.median(outside)) if outside.size else float(density.min())


def _radial_frequency(n: int) -> np.ndarray:
    """Return (n, n, n//2 + 1) distances from zero frequency in units of 1/box."""
    full, half = fft.fftfreq(n, 1 / n), fft.rfftfreq(n, 1 / n)
    return np.sqrt(full[:, None, None] ** 2 + full[None, :, None] ** 2 + half[None, None, :] ** 2)


def _find_exact_box(n: int, ratio: float) -> int:
    """Return the even box from n upwards whose side times `ratio` is nearest to an even number."""
    candidates = np.arange(n + n % 2, 2 * n + 2, 2)
    error = np.abs(candidates * ratio / 2 - np.round(candidates * ratio / 2)) / (candidates * ratio / 2)
    good = np.flatnonzero(error < 1e-4)
    return int(candidates[good[0] if good.size else np.argmin(error)])


def _center_in_box(array: np.ndarray, size: int) -> np.ndarray:
    """Crop or zero-pad a cube to `size`, keeping index ``n // 2`` at index ``size // 2``."""
    n = array.shape[0]
    result = np.zeros((size,) * 3, dtype=array.dtype)
    low = size // 2 - n // 2
    source = slice(max(0, -low), max(0, -low) + min(n, size))
    target = slice(max(0, low), max(0, low) + min(n, size))
    result[target, target, target] = array[source, source, source]
    return result
