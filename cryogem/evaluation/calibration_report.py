"""The calibration as people read it: curves, pictures of the real micrographs, and one HTML page."""

import base64
import html
import io
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from cryogem.dataset import layout
from cryogem.evaluation.ablation import Ablation, format_ablation
from cryogem.evaluation.calibration_curves import draw_curves
from cryogem.imaging.calibration import Calibration, summarise
from cryogem.imaging.ice import render_ice
from cryogem.imaging.measurement import Inspection
from cryogem.imaging.signal_fit import SignalQuality
from cryogem.imaging.spectrum import N_SHELLS
from cryogem.io.files import make_folder, write_bytes, write_text
from cryogem.io.png import encode_mask

_SIDE = 420                                 # px of one picture of the sheet
_SHOWN = 4                                  # micrographs on the sheet: the odd ones first
_GAP, _CAPTION = 8, 18                      # px
_PICK, _OUTLIER = (255, 210, 0), (255, 60, 60)
_LIMIT = 3.0                                # contrast units mapped to black and white
_LARGE_MISFIT, _LOW_CORRELATION = 0.35, 0.9             # beyond which the map is said not to explain the particles
_SURE = 5.0                                 # standard errors
_RESOLUTIONS = (40, 20, 12, 8)              # Å at which the page says how the signal stands against the noise
_NOT_MADE = ('Carbon, ice crystals and dirt of the real micrographs are left out of all that is measured (red on the '
             'pictures, white in the masks), and none is generated.')
_STYLE = ('body{font:15px sans-serif;max-width:1300px;margin:2em auto;padding:0 1em}table{border-collapse:collapse}'
          'td,th{border:1px solid #bbb;padding:3px 9px;text-align:right}td:first-child,th:first-child{text-align:left}'
          'img{max-width:100%}.odd{background:#fff0d8}')


def write_calibration_report(
    folder: Path, calibration: Calibration, seen: Sequence[Inspection], ablation: Ablation | None = None
) -> None:
    """Write masks, curves, the sheet of micrographs and the page into `folder`/calibration.

    Parameters
    ----------
    seen : the real micrographs; empty where the calibration was measured earlier, then there are no pictures of them.
    ablation : what each part of the noise model is worth, where it was measured.
    """
    make_folder((folder / layout.CALIBRATION_REPORT).parent)
    pictures = {layout.CALIBRATION_CURVES: _encode(draw_curves(calibration, seen))}
    if seen:
        make_folder(layout.outlier_path(folder, seen[0].name).parent)
        for one in seen:
            write_bytes(layout.outlier_path(folder, one.name), encode_mask(one.is_outlier))
        pictures[layout.CALIBRATION_SHEET] = _encode(draw_sheet(calibration, seen))
    for name, picture in pictures.items():
        write_bytes(folder / name, picture)
    write_text(folder / layout.CALIBRATION_REPORT, format_page(calibration, list(pictures.values()), ablation))


def draw_sheet(calibration: Calibration, seen: Sequence[Inspection]) -> Image.Image:
    """Return a few micrographs with their picks and outliers, their background and the map of their noise."""
    measured = {one.name: one for one in calibration.micrographs}
    chosen = sorted(seen, key=lambda one: measured[one.name].weight)[:_SHOWN]
    diameter_px = calibration.particle_diameter / calibration.pixel_size
    rows = []
    for one in chosen:
        noise_map = np.array(measured[one.name].noise_map or ((0.0,),))
        noise = render_ice(noise_map, one.contrast.shape)
        rows.append([
            _frame(f'{one.name}: picks, and in red what is left out', _draw_micrograph(one, diameter_px)),
            _frame('background, -1 to 1 contrast units', _draw_grey(one.ice, 1.0)),
            _frame('noise, 20 % weaker (black) to stronger (white)', _draw_grey(noise, math.log(1.2)))])
    width = max(sum(one.width + _GAP for one in row) for row in rows) + _GAP
    sheet = Image.new('RGB', (width, sum(row[0].height + _GAP for row in rows) + _GAP), 'white')
    top = _GAP
    for row in rows:
        left = _GAP
        for picture in row:
            sheet.paste(picture, (left, top))
            left += picture.width + _GAP
        top += row[0].height + _GAP
    return sheet


def format_page(
    calibration: Calibration, pictures: Sequence[bytes], ablation: Ablation | None = None
) -> str:
    """Return one HTML page, with pictures as PNG, that needs no other file."""
    images = ''.join(f'<p><img alt="" src="data:image/png;base64,{base64.b64encode(one).decode()}"></p>'
                     for one in pictures)
    rows = ''.join(f'<tr><td>{html.escape(name)}</td><td>{html.escape(value)}</td></tr>'
                   for name, value in list_numbers(calibration))
    return (f'<!DOCTYPE html><html><head><meta charset="utf-8"><title>Calibration</title><style>{_STYLE}</style></head>'
            f'<body><h1>Calibration of {len(calibration.micrographs)} micrographs</h1>'
            f'<table>{rows}</table>{_format_warnings(calibration)}{images}<h2>Micrographs</h2>'
            f'{_format_micrographs(calibration)}<h2>What each part is worth</h2>{_format_worth(ablation)}'
            f'<h2>What is not made</h2><p>{html.escape(_NOT_MADE)}</p></body></html>\n')


def list_numbers(calibration: Calibration) -> list[tuple[str, str]]:
    """Return what was measured on the set, as names and values with units."""
    summary = summarise(calibration)
    numbers = [
        ('pixel size', f'{calibration.pixel_size:.3g} Å/px' + (
            f', of the files {calibration.original_pixel_size:.3g} Å/px' if calibration.original_pixel_size else '')),
        ('frame', f'{calibration.shape[1]} x {calibration.shape[0]} px'),
        ('particle diameter', f'{calibration.particle_diameter:.0f} Å'),
        ('grey mean, sd', f'{_format_spread(summary["grey_mean"])}; {_format_spread(summary["grey_sd"])}'),
        ('hot pixels', _format_spread(summary['hot_pixel_share'], 100, ' %')),
        ('dead rows, columns', f'{_format_spread(summary["dead_rows"])}; {_format_spread(summary["dead_columns"])}'),
        ('carbon, crystals, dirt', _format_spread(summary['outlier_share'], 100, ' % of the area')),
        ('defocus', _format_spread(summary['defocus'], 1e-4, ' µm')),
        ('noise variance with brightness', f'{calibration.variance_slope:+.2g} per contrast unit (logarithm)')]
    if calibration.particles_per_frame is not None:
        mean, sd = calibration.particles_per_frame
        numbers += [('particles per frame', f'{mean:.1f} ± {sd:.1f}'),
                    ('picks, and particles nobody marked', f'{summary["n_picks"]}, about {summary["n_unmarked"]}'),
                    ('frames without picks', f'{summary["empty_share"]:.0%}')]
    if calibration.neighbour_distances is not None:
        numbers.append(('nearest neighbours kept apart', f'{calibration.neighbour_distances[0]:.0f} to '
                        f'{calibration.neighbour_distances[-1]:.0f} Å, {calibration.clustering or 0:.0%} in clusters'))
    if calibration.picks is not None:
        y, x = (one * calibration.pixel_size for one in calibration.picks.shift_yx)
        numbers.append(('mean shift of the picks (x, y)', f'{x:+.1f}, {y:+.1f} Å ± '
                        f'{calibration.picks.shift_error * calibration.pixel_size:.1f} Å'))
    return numbers + _list_signal(calibration)


def describe_misfits(quality: SignalQuality) -> list[str]:
    """Return what the map does not explain of the particles, as sentences; none where it explains them."""
    found = []
    if quality.misfit > _LARGE_MISFIT or quality.correlation < _LOW_CORRELATION:
        found.append(f'the map explains the particles poorly: {100 * quality.misfit:.0f} % of the power at the picks '
                     f'differs, and the mean particles correlate with {quality.correlation:.2f}; check that the map is '
                     'of this particle, fine enough and at its pixel size, and that picks are centred')
    if quality.b_factor < -_SURE * quality.b_factor_error:
        found.append(f'the micrographs are sharper than the map (B-factor {quality.b_factor:.0f} ± '
                     f'{quality.b_factor_error:.0f} Å²): what is finer than its resolution is missing from the signal '
                     'and counts as noise')
    return found


def _list_signal(calibration: Calibration) -> list[tuple[str, str]]:
    if calibration.signal_scale is None:
        return []
    quality = calibration.signal
    if quality is None:
        return [('signal amplitude', f'{calibration.signal_scale:.4g}, from the ratio that was said')]
    return [
        ('signal amplitude', f'{calibration.signal_scale:.4g} ± {quality.scale_error:.2g} contrast units per unit of '
         'projected density'),
        ('scatter of the picks', f'{quality.pick_error * calibration.pixel_size:.1f} Å on each axis'),
        ('B-factor against the map', f'{quality.b_factor:.0f} ± {quality.b_factor_error:.0f} Å²'),
        ('mean picked and simulated particle', f'correlate with {quality.correlation:.3f}'),
        ('power at the picks left unexplained', f'{quality.misfit:.0%} with the filter, {quality.map_misfit:.0%} by '
         'the map as it is')] + _list_ratios(quality, calibration.pixel_size)


def _list_ratios(quality: SignalQuality, pixel_size: float) -> list[tuple[str, str]]:
    """Return the signal-to-noise ratio on particles at those resolutions that the pixels hold."""
    if not quality.snr:
        return []
    shells = {one: round(2 * pixel_size * N_SHELLS / one) for one in _RESOLUTIONS}
    return [('signal over noise, on particles', ', '.join(
        f'{quality.snr[shell]:.2g} at {one} Å' for one, shell in shells.items() if shell < N_SHELLS))]


def _format_worth(ablation: Ablation | None) -> str:
    return format_ablation(ablation) if ablation else (
        '<p>Not measured: cryogem simulate with --ablation does it, from a map and at least two micrographs.</p>')


def _format_warnings(calibration: Calibration) -> str:
    lines = [f'{one.name} counts less (weight {one.weight:.2f}): {"; ".join(one.remarks)}'
             for one in calibration.micrographs if one.remarks]
    if calibration.picks is not None and not calibration.picks.is_on_particles:
        lines.insert(0, 'The picks do not seem to sit on particles.')
    elif calibration.picks is not None and calibration.picks.is_shifted:
        y, x = (one * calibration.pixel_size for one in calibration.picks.shift_yx)
        lines.insert(0, f'The picks are shifted against the particles, by {math.hypot(x, y):.1f} Å on average: these '
                     f'lie {x:+.1f} Å in x and {y:+.1f} Å in y from them.')
    if calibration.signal is not None:
        lines += [one[0].upper() + one[1:] + '.' for one in describe_misfits(calibration.signal)]
    return '<ul>' + ''.join(f'<li class="odd">{html.escape(line)}</li>' for line in lines) + '</ul>' if lines else ''


def _format_micrographs(calibration: Calibration) -> str:
    """Return the table of what differs between the micrographs."""
    heads = ('name', 'picks', 'defocus U, V (Å)', 'grey mean', 'grey sd', 'noise level', 'noise slope', 'signal',
             'left out', 'weight')
    rows = []
    for one in calibration.micrographs:
        ctf = '' if one.ctf is None else f'{one.ctf.defocus_u:.0f}, {one.ctf.defocus_v:.0f}'
        signal = '' if one.signal_scale is None else f'{one.signal_scale:.3g}' + (
            f' ± {one.signal_error:.2g}' if one.signal_error else '')
        cells = (one.name, str(one.n_picks), ctf, f'{one.grey_mean:.4g}', f'{one.grey_sd:.3g}',
                 f'{one.noise_level:.2f}', f'{one.noise_slope:+.2f}', signal, f'{one.outlier_share:.1%}',
                 f'{one.weight:.2f}')
        kind = ' class="odd"' if one.remarks else ''
        rows.append(f'<tr{kind}>' + ''.join(f'<td>{html.escape(cell)}</td>' for cell in cells) + '</tr>')
    return '<table><tr>' + ''.join(f'<th>{head}</th>' for head in heads) + '</tr>' + ''.join(rows) + '</table>'


def _format_spread(spread: dict[str, float] | None, factor: float = 1.0, unit: str = '') -> str:
    if spread is None:
        return 'unknown'
    return f'{spread["mean"] * factor:.3g} ± {spread["sd"] * factor:.2g}{unit}'


def _draw_micrograph(seen: Inspection, diameter_px: float) -> Image.Image:
    """Return a micrograph with its picks circled and what is left out in red."""
    picture = _draw_grey(seen.contrast, _LIMIT)
    scale = picture.width / seen.contrast.shape[1]
    outliers = Image.fromarray(seen.is_outlier.astype(np.uint8) * 110).resize(picture.size)
    picture.paste(Image.new('RGB', picture.size, _OUTLIER), (0, 0), outliers)
    pen = ImageDraw.Draw(picture)
    radius = diameter_px / 2 * scale
    for y, x in (seen.centers_yx + 0.5) * scale:
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), outline=_PICK)
    return picture


def _draw_grey(values: np.ndarray, limit: float) -> Image.Image:
    """Return (h, w) values from -limit (black) to limit (white), at the size of the sheet."""
    grey = ((np.clip(values / limit, -1, 1) + 1) * 127.5).astype(np.uint8)
    scale = _SIDE / max(grey.shape)
    size = (max(1, round(grey.shape[1] * scale)), max(1, round(grey.shape[0] * scale)))
    return Image.fromarray(grey).resize(size, Image.Resampling.LANCZOS).convert('RGB')


def _frame(caption: str, picture: Image.Image) -> Image.Image:
    framed = Image.new('RGB', (picture.width, picture.height + _CAPTION), 'white')
    ImageDraw.Draw(framed).text((2, 3), caption, fill='black')
    framed.paste(picture, (0, _CAPTION))
    return framed


def _encode(picture: Image.Image) -> bytes:
    """Return a picture as PNG."""
    buffer = io.BytesIO()
    picture.save(buffer, format='PNG')
    return buffer.getvalue()
