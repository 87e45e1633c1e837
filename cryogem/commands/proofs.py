"""What evaluate tries out with generated micrographs: picking, poses, reconstruction, export, similarity maps."""

import logging
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cryogem.commands.evaluation_inputs import GeneratedSet, find_symmetry, read_real
from cryogem.config import NOISE_MODELS, EvaluateConfig
from cryogem.errors import InputError
from cryogem.evaluation import rows
from cryogem.evaluation.features import TopazNetwork
from cryogem.evaluation.frames import Frame
from cryogem.evaluation.picking import (
    Course,
    TopazPicker,
    find_best_threshold,
    match_picks,
    prove_picking,
    summarise,
)
from cryogem.evaluation.plots import draw_picks, draw_similarity, plot_picking
from cryogem.evaluation.pose import (
    ALIGNER,
    RECONSTRUCTOR,
    align_with_relion,
    export_particles,
    has_program,
    reconstruct_from_labels,
)
from cryogem.evaluation.programs import ProgramError, find_topaz_program
from cryogem.evaluation.regressor import learn_poses
from cryogem.evaluation.report import Picture, Row
from cryogem.evaluation.similarity import Encoder, choose_queries, draw_maps, make_encoder, make_topaz_encoder
from cryogem.specimen.symmetry import find_symmetry_group
from cryogem.translation.model import load_generator
from cryogem.translation.paper import PaperGenerator

logger = logging.getLogger(__name__)

UPPER, UNTRAINED = 'real', 'shipped'        # columns of the picker trained on people's picks, and of the untrained one
_SHOWN_ARMS = 4                             # in the pictures of picks
_MATCH_SHARE = 0.5                          # of the diameter within which a pick matches


class Proofs:
    """Rows, pictures, sentences and numbers of the proofs that were asked for."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.pictures: list[Picture] = []
        self.sentences: list[str] = []
        self.numbers: dict[str, Any] = {}


def prove_all(config: EvaluateConfig, sets: Sequence[GeneratedSet], arms: Mapping[str, Sequence[Frame]],
              real: Sequence[Frame], network: TopazNetwork | None, output: Path) -> Proofs:
    """Do what the settings ask for.

    Parameters
    ----------
    arms : micrographs of generated sets and controls by column.
    network : Topaz's, for similarity maps where there is no trained model.
    """
    proofs = Proofs()
    if config.picking:
        add_picking(proofs, config, sets[0], arms, real, output)
    if config.poses or config.reconstruction or config.export:
        for one in sets:
            add_particles(proofs, config, one, output)
    add_similarity(proofs, config, sets, real, network, output)
    return proofs


def add_picking(proofs: Proofs, config: EvaluateConfig, first: GeneratedSet, arms: Mapping[str, Sequence[Frame]],
                real: Sequence[Frame], output: Path) -> None:
    """Train Topaz on each arm and pick the real micrographs."""
    group = 'Picking proof: average precision on real micrographs'
    program = find_topaz_program(config.topaz)
    if program is None:
        proofs.rows.append(Row(group, 'Topaz', note=f'the program {config.topaz!r} is not installed: not measured'))
        return
    calibration = first.calibration
    diameter_px = calibration.particle_diameter / calibration.pixel_size
    trained = {arm: frames for arm, frames in arms.items() if not config.picking_arms or arm in config.picking_arms}
    unknown = set(config.picking_arms) - set(arms)
    if unknown:
        raise InputError(f'picking_arms {sorted(unknown)[0]!r} is no set; use some of {", ".join(arms)}')
    if config.picking_real:
        trained[UPPER] = read_real(config.picking_real, config.picking_coordinates, config.pixel_size, calibration,
                                   first.sign)
    test = [one for one in real if len(one.centers_yx)]
    with tempfile.TemporaryDirectory(prefix='cryogem_picking_') as folder:
        picker = TopazPicker(program, Path(folder), diameter_px)
        results, picks = prove_picking(picker, list_courses(config, list(trained)), trained, test,
                                       _MATCH_SHARE * diameter_px)
    if not results:
        proofs.rows.append(Row(group, 'Topaz', note='every training failed; see the log'))
        return
    proofs.rows += rows.list_picking(results)
    proofs.numbers['picking'] = [{**vars(one.training), 'average_precision': one.average_precision} for one in results]
    _describe_picking(proofs, results, output)
    _draw_picking(proofs, test, picks, diameter_px, output)


def list_courses(config: EvaluateConfig, arms: Sequence[str]) -> list[Course]:
    """Return all trainings, the untrained picker first; repetitions outermost, so that early results cover all arms."""
    starts = (True, False) if config.picking_scratch else (True,)
    lengths = tuple(map(int, config.picking_iterations))
    return [Course(UNTRAINED, True, (0,), 0)] + [
        Course(arm, start, lengths, seed) for seed in range(config.picking_seeds) for start in starts for arm in arms]


def add_particles(proofs: Proofs, config: EvaluateConfig, one: GeneratedSet, output: Path) -> None:
    """Export the particles of a set, and let RELION find their poses and rebuild the map."""
    box_size = config.box_size or one.box_size
    symmetry = find_symmetry(one, config)
    group = find_symmetry_group(symmetry)
    if config.export:
        n = export_particles(output / 'export' / one.name, one.frames, one.folder, box_size)
        logger.info('%d particles for RELION, CryoPARES or cryoDRGN: %s', n, output / 'export' / one.name)
    with tempfile.TemporaryDirectory(prefix='cryogem_poses_') as folder:
        if config.poses:
            _add_poses(proofs, config, one, Path(folder) / 'poses', box_size, symmetry)
            if config.pose_steps:
                learned = learn_poses(one.frames, box_size, group, config.pose_steps, config.seed)
                _add_cells(proofs, rows.list_poses({one.name: learned}, 'small regressor (smoke test)')
                           if learned else [Row('Pose proof', 'small regressor', note='too few particles')])
        if config.reconstruction:
            _add_reconstruction(proofs, one, Path(folder) / 'map', box_size, symmetry)


def add_similarity(proofs: Proofs, config: EvaluateConfig, sets: Sequence[GeneratedSet], real: Sequence[Frame],
                   network: TopazNetwork | None, output: Path) -> None:
    """Draw similarity maps on a real micrograph with every encoder at hand."""
    diameter_px = sets[0].calibration.particle_diameter / sets[0].calibration.pixel_size
    encoders = _load_encoders(config, sets, network)
    frame, queries = _choose_place(config, real, sets[0].calibration, diameter_px)
    if not encoders or not queries:
        why = 'there is no trained model and no network of Topaz' if not encoders else 'no particle is marked'
        proofs.rows.append(Row('Similarity maps on a real micrograph', 'similarity', note=f'{why}: not drawn'))
        return
    maps = [one for name, encoder in encoders.items()
            for one in draw_maps(name, encoder, frame, diameter_px, queries, diameter_px / 4)]
    draw_similarity(output / 'similarity.png', frame, maps)
    proofs.rows += rows.list_similarity(maps)
    proofs.numbers['similarity'] = [{'encoder': one.encoder, 'query': one.query, 'query_yx': one.query_yx,
                                     'micrograph': frame.name, 'auc': one.auc} for one in maps]
    proofs.pictures.append(Picture('similarity.png', 'Cosine similarity of encoder features to the cross, over a real '
                                   'micrograph (left, with its picks)'))


def _load_encoders(config: EvaluateConfig, sets: Sequence[GeneratedSet], network: TopazNetwork | None
                   ) -> dict[str, Encoder]:
    models = config.models or tuple(dict.fromkeys(
        one.config.model for one in sets if one.config.model not in NOISE_MODELS and Path(one.config.model).is_dir()))
    encoders: dict[str, Encoder] = {}
    for model in models:
        generator = load_generator(Path(model))
        if not isinstance(generator, PaperGenerator):           # which takes frames of few sizes only
            encoders[f'encoder of {Path(model).resolve().name}'] = make_encoder(generator)
    if not encoders and network is not None:
        encoders['Topaz detector'] = make_topaz_encoder(network)
    return encoders


def _choose_place(config: EvaluateConfig, real: Sequence[Frame], calibration: object, diameter_px: float
                  ) -> tuple[Frame, dict[str, tuple[float, float]]]:
    if not config.query:
        frame = max(real, key=lambda one: len(one.centers_yx))
        return frame, choose_queries(frame, diameter_px, np.random.default_rng(config.seed))
    name, x, y = config.query.rsplit(':', 2)
    chosen = next((one for one in real if one.name == name), None)
    if chosen is None:
        raise InputError(f'query {config.query!r} names no real micrograph; use one of '
                         f'{", ".join(one.name for one in real)}')
    place = (float(y), float(x))
    if not all(0 <= value < length for value, length in zip(place, chosen.contrast.shape, strict=True)):
        raise InputError(f'query {config.query!r} lies outside the {chosen.contrast.shape[1]} x '
                         f'{chosen.contrast.shape[0]} px of that micrograph; give px at the working pixel size')
    background = choose_queries(chosen, diameter_px, np.random.default_rng(config.seed)).get('background')
    return chosen, {'particle': place, **({'background': background} if background else {})}


def _describe_picking(proofs: Proofs, results: Sequence, output: Path) -> None:
    """Write the sentence of the picking proof from the longest trainings, and draw all scores."""
    scores: dict[str, list[float]] = {}
    for one in results:
        start = 'shipped' if one.training.is_pretrained else 'random'
        label = 'untrained'
        if one.training.iterations:
            label = f'{one.training.arm}, {start}, {one.training.iterations} it.'
        scores.setdefault(label, []).append(one.average_precision)
    plot_picking(output / 'picking.png', scores)
    proofs.pictures.append(Picture('picking.png', 'Average precision on real micrographs: dots are repetitions, blue '
                                   'lines the 95 % intervals of their means'))
    longest = max(one.training.iterations for one in results)
    means = {arm: summarise([one.average_precision for one in results if one.training.arm == arm
                             and one.training.iterations == longest and one.training.is_pretrained])[0]
             for arm in dict.fromkeys(one.training.arm for one in results if one.training.iterations == longest)}
    parts = [f'{value:.2f} on {arm}' for arm, value in means.items() if arm != UPPER]
    upper = f', against {means[UPPER]:.2f} with real picks' if UPPER in means else ''
    proofs.sentences.append(f'Topaz, trained from its shipped weights for {longest} iterations, reaches an average '
                            f'precision of {", ".join(parts)}{upper}; untrained '
                            f'{next(one.average_precision for one in results if not one.training.iterations):.2f}.'
                            if not results[0].training.iterations else f'Topaz reaches {", ".join(parts)}{upper}.')


def _draw_picking(proofs: Proofs, test: Sequence[Frame], picks: Mapping, diameter_px: float, output: Path) -> None:
    """Draw the picks of a few arms on the first two test micrographs, side by side."""
    targets = [one.centers_yx for one in test]
    radius = _MATCH_SHARE * diameter_px
    shown = [arm for arm in picks if arm != UPPER][:_SHOWN_ARMS - 1] + ([UPPER] if UPPER in picks else [])
    pictures = []
    for index in range(min(2, len(test))):
        for arm in shown:
            threshold = find_best_threshold(picks[arm], targets, radius)
            kept = picks[arm][index].centers_yx[picks[arm][index].scores >= threshold]
            matches = match_picks(kept, targets[index], radius)
            origin = 'as it is shipped' if arm == UNTRAINED else f'trained on {arm}'
            caption = (f'{test[index].name}, {origin}: {matches.is_hit.sum()} found, '
                       f'{(~matches.is_found).sum()} missed, {(~matches.is_hit).sum()} in excess')
            pictures.append((caption, test[index], kept, matches))
    draw_picks(output / 'picks.png', pictures, diameter_px, len(shown))
    proofs.pictures.append(Picture('picks.png', 'Picks on real micrographs at the score of the best F1: green matches '
                                   "people's picks, red was missed, yellow is in excess"))


def _add_poses(proofs: Proofs, config: EvaluateConfig, one: GeneratedSet, folder: Path, box_size: int,
               symmetry: str) -> None:
    if not has_program(ALIGNER):
        _add_cells(proofs, [Row('Pose proof', 'RELION', note=f'{ALIGNER} is not installed: not measured')])
        return
    try:
        export_particles(folder, one.frames, one.folder, box_size, config.pose_particles)
        errors = align_with_relion(folder, symmetry, find_symmetry_group(symmetry), one.calibration.particle_diameter,
                                   np.random.default_rng(config.seed))
    except ProgramError as error:
        _add_cells(proofs, [Row('Pose proof', 'RELION', note=f'{one.name}: {error}')])
        return
    _add_cells(proofs, rows.list_poses({one.name: errors}, 'RELION against the map'))
    proofs.numbers.setdefault('poses', {})[one.name] = vars(errors)
    proofs.sentences.append(f'{one.name}: RELION finds the labelled poses with a median error of {errors.median:.1f}° '
                            f'(chance {errors.chance:.0f}°).')


def _add_reconstruction(proofs: Proofs, one: GeneratedSet, folder: Path, box_size: int, symmetry: str) -> None:
    if not has_program(RECONSTRUCTOR):
        _add_cells(proofs, [Row('Reconstruction from labels', 'RELION',
                                note=f'{RECONSTRUCTOR} is not installed: not measured')])
        return
    try:
        export_particles(folder, one.frames, one.folder, box_size)
        found = reconstruct_from_labels(folder, symmetry)
    except ProgramError as error:
        _add_cells(proofs, [Row('Reconstruction from labels', 'RELION', note=f'{one.name}: {error}')])
        return
    _add_cells(proofs, rows.list_reconstructions({one.name: found}))
    proofs.numbers.setdefault('reconstruction', {})[one.name] = vars(found)


def _add_cells(proofs: Proofs, added: Sequence[Row]) -> None:
    """Add rows; those that are there already take the cells of another set."""
    for row in added:
        same = next((one for one in proofs.rows if (one.group, one.label) == (row.group, row.label)), None)
        if same is None:
            proofs.rows.append(row)
        else:
            same.cells.update(row.cells)
