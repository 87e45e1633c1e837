"""Makes micrographs with parts of the noise model left out and judges them by real ones that calibrated nothing."""

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from cryogem.errors import InputError
from cryogem.evaluation.ablation import Ablation, AblationRow, bring_to_contrast, measure_distances
from cryogem.evaluation.frames import Frame
from cryogem.imaging.background import add_background
from cryogem.imaging.calibration import Calibration, RealMicrograph
from cryogem.imaging.exposure import GENERATED, NOISE, Protocol, add_ice, draw_record, expose, spawn_generator
from cryogem.imaging.grey import GreyScale
from cryogem.imaging.noise import add_gaussian_noise
from cryogem.imaging.noise_fit import NoiseModel, measure_rings
from cryogem.imaging.spectrum import N_SHELLS
from cryogem.progress import Progress
from cryogem.records import Micrograph
from cryogem.specimen.ensemble import Ensemble

MEASURED, NO_RINGS, NO_ICE, NO_AMPLITUDE, WHITE = KINDS = (
    'measured', 'without B', 'without background', 'without amplitude fit', 'white noise')
_SAID_RATIO = 0.1                           # signal to noise where the amplitude is not fitted, and of white noise
_SMALL_SET = 6                              # micrographs up to which all ways to halve the set are tried


@dataclasses.dataclass(frozen=True)
class Likeness:
    """All that is needed to make micrographs like some real ones."""

    calibration: Calibration
    protocol: Protocol
    ensemble: Ensemble


# real micrographs, and the signal-to-noise ratio that is said in place of a measured amplitude -> what makes their like
Learn = Callable[[Sequence[RealMicrograph], float | None], Likeness]
Show = Callable[[str, Sequence[Frame], Sequence[Frame]], None]      # kind, micrographs made and those that judge


def ablate(
    micrographs: Sequence[RealMicrograph], learn: Learn, network: Any, diameter_px: float, show: Show | None = None,
    sign: int = 1,
) -> Ablation:
    """Split the set by micrograph in halves; one calibrates, the other judges, and the other way round.

    Parameters
    ----------
    network : Topaz's, or None: then there is no Fréchet distance.
    sign : -1 where particles are bright in grey values.

    Raises
    ------
    InputError : there are fewer than two micrographs, or one half is without picks.
    """
    if len(micrographs) < 2:
        raise InputError('ablation needs two micrographs at least, one to calibrate on and one to judge; give more')
    frames = [bring_to_contrast(one.name, one.image, one.centers_yx, sign) for one in micrographs]
    halvings = list(list_halvings(len(frames)))
    found: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
    floors, progress = [], Progress('ablation', len(halvings) * len(KINDS))
    for calibrating, judging in halvings:
        known, judges = [frames[i] for i in calibrating], [frames[i] for i in judging]
        if not all(sum(len(one.centers_yx) for one in half) for half in (known, judges)):
            raise InputError('ablation compares picked particles, and one half of the micrographs has no picks; '
                             'give coordinates of more micrographs')
        floors.append(measure_distances(known, judges, network, diameter_px))
        likeness = {is_said: learn([micrographs[i] for i in calibrating], _SAID_RATIO if is_said else None)
                    for is_said in (False, True)}
        for kind in KINDS:
            made = _make_frames(likeness[kind == NO_AMPLITUDE], kind, len(judging), sign)
            found[kind].append(measure_distances(made, judges, network, diameter_px))
            progress.update(sum(map(len, found.values())), kind)
            if show is not None:
                show(kind, made, judges)
    floor = _average(floors)
    return Ablation(tuple(AblationRow(kind, _average(some), floor) for kind, some in found.items()),
                    len(micrographs), len(halvings))


def list_halvings(n: int) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Yield (calibrating, judging) micrographs: all halves of a small set, every other micrograph of a larger one."""
    everyone = tuple(range(n))
    halves = itertools.combinations(everyone, n // 2) if n <= _SMALL_SET else iter((everyone[::2], everyone[1::2]))
    for half in halves:
        yield half, tuple(i for i in everyone if i not in half)


def _make_frames(likeness: Likeness, kind: str, count: int, sign: int) -> list[Frame]:
    """Make micrographs like the real ones, or like what an ablation leaves of them."""
    calibration = _drop_rings(likeness.calibration) if kind == NO_RINGS else likeness.calibration
    protocol = dataclasses.replace(likeness.protocol, purpose=GENERATED)
    return [_make_frame(draw_record(protocol, calibration, likeness.ensemble, index), calibration, likeness.ensemble,
                        kind, sign) for index in range(count)]


def _make_frame(record: Micrograph, calibration: Calibration, ensemble: Ensemble, kind: str, sign: int) -> Frame:
    """Make one micrograph; its picks miss the particles as much as those of people were found to."""
    exposure = expose(record, ensemble)
    record, rng = exposure.record, spawn_generator(0, record.index, NOISE)
    image = exposure.clean if kind == NO_ICE else add_ice(exposure.clean, record, calibration)
    noisy = add_gaussian_noise(image, _SAID_RATIO, rng) if kind == WHITE else add_background(
        image, record, calibration, rng)
    centers = np.array([one.center_yx for one in record.particles if record.is_pickable(one)]).reshape(-1, 2)
    if calibration.signal is not None and calibration.picks is not None:
        centers = centers - calibration.picks.shift_yx + rng.normal(0, calibration.signal.pick_error, centers.shape)
    image = GreyScale(record.grey_mean, record.grey_sd).restore(noisy)
    return bring_to_contrast(record.name, image, centers, sign)


def _drop_rings(calibration: Calibration) -> Calibration:
    """Return the calibration with B · CTF² replaced by its radial mean over the set."""
    rings = measure_rings([one.ctf for one in calibration.micrographs], calibration.pixel_size).mean(axis=0)
    flat = np.array(calibration.noise.flat_power) + np.array(calibration.noise.ring_power) * rings
    return dataclasses.replace(calibration, noise=NoiseModel(tuple(flat.tolist()), (0.0,) * N_SHELLS))


def _average(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    return {key: float(np.mean([one[key] for one in rows])) for key in rows[0]}
