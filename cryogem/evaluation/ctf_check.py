"""Does the CTF that is seen in a micrograph agree with its label?"""

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cryogem.evaluation.frames import Frame
from cryogem.evaluation.torchvision_operators import declare_torchvision_operators
from cryogem.imaging.ctf_fit import fit_ctf
from cryogem.imaging.grey import find_good_region
from cryogem.imaging.refinement import FineGrid
from cryogem.records import Ctf

TOLERANCE = 0.03                            # share of the defocus by which fit and label may differ
# of torch-ctf-estimation: its defaults, what its blurred background reaches to, and where rings are looked for
_FIT_PIXEL_SIZE, _PATCH = 3.0, 256          # Å/px, px
_BLUR_REACH = 12 / 256                      # of the sampling frequency: half the 25 of 256 px that are blurred over
_ENVELOPES, _ENVELOPE_STEP = (0.0, 200.0), 5.0          # Å²
_COARSEST, _SEARCHED = 35.0, (0.4, 4.0)     # Å; µm


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
    checks = []
    for frame, label in zip(frames, labels, strict=True):
        if label is None:
            continue
        defocus, score = fit_independently(frame.contrast[find_good_region(frame.contrast)], pixel_size, label)
        checks.append(CtfCheck(frame.name, _mean_defocus(label), defocus, score, True))
    return CtfAgreement(tuple(checks))


def fit_independently(image: np.ndarray, pixel_size: float, optics: Ctf) -> tuple[float, float]:
    """Fit the defocus of an (h, w) micrograph by torch-ctf-estimation; one defocus and astigmatism for the whole frame.

    Its fit takes the background of the rings for the spectrum blurred over a fixed share of the sampling frequency,
    which suits its default of 3 Å/px. At coarser pixels rings are wider than that and are blurred away with it, so
    that falling rings are found at too high a defocus. So coarser frames are padded to that pixel size, and
    nothing is fitted where the blur reaches beyond their own Nyquist frequency.

    Parameters
    ----------
    pixel_size : Å/px.
    optics : gives voltage, Cs, amplitude contrast and phase shift; its defocus is not used.

    Returns
    -------
    mean defocus, Å, and the correlation of the rings with it, as the program counts it.
    """
    import torch

    declare_torchvision_operators()
    from torch_ctf_estimation.estimate_ctf_1d import estimate_ctf_1d
    from torch_ctf_estimation.estimate_ctf_2d import estimate_defocus_2d_at_1x1
    from torch_ctf_estimation.estimate_ctf_2d.estimate_background_2d import estimate_background_2d
    from torch_ctf_estimation.utils.patches import compute_patch_power_spectra, extract_ctf_patches
    from torch_ctf_estimation.utils.prepare_image import prepare_image_for_ctf

    if pixel_size > _FIT_PIXEL_SIZE:
        fine = FineGrid(pixel_size, _FIT_PIXEL_SIZE, _scale_shape(image.shape, pixel_size / _FIT_PIXEL_SIZE))
        image = fine.refine_image(image)
    frame, _ = prepare_image_for_ctf(torch.from_numpy(image), min(pixel_size, _FIT_PIXEL_SIZE), _FIT_PIXEL_SIZE)
    side = min(_PATCH, *(length // 2 * 2 for length in frame.shape[1:]))
    _, power = compute_patch_power_spectra(extract_ctf_patches(frame, side, (1, 1, 1))[0])
    highest = 1 / (2 * max(pixel_size, _FIT_PIXEL_SIZE)) - _BLUR_REACH / _FIT_PIXEL_SIZE
    known: dict[str, Any] = {
        'frequency_fit_range_angstroms': (_COARSEST, 1 / highest), 'pixel_spacing_angstroms': _FIT_PIXEL_SIZE,
        'voltage_kev': optics.voltage, 'spherical_aberration_mm': optics.spherical_aberration}
    radial = estimate_ctf_1d(power, side, defocus_range_microns=_SEARCHED, b_range=_ENVELOPES, b_step=_ENVELOPE_STEP,
                             amplitude_contrast=optics.amplitude_contrast,
                             initial_phase_shift=optics.phase_shift, **known).ctf_model
    # the mean spectrum of all patches says as much as each of them, for a fraction of the time
    found = estimate_defocus_2d_at_1x1(
        (power - estimate_background_2d(power, side))[None, None, None], (1, 1, 1),
        initial_defocus=float(radial.defocus_um), initial_envelope_B=float(radial.envelope_B or 0),
        optimize_astigmatism=True, amplitude_contrast_fraction=optics.amplitude_contrast,
        defocus_bounds_microns=_SEARCHED, fixed_phase_shift_deg=optics.phase_shift, **known)
    u, v, score = np.array([found.defocus_u, found.defocus_v, found.cross_correlation_final], dtype=float)
    return float(u + v) / 2 * 1e4, float(score)


def _scale_shape(shape: tuple[int, ...], ratio: float) -> tuple[int, int]:
    return int(shape[0] * ratio), int(shape[1] * ratio)


def _mean_defocus(ctf: Ctf) -> float:
    return (ctf.defocus_u + ctf.defocus_v) / 2
