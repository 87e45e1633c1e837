"""Ten micrographs of known noise, CTF, gradients, density and amplitude, three of them bad: all is found again."""

import dataclasses

import numpy as np
import pytest

from cryogem.imaging.background import draw_background
from cryogem.imaging.calibration import RealMicrograph, measure_frame_power
from cryogem.imaging.ctf_fit import fit_ctf
from cryogem.imaging.exposure import draw_record, expose, spawn_generator
from cryogem.imaging.ice import render_ice
from cryogem.imaging.measurement import calibrate, with_signal
from cryogem.imaging.noise_fit import evaluate_gain, evaluate_radial, measure_rings
from cryogem.imaging.signal_fit import fit_signal
from cryogem.records import Ctf
from tests.imaging.synthetic import (
    FLAT_POWER,
    GREY_MEAN,
    GREY_SD,
    ICE,
    NOISE,
    PIXEL_SIZE,
    RING_POWER,
    SIGNAL_SCALE,
    make_calibration,
    make_protocol,
)
from tests.imaging.test_quality import cover_with_carbon, cover_with_ice, drift
from tests.imaging.test_signal_fit import DIAMETER, DIAMETER_PX, measure_clean

pytestmark = pytest.mark.slow

SHAPE, COUNT = (768, 800), 160
CTFS = [Ctf(mean + 250, mean - 250, 20.0 * i) for i, mean in enumerate(np.linspace(12000, 22000, 10))]
BAD = {1: drift, 4: cover_with_ice, 8: cover_with_carbon}
GRADIENT = 3.0                              # times the ice of the other tests: what the eye sees as a gradient


@pytest.fixture(scope='module')
def real(ensemble) -> list[RealMicrograph]:
    calibration = make_calibration(SIGNAL_SCALE, tuple(CTFS), SHAPE)
    protocol = make_protocol(3, COUNT, distance=100.0)
    made = []
    for i, ctf in enumerate(CTFS):
        record = dataclasses.replace(draw_record(protocol, calibration, ensemble, i), ctf=ctf, source=i)
        exposure = expose(record, ensemble)
        contrast = exposure.clean + draw_background(exposure.record, calibration, SHAPE, spawn_generator(3, i, 1))
        contrast = BAD.get(i, lambda same: same)(contrast + GRADIENT * render_ice(ICE, SHAPE))
        picks = np.array([one.center_yx for one in exposure.record.particles if exposure.record.is_pickable(one)])
        made.append(RealMicrograph(f'real_{i}', (contrast * GREY_SD + GREY_MEAN).astype(np.float32), picks, ctf))
    return made


@pytest.fixture(scope='module')
def found(real, ensemble):
    measured = calibrate(real, PIXEL_SIZE, DIAMETER)
    clean = measure_clean(measured, ensemble, n_draws=1)
    fit = fit_signal([one.signal for one in measured.micrographs], clean, DIAMETER_PX, PIXEL_SIZE,
                     [one.weight for one in measured.micrographs])
    protocol = make_protocol(5, COUNT, distance=100.0)
    calibration = make_calibration(1.0, tuple(CTFS), SHAPE)
    powers = []
    for i, ctf in enumerate(CTFS):
        record = dataclasses.replace(draw_record(protocol, calibration, ensemble, i), ctf=ctf, signal_scale=1.0)
        powers.append(fit.gain ** 2 * measure_frame_power(expose(record, ensemble).clean))
    return with_signal(measured, fit, np.stack(powers))


def good(found):
    return [one for i, one in enumerate(found.micrographs) if i not in BAD]


def average_groups(power, size: int = 8) -> np.ndarray:
    return np.asarray(power)[..., 8:].reshape(-1, size).mean(axis=-1)


def test_the_bad_micrographs_are_named_and_no_other(found):
    assert {i for i, one in enumerate(found.micrographs) if one.remarks} == set(BAD)


def test_noise_spectra_are_found_within_five_percent(found):
    for i, one in enumerate(found.micrographs):
        if i in BAD:
            continue
        rings = measure_rings([CTFS[i]], PIXEL_SIZE)[0]
        drawn = evaluate_gain(one.noise_level, one.noise_slope) * evaluate_radial(found.noise, rings)
        truth = evaluate_radial(NOISE, rings)
        ratio = average_groups(drawn) * (one.grey_sd / GREY_SD) ** 2 / average_groups(truth)
        assert np.sqrt(np.mean((ratio - 1) ** 2)) < 0.05


def test_the_parts_that_pass_the_ctf_and_that_do_not_are_told_apart(found):
    sd = np.mean([(one.grey_sd / GREY_SD) ** 2 for one in good(found)])
    for part, truth in ((found.noise.flat_power, FLAT_POWER), (found.noise.ring_power, RING_POWER)):
        error = (average_groups(part) * sd - average_groups(truth)) / average_groups(FLAT_POWER + RING_POWER)
        # below the first maximum of CTF² little of B is seen, and only the sum of both is known
        assert np.abs(error[2:]).max() < 0.08


def test_the_defocus_is_found_within_two_percent(real):
    for i, one in enumerate(real):
        if i not in BAD:
            fit = fit_ctf((one.image - GREY_MEAN) / GREY_SD, PIXEL_SIZE, CTFS[0])
            assert fit.is_trusted
            assert (fit.ctf.defocus_u + fit.ctf.defocus_v) / 2 == pytest.approx(
                (CTFS[i].defocus_u + CTFS[i].defocus_v) / 2, rel=0.02)


def test_the_signal_to_noise_ratio_is_found_within_fifteen_percent(found):
    for i, one in enumerate(found.micrographs):
        if i in BAD:
            continue
        gain = np.array(found.map_gain)[3:40].mean() * one.signal_scale * one.grey_sd / GREY_SD
        assert gain ** 2 == pytest.approx(SIGNAL_SCALE ** 2, rel=0.15)


def test_density_is_found_within_five_percent(found):
    assert found.particles_per_frame[0] == pytest.approx(COUNT, rel=0.05)


def test_gradients_are_found_within_five_percent(found):
    truth = GRADIENT * render_ice(ICE, SHAPE)
    for one in good(found):
        error = render_ice(np.array(one.ice), SHAPE) * one.grey_sd / GREY_SD - truth
        assert np.sqrt((error ** 2).mean()) < 0.05 * np.sqrt((truth ** 2).mean())
