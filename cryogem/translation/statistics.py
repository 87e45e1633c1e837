"""Texture statistics of crops, which a generator is drawn towards beside deceiving its discriminator.

Adversarial training on a handful of micrographs wanders; these statistics are measured once over all real crops and
stay: the spectrum, and for each octave of it the distribution of the pixels and of their local power, as quantiles.
They hold what a Gaussian field cannot have: skew, tails, and power that changes from place to place.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

N_OCTAVES = 4
N_SHELLS = 24
_QUANTILES = (0.001, 0.005, 0.02, *[i / 20 for i in range(1, 20)], 0.98, 0.995, 0.999)
_SHELLS_TOGETHER = 8                        # whose certainty is estimated together
_WINDOW = 8                                 # px of an octave over which its power is averaged
_SMOOTH = (1.0, 4.0, 6.0, 4.0, 1.0)         # binomial low-pass between octaves


@dataclass(frozen=True)
class TextureStatistics:
    """Statistics of a set of crops."""

    quantiles: Tensor                       # (2 N_OCTAVES + 2, n) of the crops, then octaves and their log local power
    log_spectrum: Tensor                    # (N_SHELLS,) log power on shells up to the Nyquist frequency

    def flatten(self, unit: 'TextureStatistics') -> Tensor:
        """Return all numbers in one row; squared differences add up to means, in units of the spread of `unit`."""
        spread = unit.quantiles.std(dim=1, keepdim=True).clamp(min=1e-3)
        quantiles = (self.quantiles / spread).flatten() / self.quantiles.numel() ** 0.5
        return torch.cat([quantiles, self.log_spectrum / len(self.log_spectrum) ** 0.5])

    def to(self, device: torch.device) -> 'TextureStatistics':
        """Return the statistics on `device`."""
        return TextureStatistics(self.quantiles.to(device), self.log_spectrum.to(device))


def measure_statistics(crops: Tensor) -> TextureStatistics:
    """Measure `crops` (b, 1, c, c), all together, each about its own mean.

    The mean of a crop is the level of the ice under it, which differs more between places of one micrograph than
    anything else here and is none of its texture.
    """
    crops = crops - crops.mean(dim=(-2, -1), keepdim=True)
    levels = torch.tensor(_QUANTILES, device=crops.device)
    maps = [crops]
    current = crops
    for octave in range(N_OCTAVES):
        smooth = _halve(current)
        band = current - functional.interpolate(smooth, scale_factor=2, mode='bilinear', align_corners=False)
        current = smooth
        window = max(2, _WINDOW >> octave)
        maps += [band, functional.avg_pool2d(band.square(), window).clamp(min=1e-6).log()]
    maps.append(current)
    quantiles = torch.stack([_measure_quantiles(one.flatten(), levels) for one in maps])
    return TextureStatistics(quantiles, _measure_spectrum(crops))


def compare_statistics(found: TextureStatistics, wanted: TextureStatistics) -> Tensor:
    """Return how far two statistics are apart: mean squares, each map in units of its own spread in `wanted`."""
    return (found.flatten(wanted) - wanted.flatten(wanted)).square().sum()


@dataclass(frozen=True)
class StatisticsGoal:
    """By how much a generator should change the statistics of its priors.

    The statistics of the few crops of one step scatter by more than real and simulated ones differ. What a generator
    changes between the priors of a step and its own output scatters much less. And the square of what is missing is
    estimated as a product of two halves of the step, which errs towards neither side: to lower the mean square of
    something that scatters would lower its scatter too, and make all crops alike.
    """

    real: TextureStatistics
    prior: TextureStatistics                # both of many crops
    certainty: Tensor | None = None         # 0 to 1 for each number of a row, `estimate_certainty`; None: all certain

    def compare(self, generated: Tensor, prior: Tensor) -> Tensor:
        """Return how far the change from `prior` to `generated` (b, 1, c, c) is from the one wanted.

        Without bias for two or more crops; may then be a little below zero.
        """
        wanted = self.real.flatten(self.real) - self.prior.flatten(self.real)
        if self.certainty is not None:
            wanted = wanted * self.certainty
        halves = [slice(0, None, 2), slice(1, None, 2)] if len(generated) > 1 else [slice(None)]
        missing = [measure_statistics(generated[half]).flatten(self.real)
                   - measure_statistics(prior[half]).flatten(self.real) - wanted for half in halves]
        return (missing[0] * missing[-1]).sum()

    def to(self, device: torch.device) -> 'StatisticsGoal':
        """Return the goal on `device`."""
        certainty = None if self.certainty is None else self.certainty.to(device)
        return StatisticsGoal(self.real.to(device), self.prior.to(device), certainty)


def estimate_certainty(
    real: TextureStatistics, prior: TextureStatistics, real_parts: Sequence[TextureStatistics],
    prior_parts: Sequence[TextureStatistics],
) -> Tensor:
    """Say how much of the difference between real and prior crops is more than what their parts differ by.

    Of a difference d that is measured with variance v, the share (d² - v) / d², at least 0, has the least mean square
    error (James and Stein). Square and variance are averaged over each map's quantiles and over groups of shells, as
    those of one quantile from a few micrographs say little. What the few micrographs differ in is so not learned.

    Parameters
    ----------
    real_parts : statistics of each real micrograph; fewer than two say nothing, and all is certain.
    prior_parts : statistics of as many or more groups of simulated crops.

    Returns
    -------
    The (k,) shares, in the order of ``TextureStatistics.flatten``.
    """
    difference = real.flatten(real) - prior.flatten(real)
    if len(real_parts) < 2:
        return torch.ones_like(difference)
    variance = sum((_measure_variance([one.flatten(real) for one in parts]) for parts in (real_parts, prior_parts)),
                   torch.zeros_like(difference))
    n_maps, n_levels = real.quantiles.shape
    sizes = [n_levels] * n_maps + [_SHELLS_TOGETHER] * (N_SHELLS // _SHELLS_TOGETHER)
    shares = [(1 - v.sum() / d.square().sum().clamp(min=1e-12)).clamp(min=0).expand(len(d))
              for d, v in zip(difference.split(sizes), variance.split(sizes), strict=True)]
    return torch.cat(shares)


def _measure_variance(rows: Sequence[Tensor]) -> Tensor:
    """Return the variance of the mean of `rows`, number by number."""
    return torch.stack(list(rows)).var(dim=0) / len(rows)


def _measure_quantiles(values: Tensor, levels: Tensor) -> Tensor:
    """Return the quantiles of `values` (n,), interpolated between neighbours."""
    ordered = values.sort().values
    positions = levels * (len(values) - 1)
    low = positions.floor().long()
    high = (low + 1).clamp(max=len(values) - 1)
    return torch.lerp(ordered[low], ordered[high], positions - low)


def _halve(maps: Tensor) -> Tensor:
    """Low-pass and take every second px of `maps` (b, 1, h, w)."""
    kernel = maps.new_tensor(_SMOOTH)
    kernel = (kernel[:, None] * kernel / kernel.sum() ** 2)[None, None]
    return functional.conv2d(functional.pad(maps, (2, 2, 2, 2), mode='reflect'), kernel, stride=2)


def _measure_spectrum(crops: Tensor) -> Tensor:
    """Return the (N_SHELLS,) log of the mean power of `crops` on shells."""
    side = crops.shape[-1]
    window = torch.hann_window(side, periodic=False, device=crops.device)
    window = window[:, None] * window
    spectrum = torch.fft.rfft2(crops * window)
    power = (spectrum.real.square() + spectrum.imag.square()).mean(dim=(0, 1)) / window.square().sum()
    frequencies = torch.hypot(torch.fft.fftfreq(side)[:, None], torch.fft.rfftfreq(side)).to(crops.device)
    shells = (frequencies * 2 * N_SHELLS).long()
    is_inside = (shells < N_SHELLS) & (frequencies > 1.5 / side)       # the window smears the mean over the first ones
    index = shells[is_inside]
    sums = torch.zeros(N_SHELLS, device=crops.device).index_add(0, index, power[is_inside])
    counts = torch.zeros(N_SHELLS, device=crops.device).index_add(0, index, torch.ones_like(power[is_inside]))
    return (sums / counts.clamp(min=1)).clamp(min=1e-8).log()
