"""Texture statistics: what they see, and that their goal is not the sameness of all crops."""

import numpy as np
import pytest
import torch

from cryogem.translation.statistics import N_SHELLS, StatisticsGoal, compare_statistics, measure_statistics


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
