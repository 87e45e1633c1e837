"""`cryogem inspect`: what a map and picks suggest as settings, in seconds, with pictures to judge it by."""

import logging
from pathlib import Path
from typing import Any

import numpy as np

from cryogem.commands.inputs import match_coordinates, read_frames
from cryogem.config import InspectConfig, describe_run
from cryogem.dataset import layout
from cryogem.dataset.writer import check_empty
from cryogem.errors import InputError
from cryogem.evaluation.gallery import Exhibit, write_gallery
from cryogem.evaluation.map_picture import write_projections
from cryogem.imaging.grey import measure_grey_scale
from cryogem.imaging.picks import estimate_diameter, measure_density
from cryogem.imaging.resampling import choose_working_pixel_size
from cryogem.io.files import find_by_stem, find_files, make_folder, write_json
from cryogem.io.mrc import read_micrograph_header, read_volume
from cryogem.io.star import read_coordinates
from cryogem.specimen.placement import measure_nearest_distances
from cryogem.specimen.volume import find_threshold, flatten_solvent, make_outline

logger = logging.getLogger(__name__)

INSPECTION, MAP_PICTURE, PICKS_PICTURE = 'inspection.json', 'map.png', 'picks.png'
_CLICKED_TWICE = 2                          # percent of the picks that may be marked twice: closer than particles lie
_SHOWN = 2                                  # micrographs with picks in the picture


def run(config: InspectConfig, output: Path) -> None:
    """Write inspection.json, with map.png for a map and picks.png for picked micrographs."""
    check_empty(output)
    found: dict[str, Any] = {'units': {'diameter': 'Å', 'pixel_size': 'Å/px', 'minimum_distance': 'Å'}}
    if config.volume:
        found['map'] = inspect_map(config, output / MAP_PICTURE)
    diameter = config.particle_diameter or found.get('map', {}).get('diameter')
    if config.micrographs:
        found['micrographs'] = inspect_micrographs(config, diameter, output / PICKS_PICTURE)
    make_folder(output)
    write_json(output / INSPECTION, found)
    write_json(output / layout.CONFIG, describe_run('inspect', config))
    logger.info('inspection: %s', output / INSPECTION)


def inspect_map(config: InspectConfig, picture: Path) -> dict[str, float]:
    """Measure a map and draw its projections with outline and diameter.

    Returns
    -------
    box (px), pixel_size (Å/px), mask_threshold, the least and the largest density of the coarse map that a threshold is
    applied to, and diameter (Å).
    """
    density, pixel_size = read_volume(Path(config.volume), config.volume_pixel_size)
    outline = make_outline(density, pixel_size)
    threshold = find_threshold(outline) if config.mask_threshold is None else config.mask_threshold
    prepared = flatten_solvent(density, pixel_size, threshold)
    diameter = config.particle_diameter or prepared.diameter
    make_folder(picture.parent)             # only now: what cannot be used leaves nothing behind
    write_projections(picture, density, prepared.mask, diameter / pixel_size)
    logger.info('map: threshold %.4g, particle diameter %.0f Å', threshold, prepared.diameter)
    return {'box': density.shape[0], 'pixel_size': pixel_size, 'mask_threshold': threshold,
            'least_density': float(outline.min()), 'largest_density': float(outline.max()),
            'diameter': prepared.diameter}


def inspect_micrographs(config: InspectConfig, diameter: float | None, picture: Path) -> dict[str, Any]:
    """Measure what headers and picks tell, and draw the most crowded micrographs with their picks.

    Returns
    -------
    number, shape (px), pixel_size (Å/px) of the micrographs; with a diameter (Å), said or from the picks, also that and
    the working_pixel_size; with picks also n_picks, particles_per_micrograph (mean, sd) and minimum_distance (Å).
    """
    files = find_by_stem(find_files(config.micrographs, 'micrographs'), 'micrographs')
    headers = {name: read_micrograph_header(path, config.pixel_size) for name, path in files.items()}
    shape, pixel_size = next(iter(headers.values()))
    found: dict[str, Any] = {'number': len(files), 'shape': list(shape), 'pixel_size': pixel_size}
    matched = match_coordinates(config.coordinates, files)
    picks = {name: read_coordinates(path) for name, path in matched.items()}
    centers = [picks.get(name, np.empty((0, 2))) for name in files]
    frames = [np.broadcast_to(np.float32(0), headers[name][0]) for name in files]       # only their shapes matter
    if diameter is None and picks:
        diameter = estimate_diameter(frames, centers) * pixel_size
    if diameter is not None:
        found['diameter'] = diameter
        found['working_pixel_size'] = choose_working_pixel_size(pixel_size, diameter)
    if not picks or diameter is None:
        return found
    nearest = np.concatenate([measure_nearest_distances(one) for one in centers])
    if not len(nearest):
        raise InputError(f'coordinates hold {sum(map(len, centers))} picks, no two on one micrograph; give more picks')
    mean, sd = measure_density(frames, centers, shape, diameter / pixel_size) or (0.0, 0.0)
    found.update(n_picks=sum(map(len, centers)), particles_per_micrograph=[mean, sd],
                 minimum_distance=float(np.percentile(nearest, _CLICKED_TWICE)) * pixel_size)
    crowded = sorted(picks, key=lambda name: -len(picks[name]))[:_SHOWN]
    draw_picks({name: files[name] for name in crowded}, {name: matched[name] for name in crowded}, pixel_size,
               diameter / pixel_size, picture)
    logger.info('picks: %d, %.1f ± %.1f on a micrograph', found['n_picks'], mean, sd)
    return found


def draw_picks(
    files: dict[str, Path], coordinates: dict[str, Path], pixel_size: float, diameter_px: float, picture: Path
) -> None:
    """Draw micrographs with circles of the particle's diameter around their picks."""
    exhibits = [Exhibit(one.name, measure_grey_scale(one.image).normalise(one.image), one.centers_yx)
                for one in read_frames(files, coordinates, pixel_size, pixel_size)]
    make_folder(picture.parent)
    write_gallery(picture, [exhibits], diameter_px)
