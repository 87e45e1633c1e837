"""A picture of a map: its projections along three axes, what its mask takes for particle, and its diameter."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from cryogem.io.files import replace_when_done

_SIDE, _GAP, _CAPTION = 260, 8, 20          # px of one projection, between two, and above them for the caption
_OUTLINE, _CIRCLE = (255, 120, 0), (0, 170, 255)
_BRIGHTEST = 99.8                           # percentile shown as white


def write_projections(path: Path, density: np.ndarray, mask: np.ndarray, diameter_px: float) -> None:
    """Draw an (n, n, n) map summed along x, y and z, its mask's outline (orange) and its diameter (blue) as PNG.

    Parameters
    ----------
    mask : (n, n, n) in [0, 1]; the particle is above one half.
    diameter_px : of the circle about the middle of the mask, px of the map.

    Raises
    ------
    OutputError : the file cannot be written.
    """
    sheet = Image.new('RGB', (3 * _SIDE + 2 * _GAP, _SIDE + _CAPTION), 'white')
    for column, (axis, name) in enumerate(((2, 'along x'), (1, 'along y'), (0, 'along z'))):
        left = column * (_SIDE + _GAP)
        ImageDraw.Draw(sheet).text((left + 2, 4), name, fill='black')
        sheet.paste(_draw_projection(density, mask > 0.5, axis, diameter_px), (left, _CAPTION))
    with replace_when_done(path) as temporary:
        sheet.save(temporary, format='PNG')


def _draw_projection(density: np.ndarray, is_particle: np.ndarray, axis: int, diameter_px: float) -> Image.Image:
    """Return one projection; rows are the first of the other two axes."""
    projection, shadow = density.sum(axis=axis), is_particle.any(axis=axis)
    low, high = np.percentile(projection, (1, _BRIGHTEST))
    grey = np.clip((projection - low) / max(high - low, 1e-12) * 255, 0, 255).astype(np.uint8)
    image = Image.fromarray(grey).resize((_SIDE, _SIDE), Image.Resampling.BICUBIC).convert('RGB')
    enlarged = np.asarray(Image.fromarray(shadow).resize((_SIDE, _SIDE), Image.Resampling.NEAREST))
    edge = enlarged & ~ndimage.binary_erosion(enlarged, iterations=2)
    pixels = np.array(image)
    pixels[edge] = _OUTLINE
    image = Image.fromarray(pixels)
    scale = _SIDE / len(density)
    middle = np.delete(np.argwhere(is_particle).mean(axis=0), axis)
    y, x = (middle + 0.5) * scale
    radius = diameter_px / 2 * scale
    ImageDraw.Draw(image).ellipse((x - radius, y - radius, x + radius, y + radius), outline=_CIRCLE, width=2)
    return image
