#!/usr/bin/env python3
"""A picker that nobody labelled for: Topaz learns on generated micrographs and picks the real ones.

After the workflow of imitate_micrographs.py, Topaz is trained on the generated micrographs, picks the real ones, and
Relion extracts and classifies what it found. Needs the Scipion plugins scipion-em-topaz and scipion-em-relion with
their programs. With --check, Relion also picks, extracts and classifies the generated micrographs, where the truth is
known. Scores compare with the picks that were given.

    python examples/train_picker.py --map map.mrc --map-pixel-size 3.0 --micrographs 'micrographs/*.mrc' \\
        --pixel-size 3.0 --picks 'coordinates/*.star' --box 64 --diameter 130 --epochs 10
"""

import argparse
from typing import Any

from workflow import Workflow, add_arguments, imitate, prepare_scipion


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    group = parser.add_argument_group('picking')
    group.add_argument('--diameter', type=float, required=True, help='of the particle, Å')
    group.add_argument('--scale', type=int, default=1, help='by how much Topaz bins the micrographs (1; binned, a '
                       'particle on the last pixels can fall outside, and Topaz stops)')
    group.add_argument('--epochs', type=int, default=10, help='of Topaz (10)')
    group.add_argument('--topaz-options', default='', help='further options of topaz train')
    group.add_argument('--threshold', type=float, default=0.0, help='score from which Topaz picks (0)')
    group.add_argument('--classes', type=int, default=20, help='2D classes (20)')
    group.add_argument('--iterations', type=int, default=25, help='of the 2D classification (25)')
    group.add_argument('--check', action='store_true', help='let Relion work on the generated micrographs too')
    args = parser.parse_args()
    prepare_scipion(args.folder)
    workflow, runs = imitate(args)
    if args.check:
        check_generated(workflow, runs, args)
    pick_real(workflow, runs, args)
    print(f'project: {workflow.project.path}   (open it: python -m scipion project {args.project})')


def pick_real(workflow: Workflow, runs: dict[str, Any], args: argparse.Namespace) -> None:
    """Train Topaz on the generated micrographs, pick the real ones, extract and classify."""
    from cryogem_scipion.tests.downstream import describeLabels
    made, real = runs['generate'], (runs['micrographs'], 'outputMicrographs')
    number = made.outputMicrographs.getSize()
    # Topaz sees binned pixels, and must see the real micrographs at the pixel size at which it learned
    pixel_size = made.outputMicrographs.getSamplingRate()
    radius = args.diameter / 2 / (args.scale * pixel_size)
    learned, (width, height, _) = max(1, round(0.3 * radius)), made.outputMicrographs.getDim()
    labels = describeLabels(made.outputCoordinates.getSize() / number, learned, width * height // args.scale ** 2)
    trained = workflow.run(
        'TopazProtTraining', 'train Topaz on generated',
        {'inputMicrographs': (made, 'outputMicrographs'), 'inputCoordinates': (made, 'outputCoordinates')},
        scale=args.scale, radius=learned, numEpochs=args.epochs, micsForTraining=number, kfold=min(5, number),
        trainExtra=f'{labels} {args.topaz_options}', gpuList='0')
    picked = workflow.run(
        'TopazProtPicking', 'pick the real micrographs',
        {'inputMicrographs': real, 'prevTopazModel': (trained, 'outputModel')},
        scale=max(1, round(args.scale * pixel_size / args.pixel_size)), radius=max(1, round(0.7 * radius)),
        boxSize=args.box, gpuList='0', streamingBatchSize=0, threshold=args.threshold)
    report_score('picks of Topaz on the real micrographs', runs['picks'], picked, args.diameter / 3 / args.pixel_size)
    extracted = workflow.run('ProtRelionExtractParticles', 'extract the new picks',
                             {'inputCoordinates': (picked, 'outputCoordinates')}, boxSize=args.box, doInvert=True,
                             doNormalize=True, saveFloat16=False, numberOfMpi=1)
    classify(workflow, 'classify the new picks', extracted, args, doCTF=False)


def check_generated(workflow: Workflow, runs: dict[str, Any], args: argparse.Namespace) -> None:
    """Let Relion pick, extract at our coordinates with our CTFs, and classify what was generated."""
    made = runs['generate']
    pixel_size, box = made.outputMicrographs.getSamplingRate(), made.outputCoordinates.getBoxSize()
    picked = workflow.run('ProtRelionAutopickLoG', 'Relion picks generated',
                          {'inputMicrographs': (made, 'outputMicrographs')}, boxSize=box,
                          minDiameter=0.8 * args.diameter, maxDiameter=1.2 * args.diameter, numberOfMpi=1,
                          numberOfThreads=1, streamingBatchSize=0)
    report_score('picks of Relion on the generated micrographs', made, picked, args.diameter / 3 / pixel_size)
    extracted = workflow.run('ProtRelionExtractParticles', 'extract generated',
                             {'inputCoordinates': (made, 'outputCoordinates'), 'ctfRelations': (made, 'outputCTF')},
                             boxSize=box, doInvert=True, doNormalize=True, saveFloat16=False, numberOfMpi=1)
    classify(workflow, 'classify generated', extracted, args)


def classify(workflow: Workflow, label: str, extracted: Any, args: argparse.Namespace, **values: Any) -> None:
    """Classify particles in 2D."""
    workflow.run('ProtRelionClassify2D', label, {'inputParticles': (extracted, 'outputParticles')},
                 numberOfClasses=args.classes, numberOfIterations=args.iterations,
                 maskDiameterA=round(1.1 * args.diameter), doGpu=False, useGradientAlg=False, numberOfVDAMBatches=0,
                 numberOfMpi=1, numberOfThreads=args.threads, **values)


def report_score(what: str, truth: Any, picker: Any, tolerance: float) -> None:
    """Print which share of the known particles was found, and which share of the picks is one, within px.

    Of a picker that gives scores, the best picks count, as many as there are known particles on these micrographs: the
    figures then do not depend on its threshold.
    """
    known, picks = read_positions(truth), read_positions(picker)
    wanted = sum(len(centers) for name, centers in known.items() if name in picks)
    best = sorted((score for scored in picks.values() for *_, score in scored), reverse=True)[:wanted]
    limit = best[-1] if best else 0.0
    found = good = total = 0
    for micrograph, scored in picks.items():
        chosen = [position[:2] for position in scored if position[2] >= limit]
        distances = measure_distances([one[:2] for one in known.get(micrograph, [])], chosen)
        found += sum(min(row, default=tolerance + 1) <= tolerance for row in distances)
        good += sum(min(column) <= tolerance for column in zip(*distances, strict=True))
        total += len(chosen)
    print(f'{what}: {total}; recall {found / max(1, wanted):.2f}, precision {good / max(1, total):.2f}', flush=True)


def measure_distances(first: list, second: list) -> list[list[float]]:
    """Return the distances of all pairs of positions, a row for each of the first."""
    return [[((x - u) ** 2 + (y - v) ** 2) ** 0.5 for u, v in second] for x, y in first]


def read_positions(run: Any) -> dict[str, list]:
    """Return the x, y and score (0 without) of the coordinates of a run, by the name of the micrograph."""
    positions: dict[str, list] = {}
    for one in run.outputCoordinates:
        score = getattr(one, '_topazScore', None)
        positions.setdefault(one.getMicName(), []).append((*one.getPosition(), score.get() if score else 0.0))
    return positions


if __name__ == '__main__':
    main()
