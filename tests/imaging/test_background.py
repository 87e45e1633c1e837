"""Thon rings of drawn noise are those of the record's own CTF, in every direction."""

import dataclasses

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from cryogem.imaging.background import draw_background, evaluate_background_power
from cryogem.imaging.ctf_fit import fit_ctf
from cryogem.imaging.noise_fit import NoiseModel
from cryogem.imaging.spectrum import N_SHELLS, average_shells, measure_power
from cryogem.records import Ctf, Micrograph
from tests.commands.experiment import transfer
from tests.imaging.synthetic import CTF, FLAT_POWER, NOISE_POWER, PIXEL_SIZE, RING_POWER, SHELLS, make_calibration

SHAPE = (384, 420)


def make_record(ctf: Ctf, source: int = 0, shape=SHAPE) -> Micrograph:
    return Micrograph(0, 'one', shape, PIXEL_SIZE, ctf, source, (False, False), 1.0, 0.0, 1.0)


def measure_plane(record, calibration, n: int = 60) -> np.ndarray:
    """Return the (h, w // 2 + 1) mean periodogram of many draws."""
    rng = np.random.default_rng(0)
    fields = (draw_background(record, calibration, record.shape, rng) for _ in range(n))
    return np.mean([np.abs(np.fft.rfft2(one)) ** 2 for one in fields], axis=0) / np.prod(record.shape)


def test_the_rings_of_an_astigmatic_record_are_ellipses_of_its_own_ctf():
    ctf, shape = Ctf(21000.0, 15000.0, 25.0), (192, 192)

    found = measure_plane(make_record(ctf, shape=shape), make_calibration())

    frequency = np.hypot(np.fft.fftfreq(192)[:, None], np.fft.rfftfreq(192)) * 2 * N_SHELLS
    flat, ring = (np.interp(frequency, SHELLS, one) for one in (FLAT_POWER, RING_POWER))
    expected = flat + ring * transfer(shape, PIXEL_SIZE, 21000, 15000, 25)[:, :97] ** 2
    is_inside = (frequency > 4) & (frequency < N_SHELLS)
    ratio = gaussian_filter(found / expected, 1)[is_inside]
    assert ratio.mean() == pytest.approx(1, abs=0.01)
    assert ratio.std() < 0.06
    turned = flat + ring * transfer(shape, PIXEL_SIZE, 21000, 15000, 115)[:, :97] ** 2
    assert gaussian_filter(found / turned, 1)[is_inside].std() > 2 * ratio.std()


def test_the_radial_spectrum_is_that_of_the_set():
    rng = np.random.default_rng(0)
    power = np.mean([measure_power(draw_background(make_record(CTF), make_calibration(), SHAPE, rng))
                     for _ in range(8)], axis=0)

    np.testing.assert_allclose(power[8:].reshape(-1, 8).mean(axis=1), NOISE_POWER[8:].reshape(-1, 8).mean(axis=1),
                               rtol=0.05)


def test_level_and_slope_are_those_of_the_real_micrograph():
    calibration = make_calibration(ctfs=(CTF, CTF))
    varied = dataclasses.replace(calibration.micrographs[1], noise_level=1.5, noise_slope=-0.4)
    calibration = dataclasses.replace(calibration, micrographs=(calibration.micrographs[0], varied))
    plain, other = (average_shells(evaluate_background_power(make_record(CTF, source), calibration, SHAPE), SHAPE)
                    for source in (0, 1))

    np.testing.assert_allclose((other / plain)[2:-2], 1.5 * np.exp(-0.4 * (SHELLS / N_SHELLS - 0.5))[2:-2], rtol=0.01)


def test_the_labelled_defocus_is_found_in_the_noise_of_most_records_and_not_in_flat_noise():
    calibration = make_calibration()
    flat = dataclasses.replace(
        calibration, noise=NoiseModel(tuple((FLAT_POWER + RING_POWER / 2).tolist()), (0.0,) * N_SHELLS))
    is_found = {'measured': [], 'flat': []}
    for i, mean in enumerate(np.linspace(12000, 24000, 4)):
        record = make_record(Ctf(mean + 300, mean - 300, 40.0 * i), shape=(512, 512))
        for name, one in (('measured', calibration), ('flat', flat)):
            fit = fit_ctf(draw_background(record, one, record.shape, np.random.default_rng(i)), PIXEL_SIZE, CTF)
            is_near = abs((fit.ctf.defocus_u + fit.ctf.defocus_v) / 2 / mean - 1) < 0.03
            is_found[name].append(is_near and fit.is_trusted)

    assert all(is_found['measured'])
    assert not any(is_found['flat'])


def test_a_field_is_zero_mean_single_precision_and_the_same_for_the_same_seed():
    first, again, other = (draw_background(make_record(CTF), make_calibration(), (101, 64), np.random.default_rng(seed))
                           for seed in (1, 1, 2))

    assert (first.shape, first.dtype) == ((101, 64), np.float32)
    assert first.mean(dtype=np.float64) == pytest.approx(0, abs=1e-4)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_noise_that_falls_towards_the_nyquist_frequency_goes_on_falling_in_the_corners():
    falling = NoiseModel(tuple(np.exp(-SHELLS / 40).tolist()), (0.0,) * N_SHELLS)
    level = NoiseModel((1.0,) * N_SHELLS, (0.0,) * N_SHELLS)
    powers = [evaluate_background_power(make_record(CTF), dataclasses.replace(make_calibration(), noise=one), SHAPE)
              for one in (falling, level)]

    # the corner lies at sqrt(2) times the Nyquist frequency
    corner = SHAPE[0] // 2, SHAPE[1] // 2
    assert powers[0][corner] == pytest.approx(np.exp(-np.sqrt(2) * N_SHELLS / 40), rel=0.05)
    assert powers[1][corner] == pytest.approx(1, rel=0.01)
    assert powers[0][0, SHAPE[1] // 4] == pytest.approx(np.exp(-N_SHELLS / 2 / 40), rel=0.05)
