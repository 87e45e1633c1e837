"""Pictures of micrographs side by side at equal grey mapping, with their particles circled."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from cryogem.io.files import replace_when_done

_LIMIT = 3.0                                # contrast units mapped to black and white
_SIDE = 700                                 # px of one picture in the gallery
_GAP, _CAPTION, _LETTER = 10, 22, 15        # px between pictures, above each for its caption, and of its letters
_CIRCLE = (255, 210, 0)


@dataclass(frozen=True)
class Exhibit:
    """One micrograph to be shown."""

    caption: str
    contrast: np.ndarray                    # (h, w) contrast units
    centers_yx: np.ndarray                  # (n, 2) particles to circle, px


def write_gallery(path: Path, rows: Sequence[Sequence[Exhibit]], diameter_px: float) -> None:
    """Write rows of exhibits as one PNG; circles have the particle's diameter."""
    pictures = [[draw_exhibit(one, diameter_px) for one in row] for row in rows]
    widths = [sum(one.width + _GAP for one in row) + _GAP for row in pictures]
    heights = [max(one.height for one in row) + _GAP for row in pictures]
    sheet = Image.new('RGB', (max(widths), sum(heights) + _GAP), 'white')
    top = _GAP
    for row, height in zip(pictures, heights, strict=True):
        left = _GAP
        for picture in row:
            sheet.paste(picture, (left, top))
            left += picture.width + _GAP
        top += height
    with replace_when_done(path) as temporary:
        sheet.save(temporary, format='PNG')


def draw_exhibit(exhibit: Exhibit, diameter_px: float) -> Image.Image:
    """Return one micrograph at the grey mapping of all: -3 to 3 contrast units from black to white."""
    grey = (np.clip(exhibit.contrast / _LIMIT, -1, 1) + 1) * 127.5
    scale = _SIDE / max(grey.shape)
    size = (round(grey.shape[1] * scale), round(grey.shape[0] * scale))
    image = Image.fromarray(grey.astype(np.uint8)).resize(size, Image.Resampling.LANCZOS).convert('RGB')
    pen = ImageDraw.Draw(image)
    radius = diameter_px / 2 * scale
    for y, x in (exhibit.centers_yx + 0.5) * scale:
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), outline=_CIRCLE)
    framed = Image.new('RGB', (image.width, image.height + _CAPTION), 'white')
    ImageDraw.Draw(framed).text((2, 2), exhibit.caption, fill='black', font=ImageFont.load_default(_LETTER))
    framed.paste(image, (0, _CAPTION))
    return framed
