"""Synthetic real micrographs whose every property is known."""

import dataclasses
from dataclasses import dataclass

import numpy as np

from cryogem.imaging.background import draw_background
from cryogem.imaging.calibration import Calibration, MicrographCalibration, RealMicrograph
from cryogem.imaging.exposure import Protocol, add_ice, draw_record, expose, spawn_generator
from cryogem.imaging.noise_fit import NoiseModel, evaluate_radial, measure_rings
from cryogem.imaging.spectrum import N_SHELLS
from cryogem.records import Ctf, Micrograph
from cryogem.specimen.ensemble import Ensemble

PIXEL_SIZE = 4.0
SHAPE = (300, 340)
CTF = Ctf(16000.0, 15500.0, 30.0)
GREY_MEAN, GREY_SD = 1200.0, 75.0
SHELLS = np.arange(N_SHELLS)
FLAT_POWER, RING_POWER = 0.6 + 0.8 * np.exp(-(SHELLS / 40) ** 2), 0.9 * np.exp(-(SHELLS / 60) ** 2)
NOISE = NoiseModel(tuple(FLAT_POWER.tolist()), tuple(RING_POWER.tolist()))
NOISE_POWER = evaluate_radial(NOISE, measure_rings([CTF], PIXEL_SIZE)[0])
SIGNAL_SCALE = 0.4                          # contrast units per density·px
ICE = np.zeros((6, 6))
ICE[0, 1], ICE[1, 0], ICE[2, 1] = 0.25, -0.2, 0.1


def make_calibration(
    signal_scale: float | None = None, ctfs: tuple[Ctf | None, ...] = (CTF,), shape: tuple[int, int] = SHAPE
) -> Calibration:
    """Return a calibration with known noise, ice and grey scale, one micrograph for each CTF."""
    noise = tuple(NOISE_POWER.tolist())
    micrographs = tuple(
        MicrographCalibration(f'real_{i}', GREY_MEAN, GREY_SD, 0, tuple(map(tuple, ICE.tolist())), noise, noise, noise,
                              ctf=ctf) for i, ctf in enumerate(ctfs))
    return Calibration(PIXEL_SIZE, shape, 90.0, None, None, None, signal_scale, None, NOISE, micrographs)


def make_protocol(seed: int = 0, count: float = 30, sd: float = 0, distance: float = 110.0, **more) -> Protocol:
    """Return an experiment of evenly crowded frames."""
    plain = Protocol(
        prefix='made', seed=seed, particles_per_frame=(count, sd), neighbour_distances=(distance,), ice_thickness=300.0,
        defocus_range=(10000.0, 20000.0), voltage=300.0, spherical_aberration=2.7, amplitude_contrast=0.1)
    return dataclasses.replace(plain, **more)


@dataclass(frozen=True)
class MadeMicrograph:
    """A micrograph that was made as the real ones are: its truth, its parts and its grey values."""

    record: Micrograph
    clean: np.ndarray
    real: RealMicrograph


def make_micrographs(
    ensemble: Ensemble, n: int, signal_scale: float, seed: int = 0, count: float = 30, distance: float = 110.0
) -> list[MadeMicrograph]:
    """Return `n` synthetic real micrographs with picks on all pickable particles."""
    calibration, protocol = make_calibration(signal_scale), make_protocol(seed, count, distance=distance)
    made = []
    for index in range(n):
        exposure = expose(draw_record(protocol, calibration, ensemble, index), ensemble)
        record = exposure.record
        contrast = add_ice(exposure.clean, record, calibration) + draw_background(
            dataclasses.replace(record, ctf=CTF), calibration, record.shape, spawn_generator(seed, index, purpose=1))
        picks = np.array([one.center_yx for one in record.particles if record.is_pickable(one)]).reshape(-1, 2)
        grey = (contrast * GREY_SD + GREY_MEAN).astype(np.float32)
        made.append(MadeMicrograph(record, exposure.clean, RealMicrograph(record.name, grey, picks, CTF)))
    return made
