"""Curves of a calibration: noise, signal, mean particle, grey values, density and neighbours."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from cryogem.imaging.calibration import Calibration
from cryogem.imaging.measurement import Inspection
from cryogem.imaging.noise_fit import evaluate_gain, evaluate_radial, measure_rings
from cryogem.imaging.spectrum import N_SHELLS
from cryogem.specimen.placement import measure_nearest_distances

_SIZE, _DPI = (13.0, 7.2), 90               # inches, dots per inch
_PIXELS = 200_000                           # of all micrographs that the histogram shows


def draw_curves(calibration: Calibration, seen: Sequence[Inspection]) -> Image.Image:
    """Return six panels as one picture; `seen` may be empty."""
    # imported here and without pyplot: slow to load, and no window system may be touched
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    figure = Figure(figsize=_SIZE, dpi=_DPI)
    canvas = FigureCanvasAgg(figure)
    # matplotlib's own layouts draw everything once more to find these
    figure.subplots_adjust(left=0.055, right=0.985, bottom=0.07, top=0.95, wspace=0.2, hspace=0.28)
    axes = np.asarray(figure.subplots(2, 3))
    frequency = np.arange(N_SHELLS) / N_SHELLS / (2 * calibration.pixel_size)
    _draw_noise(axes[0, 0], calibration, frequency)
    _draw_micrograph_noise(axes[0, 1], calibration, frequency)
    _draw_signal(axes[0, 2], calibration, frequency)
    _draw_profile(axes[1, 0], calibration)
    _draw_histogram(axes[1, 1], seen)
    _draw_neighbours(axes[1, 2], calibration)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())


def _draw_noise(axis: Any, calibration: Calibration, frequency: np.ndarray) -> None:
    axis.semilogy(frequency[1:], calibration.noise.flat_power[1:], label='A: blind to the CTF')
    if any(calibration.noise.ring_power):
        axis.semilogy(frequency[1:], np.maximum(calibration.noise.ring_power[1:], 1e-6), label='B: seen through CTF²')
    _label(axis, 'Noise of the set: A + B · CTF²', 'frequency (1/Å)', 'power per px')
    top = max(max(calibration.noise.flat_power), max(calibration.noise.ring_power))
    axis.set_ylim(top / 1e4, top * 2)


def _draw_micrograph_noise(axis: Any, calibration: Calibration, frequency: np.ndarray) -> None:
    """Draw what was measured on the first micrograph that counts fully, and what is drawn for it."""
    index = int(np.argmax([one.weight for one in calibration.micrographs]))
    one = calibration.micrographs[index]
    rings = measure_rings([other.ctf for other in calibration.micrographs], calibration.pixel_size)[index]
    fitted = evaluate_gain(one.noise_level, one.noise_slope) * evaluate_radial(calibration.noise, rings)
    for values, label, style in ((one.total_power, 'whole frame', '-'), (one.background_power, 'outside picks', ':'),
                                 (one.noise_power, 'less the signal', '-'), (fitted, 'fitted noise', '--')):
        axis.semilogy(frequency[1:], np.maximum(values[1:], 1e-6), style, label=label, linewidth=1.2)
    _label(axis, f'Spectra of {one.name[-24:]}', 'frequency (1/Å)', 'power per px')


def _draw_signal(axis: Any, calibration: Calibration, frequency: np.ndarray) -> None:
    quality = calibration.signal
    if quality is not None and quality.snr:
        axis.semilogy(frequency[1:], np.maximum(quality.snr[1:], 1e-4), label='signal over noise, on particles')
    if calibration.map_gain is not None:
        axis.semilogy(frequency[1:], np.maximum(calibration.map_gain[1:], 1e-4), label='filter of the map (amplitude)')
    axis.set_ylim(1e-4, 1e2)
    _label(axis, 'Signal', 'frequency (1/Å)', 'ratio')


def _draw_profile(axis: Any, calibration: Calibration) -> None:
    if calibration.picks is not None:
        profile = np.array(calibration.picks.profile)
        axis.plot(np.arange(len(profile)) * calibration.pixel_size, profile, label='mean picked particle')
        axis.axvline(calibration.particle_diameter / 2, color='grey', linestyle=':', label='radius of the particle')
    _label(axis, 'Mean particle', 'distance from the pick (Å)', 'contrast')


def _draw_histogram(axis: Any, seen: Sequence[Inspection]) -> None:
    bins = np.linspace(-5, 5, 101)
    for one in seen[:20]:
        step = max(1, one.contrast.size * min(len(seen), 20) // _PIXELS)
        axis.hist(one.contrast.ravel()[::step], bins, histtype='step', density=True, linewidth=0.7)
    if seen:
        axis.plot(bins, np.exp(-bins ** 2 / 2) / np.sqrt(2 * np.pi), 'k:', label='Gaussian')
    _label(axis, 'Grey values of the micrographs', 'contrast units', 'density')


def _draw_neighbours(axis: Any, calibration: Calibration) -> None:
    distances = [measure_nearest_distances(np.array(one.picks_yx).reshape(-1, 2)) for one in calibration.micrographs]
    nearest = np.concatenate(distances) * calibration.pixel_size
    if len(nearest):
        axis.hist(nearest, 40, label='picks')
        axis.axvline(calibration.particle_diameter, color='grey', linestyle=':', label='particle diameter')
    _label(axis, 'Nearest neighbours', 'distance (Å)', 'particles')


def _label(axis: Any, title: str, x: str, y: str) -> None:
    axis.set_title(title, fontsize=10)
    axis.set_xlabel(x, fontsize=9)
    axis.set_ylabel(y, fontsize=9)
    axis.tick_params(labelsize=8)
    if axis.get_legend_handles_labels()[0]:
        axis.legend(fontsize=8)
