"""The CTF against an independent formula and the published program; imaging against one large frame."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import constants

from cryogem.imaging.ctf import evaluate_ctf, find_fft_length, image_specimen, measure_delocalisation
from cryogem.records import Ctf
from cryogem.specimen.micrograph import Painting
from tests.phantom import relative_error

GOLDEN = Path(__file__).parents[3] / 'shared' / 'golden' / 'published_network_tensors.npz'
PIXEL_SIZE = 3.0
TYPICAL = Ctf(15800.0, 14200.0, 35.0)


def evaluate_independently(ctf: Ctf, shape: tuple[int, int], pixel_size: float, is_half: bool = False) -> np.ndarray:
    """Return the (h, w) CTF, or its half plane, from physical constants, polar angles and complex waves.

    A weak object of phase and amplitude contrast shifts the scattered wave by sqrt(1 - Q0²) + i Q0 relative to pure
    phase contrast; the lens turns it by the aberration; contrast is what lies along the unscattered wave.
    """
    energy = constants.e * ctf.voltage * 1e3
    momentum = np.sqrt(2 * constants.m_e * energy * (1 + energy / (2 * constants.m_e * constants.c ** 2)))
    wavelength = constants.h / momentum * 1e10
    list_kx = np.fft.rfftfreq if is_half else np.fft.fftfreq
    ky, kx = np.meshgrid(np.fft.fftfreq(shape[0], pixel_size), list_kx(shape[1], pixel_size), indexing='ij')
    k, azimuth = np.hypot(kx, ky), np.arctan2(ky, kx)
    u, v = ctf.defocus_u, ctf.defocus_v
    turn = azimuth - np.deg2rad(ctf.defocus_angle)
    defocus = u * np.cos(turn) ** 2 + v * np.sin(turn) ** 2
    path = defocus * wavelength * k ** 2 / 2 - ctf.spherical_aberration * 1e7 * wavelength ** 3 * k ** 4 / 4
    scattered = np.sqrt(1 - ctf.amplitude_contrast ** 2) + 1j * ctf.amplitude_contrast
    wave = scattered * np.exp(1j * (2 * np.pi * path + np.deg2rad(ctf.phase_shift)))
    return wave.imag * np.exp(-ctf.b_factor * k ** 2 / 4)


@settings(max_examples=30)
@given(st.builds(
    Ctf, defocus_u=st.floats(15000, 30000), defocus_v=st.floats(5000, 15000), defocus_angle=st.floats(0, 180),
    voltage=st.sampled_from([100.0, 200.0, 300.0]), spherical_aberration=st.sampled_from([0.01, 2.0, 2.7]),
    amplitude_contrast=st.floats(0, 0.3), phase_shift=st.floats(0, 180), b_factor=st.floats(0, 300)),
    st.sampled_from([(64, 64), (48, 71), (63, 50)]))
def test_the_ctf_equals_the_independent_formula(ctf, shape):
    found = evaluate_ctf(ctf, shape, PIXEL_SIZE).numpy()

    expected = evaluate_independently(ctf, shape, PIXEL_SIZE, is_half=True)
    np.testing.assert_allclose(found, expected, atol=1e-3)          # RELION's constants have six digits


def test_the_absolute_ctf_equals_the_published_one():
    if not GOLDEN.exists():
        pytest.skip(f'{GOLDEN.name} is not at hand')
    golden = np.load(GOLDEN)['ctf/centered_64px_5.36A_dfu15800_dfv16200_ang35']

    found = evaluate_ctf(Ctf(15800.0, 16200.0, 35.0, 300.0, 2.7, 0.1), (64, 64), 5.36).numpy()

    half = np.fft.ifftshift(golden.squeeze())[:, :32]
    np.testing.assert_allclose(np.abs(found[:, :32]), np.abs(half), atol=2e-3)


@pytest.mark.parametrize('amplitude_contrast', [0.0, 0.07, 0.1])
def test_at_zero_frequency_the_ctf_is_the_amplitude_contrast_and_positive(amplitude_contrast):
    ctf = Ctf(20000.0, 20000.0, 0.0, amplitude_contrast=amplitude_contrast)

    assert float(evaluate_ctf(ctf, (32, 32), PIXEL_SIZE)[0, 0]) == pytest.approx(amplitude_contrast, abs=1e-6)


def test_a_phase_plate_of_90_degrees_transfers_zero_frequency_fully():
    ctf = Ctf(5000.0, 5000.0, 0.0, amplitude_contrast=0.0, phase_shift=90.0)

    assert float(evaluate_ctf(ctf, (32, 32), PIXEL_SIZE)[0, 0]) == pytest.approx(1)


def test_the_first_zero_lies_where_the_phase_is_pi():
    # without Cs and amplitude contrast: sin(pi λ Δf k²) = 0 first at k = 1 / sqrt(λ Δf)
    defocus, n = 20000.0, 512
    ctf = Ctf(defocus, defocus, 0.0, spherical_aberration=0.0, amplitude_contrast=0.0)
    profile = evaluate_ctf(ctf, (n, n), PIXEL_SIZE)[0].numpy()

    first = np.flatnonzero(np.diff(np.sign(profile[1:])))[0] + 1
    assert first / (n * PIXEL_SIZE) == pytest.approx(1 / np.sqrt(0.0196875 * defocus), rel=0.01)


def test_defocus_u_lies_along_its_angle():
    # 35 degrees from x towards y: there the rings are those of a round CTF of defocus U
    n, ctf = 256, Ctf(20000.0, 10000.0, 35.0)
    found, round_u = (evaluate_ctf(one, (n, n), PIXEL_SIZE).numpy()
                      for one in (ctf, dataclasses.replace(ctf, defocus_v=20000.0)))
    ky, kx = np.meshgrid(np.fft.fftfreq(n), np.fft.rfftfreq(n), indexing='ij')
    azimuth = np.rad2deg(np.arctan2(ky, kx))
    is_along, is_across = np.abs(azimuth - 35) < 0.4, np.abs(azimuth + 55) < 0.4

    assert np.corrcoef(found[is_along], round_u[is_along])[0, 1] > 0.97
    assert np.corrcoef(found[is_across], round_u[is_across])[0, 1] < 0.5


def make_painting(slices: list[tuple[float, np.ndarray]], shape: tuple[int, int], margin: int) -> Painting:
    tensors = tuple((height, torch.from_numpy(density.astype(np.float32))) for height, density in slices)
    return Painting(tensors, margin, np.zeros(shape, np.int16), np.ones(1), np.zeros(1))


def put_blob(shape: tuple[int, int], center: tuple[float, float], width: float = 3.0) -> np.ndarray:
    y, x = np.mgrid[:shape[0], :shape[1]]
    return np.exp(-((y - center[0]) ** 2 + (x - center[1]) ** 2) / (2 * width ** 2))


@pytest.fixture(scope='module')
def margin() -> int:
    return 32 + measure_delocalisation(TYPICAL, PIXEL_SIZE)


def test_nothing_wraps_around_the_frame(margin):
    shape = (128, 160)
    padded = (shape[0] + 2 * margin, shape[1] + 2 * margin)
    density = put_blob(padded, (margin + 1, margin + 80))           # at the upper border

    image = image_specimen(make_painting([(0.0, density)], shape, margin), TYPICAL, PIXEL_SIZE)

    far = evaluate_independently(TYPICAL, (1024, 1024), PIXEL_SIZE)
    large = np.zeros((1024, 1024))
    large[:padded[0], :padded[1]] = density
    expected = -np.fft.ifft2(np.fft.fft2(large) * far).real[margin:margin + 128, margin:margin + 160]
    assert relative_error(image, expected) < 0.01
    assert np.abs(image[-20:]).max() < 2e-3 * np.abs(image).max()
    # the same without a margin: the fringes come in again at the other border
    wrapped = np.fft.irfft2(np.fft.rfft2(density[margin:-margin, margin:-margin])
                            * evaluate_ctf(TYPICAL, shape, PIXEL_SIZE).numpy(), s=shape)
    assert np.abs(wrapped[-20:]).max() > 0.1 * np.abs(wrapped).max()


def test_particles_are_dark_and_their_sum_is_the_amplitude_contrast(margin):
    shape = (200, 200)
    padded = (shape[0] + 2 * margin,) * 2
    density = put_blob(padded, (margin + 100, margin + 100), 6.0)

    image = image_specimen(make_painting([(0.0, density)], shape, margin), TYPICAL, PIXEL_SIZE)

    assert image[97:104, 97:104].max() < 0
    assert image.sum() == pytest.approx(-TYPICAL.amplitude_contrast * density.sum(), rel=0.05)


def test_each_slice_is_imaged_with_the_defocus_of_its_height(margin):
    shape = (100, 100)
    padded = (shape[0] + 2 * margin,) * 2
    densities = [put_blob(padded, (margin + y, margin + 50), 2.0) for y in (25, 75)]
    heights = [-2000.0, 3000.0]

    slices = list(zip(heights, densities, strict=True))
    image = image_specimen(make_painting(slices, shape, margin), TYPICAL, PIXEL_SIZE)

    expected, ignored = np.zeros(padded), np.zeros(padded)
    for height, density in slices:
        shifted = dataclasses.replace(TYPICAL, defocus_u=15800.0 + height, defocus_v=14200.0 + height)
        for total, ctf in ((expected, shifted), (ignored, TYPICAL)):
            total -= np.fft.ifft2(np.fft.fft2(density) * evaluate_independently(ctf, padded, PIXEL_SIZE)).real
    window = (slice(margin, -margin),) * 2
    assert relative_error(image, expected[window]) < 0.01
    assert relative_error(image, ignored[window]) > 0.1


def test_an_empty_specimen_gives_an_empty_image():
    image = image_specimen(make_painting([], (20, 30), 8), TYPICAL, PIXEL_SIZE)

    assert image.shape == (20, 30)
    assert not image.any()


def test_delocalisation_is_the_gradient_of_the_aberration():
    ctf = Ctf(20000.0, 18000.0, 0.0, spherical_aberration=0.0)

    # λ Δf k at Nyquist: 0.0197 Å · 20000 Å / 6 Å = 65.6 Å
    assert measure_delocalisation(ctf, 3.0) == np.ceil(0.0196875 * 20000 / 6 / 3)
    assert measure_delocalisation(Ctf(1.0, 1.0, 0.0), 0.8) == np.ceil(2.7e7 * 0.0196875 ** 3 / 1.6 ** 3 / 0.8)


@given(st.integers(2, 5000))
def test_transforms_have_even_lengths_of_small_primes(least):
    length = find_fft_length(least)

    assert least <= length <= 1.2 * least + 8
    assert length % 2 == 0
    rest = length
    for prime in (2, 3, 5, 7):
        while rest % prime == 0:
            rest //= prime
    assert rest == 1
