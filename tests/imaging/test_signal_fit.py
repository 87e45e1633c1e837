"""The amplitude of the signal, its fall-off, and how well the map explains the particles, from made micrographs."""

import dataclasses

import numpy as np
import pytest

from cryogem.errors import InputError
from cryogem.imaging.exposure import draw_record_at, expose
from cryogem.imaging.measurement import calibrate
from cryogem.imaging.noise import randomise_phases
from cryogem.imaging.signal import average_signals, measure_signal
from cryogem.imaging.signal_fit import blur_picks, fit_signal
from cryogem.imaging.spectrum import N_SHELLS
from cryogem.specimen.ensemble import build_ensemble
from cryogem.specimen.volume import filter_radially, low_pass_filter
from tests.imaging.synthetic import (
    GREY_SD,
    PIXEL_SIZE,
    SHAPE,
    SIGNAL_SCALE,
    make_micrographs,
    make_protocol,
)
from tests.messages import is_one_sentence
from tests.phantom import make_chiral_phantom

DIAMETER = 90.0                             # Å
DIAMETER_PX = DIAMETER / PIXEL_SIZE


def measure_clean(calibration, ensemble, n_draws: int = 3):
    """Return what is measured on clean pictures of particles at the picks, as `simulate` does."""
    clean = []
    for i, one in enumerate(calibration.micrographs):
        centers = np.array(one.picks_yx).reshape(-1, 2)
        draws = [expose(draw_record_at(make_protocol(50), calibration, ensemble, i, draw), ensemble)
                 for draw in range(n_draws)]
        clean.append(average_signals([measure_signal(draw.clean, centers, DIAMETER_PX) for draw in draws]))
    return clean


def fit(real, ensemble):
    """Return the calibration of real micrographs, the fit of their signal, and grey sd over that which was put in."""
    measured = calibrate(real, PIXEL_SIZE, DIAMETER)
    found = fit_signal([one.signal for one in measured.micrographs], measure_clean(measured, ensemble), DIAMETER_PX,
                       PIXEL_SIZE, [one.weight for one in measured.micrographs],
                       has_unmarked=any(one.n_unmarked for one in measured.micrographs))
    return measured, found, np.array([one.grey_sd for one in measured.micrographs]) / GREY_SD


def drop_high_resolution(b_factor: float) -> np.ndarray:
    frequency = np.arange(N_SHELLS) / N_SHELLS / (2 * PIXEL_SIZE)
    return np.exp(-b_factor / 4 * frequency ** 2)


def jitter(real, sd: float, seed: int = 0):
    rng = np.random.default_rng(seed)
    return [dataclasses.replace(one, centers_yx=one.centers_yx + rng.normal(0, sd, one.centers_yx.shape))
            for one in real]


@pytest.fixture(scope='module')
def fitted(made, ensemble):
    return fit([one.real for one in made], ensemble)


def test_the_amplitude_is_found_and_its_error_is_honest(fitted):
    _, found, sds = fitted
    scale = found.scale * sds.mean() * found.gain[2:40].mean()

    assert scale == pytest.approx(SIGNAL_SCALE, rel=0.05)
    assert 0.002 < found.quality.scale_error / found.scale < 0.1
    np.testing.assert_allclose(np.array(found.own_scales) * sds * found.gain[2:40].mean(), SIGNAL_SCALE, rtol=0.15)
    assert len(found.own_errors) == len(found.own_scales)


@pytest.mark.parametrize(('scale', 'b_factor'), [(0.6, 400.0)])
def test_amplitude_and_filter_of_the_signal_are_found(ensemble, scale, b_factor):
    truth = scale * drop_high_resolution(b_factor)
    seen = build_ensemble([filter_radially(ensemble.volumes[0], drop_high_resolution(b_factor))], [1])
    _, found, sds = fit([one.real for one in make_micrographs(seen, 8, scale)], ensemble)

    gain = found.scale * sds.mean() * found.gain
    assert found.gain.shape == (N_SHELLS,)
    assert found.gain.max() == pytest.approx(1)
    np.testing.assert_allclose(gain[3:40], truth[3:40], rtol=0.15)
    assert np.mean(gain[4:32] / truth[4:32]) == pytest.approx(1, abs=0.06)
    assert found.quality.b_factor == pytest.approx(b_factor, abs=max(3 * found.quality.b_factor_error, 150))


def test_signal_to_noise_ratios_fall_with_the_signal(fitted, made):
    _, found, _ = fitted
    ratios = np.array(found.quality.snr)

    assert ratios[4:20].mean() > 3 * ratios[40:60].mean()
    assert ratios.min() >= 0


def test_scattered_picks_do_not_bias_the_amplitude_and_their_error_is_found(made, ensemble, fitted):
    sd = 2.0
    _, found, sds = fit(jitter([one.real for one in made], sd), ensemble)

    assert found.quality.pick_error == pytest.approx(sd, abs=0.6)
    assert found.scale * sds.mean() * found.gain[2:40].mean() == pytest.approx(SIGNAL_SCALE, rel=0.1)
    assert fitted[1].quality.pick_error < 1


def test_unmarked_particles_hardly_bias_the_amplitude(made, ensemble, fitted):
    real = [dataclasses.replace(one.real, centers_yx=one.real.centers_yx[::2]) for one in made]

    _, found, sds = fit(real, ensemble)

    assert found.scale * sds.mean() * found.gain[2:40].mean() == pytest.approx(SIGNAL_SCALE, rel=0.15)
    assert found.quality.marked_share < fitted[1].quality.marked_share
    assert fitted[1].quality.marked_share > 0.9


def test_micrographs_of_thick_ice_have_a_smaller_amplitude_of_their_own(ensemble):
    bright, faint = (make_micrographs(ensemble, 4, scale, seed) for scale, seed in ((0.5, 1), (0.3, 2)))
    real = [dataclasses.replace(one.real, name=f'real_{i}') for i, one in enumerate([*bright, *faint])]
    measured, found, sds = fit(real, ensemble)

    scales = np.array(found.own_scales) * sds * found.gain[2:40].mean()
    assert np.mean(scales[:4]) == pytest.approx(0.5, rel=0.1)
    assert np.mean(scales[4:]) == pytest.approx(0.3, rel=0.15)
    assert not any(one.remarks for one in measured.micrographs)


def test_a_single_micrograph_gives_an_amplitude(made, ensemble):
    _, found, sds = fit([made[0].real], ensemble)

    assert found.scale * sds[0] * found.gain[2:40].mean() == pytest.approx(SIGNAL_SCALE, rel=0.2)
    assert found.quality.scale_error > 0


def test_in_frames_crowded_to_the_border_signal_and_noise_are_separated(ensemble):
    # the discs of the picks leave a few percent of the frame; where those are, there is no empty window
    crowded = make_micrographs(ensemble, 4, SIGNAL_SCALE, count=150, distance=76.0)
    measured, found, sds = fit([one.real for one in crowded], ensemble)

    assert min(len(one.real.centers_yx) for one in crowded) > 120
    assert found.scale * sds.mean() * found.gain[2:40].mean() == pytest.approx(SIGNAL_SCALE, rel=0.15)


def test_the_map_explains_its_own_particles_and_not_those_of_another_map(made, ensemble, fitted):
    other = make_chiral_phantom(scale=0.55).prepare(32, PIXEL_SIZE)
    _, wrong, _ = fit([one.real for one in made], build_ensemble([other], [1]))

    right = fitted[1].quality
    assert (right.misfit, right.map_misfit) < (0.1, 0.1)
    assert right.correlation > 0.97
    assert wrong.quality.map_misfit > 0.3
    assert wrong.quality.correlation < right.correlation


def test_a_map_without_detail_is_seen_as_smoother_than_the_micrographs(made, ensemble, fitted):
    volume = ensemble.volumes[0]
    blunt = dataclasses.replace(volume, density=low_pass_filter(volume.density, PIXEL_SIZE, 25.0))
    _, found, sds = fit([one.real for one in made], build_ensemble([blunt], [1]))

    assert found.quality.b_factor < -5 * found.quality.b_factor_error
    assert abs(fitted[1].quality.b_factor) < 3 * fitted[1].quality.b_factor_error
    # where the map has its power the amplitude is right all the same
    assert (found.scale * found.gain)[4:20].mean() * sds.mean() == pytest.approx(SIGNAL_SCALE, rel=0.1)


def test_picks_beside_the_middle_spoil_the_mean_particle_but_not_the_amplitude(made, ensemble):
    _, found, sds = fit([dataclasses.replace(one.real, centers_yx=one.real.centers_yx + [5.0, 4.0]) for one in made],
                        ensemble)

    assert found.quality.correlation < 0.8
    assert found.quality.pick_error > 3
    assert found.scale * sds.mean() * found.gain[2:40].mean() == pytest.approx(SIGNAL_SCALE, rel=0.15)


@pytest.mark.parametrize(('factor', 'tolerance'), [(1, 0.1), (3, 0.15)])
def test_particles_too_weak_for_their_power_to_be_seen_are_known_by_their_mean(factor, tolerance, ensemble, made):
    """A share of 1 / (1 + factor²) of the signal is left, in noise of the same spectrum; the grey values grow."""
    rng = np.random.default_rng(0)
    real = [dataclasses.replace(one.real, image=one.real.image + factor * randomise_phases(one.real.image, rng))
            for one in made]
    _, found, sds = fit(real, ensemble)

    assert found.scale * sds.mean() * found.gain[2:30].mean() == pytest.approx(SIGNAL_SCALE, rel=tolerance)
    assert found.quality.correlation > 0.9
    assert max(found.quality.misfit, found.quality.map_misfit) < 0.5


def test_coordinates_between_the_particles_are_refused(ensemble, made):
    misplaced = []
    for one in made:
        grid = np.stack(np.meshgrid(np.arange(20, SHAPE[0] - 20, 8.0), np.arange(20, SHAPE[1] - 20, 8.0)), axis=-1)
        grid = grid.reshape(-1, 2)
        centers = np.array([particle.center_yx for particle in one.record.particles])
        nearest = np.linalg.norm(grid[:, None] - centers, axis=-1).min(axis=1)
        misplaced.append(dataclasses.replace(one.real, centers_yx=grid[nearest > 30]))

    with pytest.raises(InputError, match='do not sit on particles') as caught:
        fit(misplaced, ensemble)
    assert is_one_sentence(caught.value)


def test_the_error_of_picks_blurs_a_mean_particle():
    blur = blur_picks(2.0)

    assert blur[0] == 1
    # exp(-2 π² σ² f²) at a quarter of a cycle per pixel
    assert blur[N_SHELLS // 2] == pytest.approx(np.exp(-2 * np.pi ** 2 * 4 / 16))
