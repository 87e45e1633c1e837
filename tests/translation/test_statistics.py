"""Texture statistics: what they see, and that their goal is not the sameness of all crops."""

import numpy as np
import pytest
import torch

from cryogem.translation.statistics import (
    N_SHELLS,
    StatisticsGoal,
    compare_statistics,
    estimate_certainty,
    measure_statistics,
)


def draw(n: int, seed: int, change=lambda noise: noise) -> torch.Tensor:
    torch.manual_seed(seed)
    return change(torch.randn(n, 1, 64, 64))


def vary(noise: torch.Tensor) -> torch.Tensor:
    """Noise that is strong in one half of the crop and weak in the other."""
    gain = torch.where(torch.arange(64) < 32, 0.6, 1.28)
    return noise * gain


@pytest.mark.parametrize('change', [
    lambda noise: (torch.exp(0.3 * noise) - 1.05) / 0.32, vary, lambda noise: 1.2 * noise,
    lambda noise: noise + torch.roll(noise, 1, -1)], ids=['skew', 'patches', 'strength', 'spectrum'])
def test_statistics_tell_noise_from_noise_of_another_kind(change):
    wanted = measure_statistics(draw(48, 0))
    same = compare_statistics(measure_statistics(draw(48, 1)), wanted)
    other = compare_statistics(measure_statistics(draw(48, 1, change)), wanted)

    assert float(other) > 5 * float(same)


def test_the_spectrum_of_white_noise_is_its_variance_on_all_shells():
    spectrum = measure_statistics(draw(64, 0, lambda noise: 3 * noise)).log_spectrum

    assert spectrum.shape == (N_SHELLS,)
    np.testing.assert_allclose(spectrum[1:].exp(), 9, rtol=0.2)


def test_a_goal_that_is_reached_is_zero_in_the_mean_however_much_single_crops_differ():
    def draw_scattered(seed: int, n: int) -> torch.Tensor:
        rng = np.random.default_rng(seed)
        return draw(n, seed) * torch.from_numpy(rng.uniform(0.5, 1.5, size=(n, 1, 1, 1)).astype(np.float32))

    goal = StatisticsGoal(measure_statistics(draw_scattered(0, 400)), measure_statistics(draw(400, 1)))
    reached = [float(goal.compare(draw_scattered(seed, 8), draw(8, seed))) for seed in range(2, 42)]
    missed = [float(goal.compare(draw(8, seed), draw(8, seed))) for seed in range(2, 42)]

    assert abs(np.mean(reached)) < 0.35 * np.mean(missed)


def test_the_goal_pulls_a_gain_towards_the_right_strength():
    goal = StatisticsGoal(measure_statistics(draw(64, 0, lambda noise: 1.3 * noise)), measure_statistics(draw(64, 1)))
    for gain, sign in ((1.0, -1), (1.6, 1)):
        parameter = torch.tensor(gain, requires_grad=True)
        prior = draw(8, 2)
        goal.compare(parameter * prior, prior).backward()
        assert np.sign(float(parameter.grad)) == sign


def test_the_level_of_a_crop_is_not_its_texture():
    crops = draw(32, 0)
    lifted = crops + torch.linspace(-2, 2, 32)[:, None, None, None]
    found, wanted = measure_statistics(lifted), measure_statistics(crops)

    np.testing.assert_allclose(found.quantiles, wanted.quantiles, atol=1e-4)
    np.testing.assert_allclose(found.log_spectrum, wanted.log_spectrum, atol=1e-4)


def measure_groups(n_groups: int, seed: int, spread: float = 0.0, strength: float = 1.0):
    """Return statistics of all crops, and of groups (micrographs) whose noise differs in strength by `spread`."""
    rng = np.random.default_rng(seed)
    groups = [draw(24, seed + i, lambda noise: noise * strength * rng.normal(1, spread)) for i in range(n_groups)]
    return measure_statistics(torch.cat(groups)), [measure_statistics(one) for one in groups]


def test_what_all_micrographs_have_is_wanted_and_what_they_differ_in_is_not():
    prior, prior_parts = measure_groups(6, 100)
    stronger, stronger_parts = measure_groups(6, 200, strength=1.3)
    scattered = []
    for seed in (300, 400, 500, 600):
        real, parts = measure_groups(6, seed, spread=0.1)
        scattered.append(estimate_certainty(real, prior, parts, prior_parts))

    certain = estimate_certainty(stronger, prior, stronger_parts, prior_parts)
    assert certain.shape == stronger.flatten(stronger).shape
    assert float(certain.min()) >= 0
    assert float(certain.max()) <= 1
    assert float(certain[-N_SHELLS:].min()) > 0.98              # the power of all shells is 1.7 times as much
    assert np.mean([float(one[-N_SHELLS:].mean()) for one in scattered]) < 0.6


def test_a_single_micrograph_says_nothing_of_differences_and_is_taken_as_it_is():
    one, parts = measure_groups(1, 0)
    prior, prior_parts = measure_groups(4, 50)

    assert (estimate_certainty(one, prior, parts, prior_parts) == 1).all()


def test_a_goal_asks_for_no_more_than_is_certain():
    real, prior = (measure_statistics(draw(64, seed, change)) for seed, change in (
        (0, lambda noise: 1.3 * noise), (1, lambda noise: noise)))
    crops = draw(8, 2)
    nothing = StatisticsGoal(real, prior, torch.zeros_like(real.flatten(real)))
    everything = StatisticsGoal(real, prior, torch.ones_like(real.flatten(real)))

    assert float(nothing.compare(crops, crops)) == 0
    assert float(everything.compare(crops, crops)) == float(StatisticsGoal(real, prior).compare(crops, crops)) > 0
