"""Does the CTF that is seen in a micrograph agree with its label?"""

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cryogem.evaluation.frames import Frame
from cryogem.evaluation.torchvision_operators import declare_torchvision_operators
from cryogem.imaging.ctf_fit import fit_ctf
from cryogem.imaging.grey import find_good_region
from cryogem.records import Ctf

TOLERANCE = 0.03                            # share of the defocus by which fit and label may differ


@dataclass(frozen=True)
class CtfCheck:
    """Fit and label of one micrograph."""

    name: str
    labelled: float                         # Å, mean defocus of the label
    fitted: float                           # Å, mean defocus of the fit
    score: float                            # correlation of the rings with the fitted CTF²
    is_trusted: bool                        # the rings are clear enough to believe the fit

    @property
    def agrees(self) -> bool:
        """Whether clear rings lie where the label says."""
        return self.is_trusted and abs(self.fitted / self.labelled - 1) <= TOLERANCE

    @property
    def contradicts(self) -> bool:
        """Whether clear rings lie elsewhere than the label says."""
        return self.is_trusted and not self.agrees


@dataclass(frozen=True)
class CtfAgreement:
    """Fits and labels of a set of micrographs."""

    checks: tuple[CtfCheck, ...]

    @property
    def share(self) -> float:
        """Share of the micrographs whose fit agrees with the label."""
        return float(np.mean([one.agrees for one in self.checks]))

    @property
    def mean_score(self) -> float:
        """Mean clearness of the rings."""
        return float(np.mean([one.score for one in self.checks]))


def check_ctfs(frames: Sequence[Frame], labels: Sequence[Ctf | None], pixel_size: float) -> CtfAgreement | None:
    """Fit the CTF of micrographs and compare it with their labels; those without a label are left out.

    Returns
    -------
    None where no micrograph has a label.
    """
    checks = []
    for frame, label in zip(frames, labels, strict=True):
        if label is None:
            continue
        fit = fit_ctf(frame.contrast[find_good_region(frame.contrast)], pixel_size, label)
        checks.append(CtfCheck(frame.name, _mean_defocus(label), _mean_defocus(fit.ctf), fit.score, fit.is_trusted))
    return CtfAgreement(tuple(checks)) if checks else None


def has_independent_fit() -> bool:
    """Say whether torch-ctf-estimation is installed."""
    return importlib.util.find_spec('torch_ctf_estimation') is not None


def check_independently(frames: Sequence[Frame], labels: Sequence[Ctf | None], pixel_size: float) -> CtfAgreement:
    """As `check_ctfs`, with the mean defocus that torch-ctf-estimation finds (its U - V is half the true one)."""
    import torch

    declare_torchvision_operators()
    from torch_ctf_estimation import CTFFittingParams, OpticalParams, estimate_ctf

    checks = []
    for frame, label in zip(frames, labels, strict=True):
        if label is None:
            continue
        optics = OpticalParams(
            pixel_spacing_angstroms=pixel_size, voltage_kev=label.voltage,
            spherical_aberration_mm=label.spherical_aberration,
            amplitude_contrast_fraction=label.amplitude_contrast, target_pixel_spacing_angstroms=pixel_size)
        fitting = CTFFittingParams(
            defocus_grid_resolution=(1, 1, 1), frequency_fit_range_angstroms=(35.0, 2.3 * pixel_size),
            defocus_range_microns=(0.4, 4.0), patch_sidelength=256)
        _, _, found = estimate_ctf(torch.from_numpy(frame.contrast), optics, fitting)
        defocus = float(found.defocus_u + found.defocus_v) / 2 * 1e4
        checks.append(CtfCheck(frame.name, _mean_defocus(label), defocus, float(found.cross_correlation_final), True))
    return CtfAgreement(tuple(checks))


def _mean_defocus(ctf: Ctf) -> float:
    return (ctf.defocus_u + ctf.defocus_v) / 2
