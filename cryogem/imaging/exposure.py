"""Draws what is on a micrograph and takes its noise-free picture. All random things are drawn before any pixel."""

import dataclasses
from dataclasses import dataclass

import numpy as np
import torch

from cryogem.imaging.calibration import Calibration
from cryogem.imaging.ctf import evaluate_ctf, image_specimen, measure_delocalisation
from cryogem.imaging.ice import render_ice, render_paper_ice
from cryogem.records import Ctf, Micrograph, Particle, name_micrograph
from cryogem.specimen.ensemble import Ensemble
from cryogem.specimen.micrograph import Painting, paint, project_particles, split_centers
from cryogem.specimen.orientation import ViewPreference
from cryogem.specimen.placement import draw_count, place_particles

# purposes of random streams; trials go on from 16
SIMULATED, NOISE, GENERATED, TRAINED, FINE_NOISE, TRIAL = 0, 1, 2, 3, 4, 16
_DEFOCUS_JITTER = 0.02                      # share by which a CTF taken from a real micrograph is varied


@dataclass(frozen=True)
class Protocol:
    """What one experiment is like; with a seed and an index it determines a micrograph."""

    prefix: str                             # names are prefix_00001, prefix_00002, ...
    seed: int
    particles_per_frame: tuple[float, float]            # mean, sd
    neighbour_distances: tuple[float, ...]  # Å, even quantiles of what particles keep from each other
    ice_thickness: float                    # Å
    defocus_range: tuple[float, float]      # Å; this and what follows to b_factor is used where no CTFs are known
    voltage: float                          # kV
    spherical_aberration: float             # mm
    amplitude_contrast: float
    astigmatism: float = 100.0              # Å, sd of U - V
    phase_shift: tuple[float, float] = (0.0, 0.0)       # degrees
    b_factor: float = 0.0                   # Å²
    ice_tilt: float = 0.0                   # degrees
    defocus_error: float = 50.0             # Å between the defocus of a particle and that it is imaged with
    views: ViewPreference = ViewPreference()
    clustering: float = 0.0                 # share of particles next to another one
    forbidden: tuple[np.ndarray | None, ...] = ()       # (h, w) bool for each real micrograph, or one for all
    purpose: int = SIMULATED                # random stream of the records: simulate and generate share no specimen


@dataclass(frozen=True)
class Exposure:
    """A noise-free picture and its ground truth."""

    record: Micrograph
    clean: np.ndarray                       # (h, w) float32, contrast units, dark particles, CTF applied, no ice
    instance_mask: np.ndarray               # (h, w) int16


def spawn_generator(seed: int, index: int, purpose: int) -> np.random.Generator:
    """Return the random stream of one micrograph for one purpose (SIMULATED, NOISE, ...); no other index shares it."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(index, purpose)))


def draw_record(protocol: Protocol, calibration: Calibration, ensemble: Ensemble, index: int) -> Micrograph:
    """Draw all that is random on micrograph `index` (from 0), but for its noise.

    The fractions of the particles are not known before they are painted; `expose` fills them in.
    """
    rng = spawn_generator(protocol.seed, index, protocol.purpose)
    weights = np.array([one.weight for one in calibration.micrographs])
    source = int(rng.choice(len(weights), p=weights / weights.sum()))
    ctf = _draw_ctf(protocol, calibration, source, rng)
    flips = (bool(rng.integers(2)), bool(rng.integers(2)))
    count = draw_count(*protocol.particles_per_frame, rng)
    real = calibration.micrographs[source]
    return Micrograph(
        index=index, name=name_micrograph(protocol.prefix, index), shape=calibration.shape,
        pixel_size=calibration.pixel_size, ctf=ctf, source=source, ice_flips=flips,
        signal_scale=real.signal_scale or calibration.signal_scale or 1.0, grey_mean=real.grey_mean,
        grey_sd=real.grey_sd,
        particles=_draw_particles(
            protocol, calibration, ensemble, count, _find_forbidden(protocol, source, flips), rng),
        n_requested=count)


def draw_record_at(
    protocol: Protocol, calibration: Calibration, ensemble: Ensemble, source: int, draw: int
) -> Micrograph:
    """Draw what could have been on real micrograph `source`: its CTF, its picks in poses of their own, at scale 1.

    Parameters
    ----------
    draw : number of the draw, from 0; each has other poses.
    """
    real = calibration.micrographs[source]
    rng = spawn_generator(protocol.seed, source, TRIAL + draw)
    ctf = _draw_ctf(protocol, calibration, source, rng) if real.ctf is None else real.ctf
    centers = np.array(real.picks_yx).reshape(-1, 2)
    return Micrograph(
        index=source, name=real.name, shape=real.shape or calibration.shape, pixel_size=calibration.pixel_size,
        ctf=ctf, source=source, ice_flips=(False, False), signal_scale=1.0, grey_mean=real.grey_mean,
        grey_sd=real.grey_sd,
        particles=_dress_particles(protocol, calibration, ensemble, centers, rng), n_requested=len(centers))


def expose(
    record: Micrograph, ensemble: Ensemble, defocus_error: float = 50.0, calibration: Calibration | None = None
) -> Exposure:
    """Take the noise-free picture of a micrograph that was drawn.

    Parameters
    ----------
    defocus_error : Å, largest difference between the defocus a particle is imaged with and the one recorded.
    calibration : where it holds the published ice, particles are multiplied by it before the CTF.
    """
    # what lies farther outside reaches the frame with 1e-5 of the signal
    margin = ensemble.box_size // 2 + measure_delocalisation(record.ctf, record.pixel_size)
    painting = paint(ensemble.projectors, record.particles, record.shape, margin, 2 * defocus_error)
    transmission = () if calibration is None else calibration.micrographs[record.source].transmission
    if transmission:
        painting = _attenuate(painting, render_paper_ice(np.array(transmission), record.shape, record.ice_flips))
    clean = image_specimen(painting, record.ctf, record.pixel_size) * np.float32(record.signal_scale)
    particles = tuple(
        dataclasses.replace(particle, visible_fraction=float(visible), overlap_fraction=float(overlap))
        for particle, visible, overlap in zip(
            record.particles, painting.visible_fractions, painting.overlap_fractions, strict=True))
    seen = tuple(particle for particle in particles if particle.visible_fraction > 0)
    return Exposure(dataclasses.replace(record, particles=seen), clean, painting.instance_mask)


def _attenuate(painting: Painting, transmission: np.ndarray) -> Painting:
    """Return a painting whose density is multiplied by (h, w) transmissions; the margin goes on with the edge."""
    padded = torch.from_numpy(np.pad(transmission, painting.margin, mode='edge'))
    return dataclasses.replace(painting, slices=tuple((height, one * padded) for height, one in painting.slices))


def add_ice(clean: np.ndarray, record: Micrograph, calibration: Calibration) -> np.ndarray:
    """Add the background of the record's real micrograph to an (h, w) clean image, contrast units."""
    coefficients = np.array(calibration.micrographs[record.source].ice)
    return clean + render_ice(coefficients, clean.shape, record.ice_flips)


def expose_particles(
    record: Micrograph, particles: tuple[Particle, ...], ensemble: Ensemble, box_size: int
) -> np.ndarray:
    """Take noise-free pictures of single particles, without neighbours, each with its own CTF.

    Returns
    -------
    (n, box_size, box_size) float32, contrast units, bright particles (RELION's convention for particle images); the
    particle's integer coordinate is at box_size // 2.
    """
    _, fractions = split_centers(np.array([p.center_yx for p in particles]).reshape(-1, 2))
    density = project_particles(ensemble.projectors, particles, fractions)[:, 0]
    padded = 2 * max(box_size, ensemble.box_size + measure_delocalisation(record.ctf, record.pixel_size))
    low = padded // 2 - ensemble.box_size // 2
    canvas = torch.zeros((padded, padded))
    images = np.empty((len(particles), box_size, box_size), dtype=np.float32)
    crop = slice(padded // 2 - box_size // 2, padded // 2 - box_size // 2 + box_size)
    for i, particle in enumerate(particles):
        canvas[low:low + ensemble.box_size, low:low + ensemble.box_size] = density[i]
        ctf = evaluate_ctf(record.ctf.at_height(particle.height), (padded, padded), record.pixel_size)
        images[i] = torch.fft.irfft2(torch.fft.rfft2(canvas) * ctf, s=(padded, padded))[crop, crop].numpy()
    return images * np.float32(record.signal_scale)


def _draw_ctf(protocol: Protocol, calibration: Calibration, source: int, rng: np.random.Generator) -> Ctf:
    measured = [one.ctf for one in calibration.micrographs if one.ctf is not None]
    real = calibration.micrographs[source].ctf or (measured[rng.integers(len(measured))] if measured else None)
    if real is not None:
        factor = 1 + _DEFOCUS_JITTER * rng.uniform(-1, 1)
        return dataclasses.replace(real, defocus_u=real.defocus_u * factor, defocus_v=real.defocus_v * factor)
    mean = rng.uniform(*protocol.defocus_range)
    difference = abs(rng.normal(0, protocol.astigmatism))
    return Ctf(mean + difference / 2, mean - difference / 2, float(rng.uniform(0, 180)), protocol.voltage,
               protocol.spherical_aberration, protocol.amplitude_contrast,
               float(rng.uniform(*protocol.phase_shift)), protocol.b_factor)


def _find_forbidden(protocol: Protocol, source: int, flips: tuple[bool, bool]) -> np.ndarray | None:
    """Return where no particle may lie, mirrored as the ice of the real micrograph is."""
    if not protocol.forbidden:
        return None
    mask = protocol.forbidden[source if len(protocol.forbidden) > 1 else 0]
    return None if mask is None else mask[::-1 if flips[0] else 1, ::-1 if flips[1] else 1]


def _draw_particles(
    protocol: Protocol, calibration: Calibration, ensemble: Ensemble, count: int, is_forbidden: np.ndarray | None,
    rng: np.random.Generator,
) -> tuple[Particle, ...]:
    pixel_size = calibration.pixel_size
    distances = [distance / pixel_size for distance in protocol.neighbour_distances]
    centers = place_particles(calibration.shape, count, distances, ensemble.diameter / 2 / pixel_size, rng,
                              protocol.clustering, is_forbidden)
    return _dress_particles(protocol, calibration, ensemble, centers, rng)


def _dress_particles(
    protocol: Protocol, calibration: Calibration, ensemble: Ensemble, centers: np.ndarray, rng: np.random.Generator
) -> tuple[Particle, ...]:
    """Return particles at (n, 2) centres with pose, map, height and subset."""
    n = len(centers)
    angles = protocol.views.draw(n, rng)
    conformers = ensemble.draw_conformers(n, rng)
    slab = max(0.0, protocol.ice_thickness - ensemble.diameter) / 2       # particles stay inside the ice
    heights = rng.uniform(-slab, slab, size=n) if slab else np.zeros(n)
    if protocol.ice_tilt:
        heights += _tilt_heights(centers, calibration, protocol.ice_tilt, rng)
    subsets = rng.integers(1, 3, size=n)
    return tuple(
        Particle(instance_id=i + 1, center_yx=(float(centers[i, 0]), float(centers[i, 1])), height=float(heights[i]),
                 rot=float(angles[i, 0]), tilt=float(angles[i, 1]), psi=float(angles[i, 2]),
                 volume_index=int(conformers[i]), random_subset=int(subsets[i]))
        for i in range(n))


def _tilt_heights(
    centers_yx: np.ndarray, calibration: Calibration, ice_tilt: float, rng: np.random.Generator
) -> np.ndarray:
    """Return the heights (Å) that a tilt of the ice about a random axis through the frame's centre adds."""
    azimuth = rng.uniform(0, 2 * np.pi)
    offsets = (centers_yx - (np.array(calibration.shape) - 1) / 2) * calibration.pixel_size
    across = offsets @ np.array([np.sin(azimuth), np.cos(azimuth)])
    return across * np.tan(np.deg2rad(ice_tilt))
