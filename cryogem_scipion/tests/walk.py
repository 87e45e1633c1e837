"""Walks through the tutorial in Scipion's real window: from the imports to picks on real micrographs, form by form.

    xvfb-run -a -s '-screen 0 1600x1200x24' python -m cryogem_scipion.tests.walk PROJECT FOLDER PLAN

Every form is opened, filled in as the plan says, and executed by its button; the time that each run took is printed.
The plan is a file with a list of steps, see `planTutorial`, or a folder of real data. Run by test_gui.py on small
synthetic data; on real micrographs it makes the project of the pictures in the manual, which window.py then takes.
"""

import argparse
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mrcfile

from cryogem_scipion.tests.data import describeMicrographs, readRealData, writePicks
from cryogem_scipion.tests.downstream import describeLabels
from cryogem_scipion.tests.window import Driver, execute

_LONG = 3600                                # s for one run
_JUDGES = 3                                 # real micrographs that nothing is learned from


def planTutorial(data: dict[str, Any], sizes: dict[str, Any], withPicker: bool) -> list[dict[str, Any]]:
    """Return the runs of the tutorial: protocol, label, values of the form, inputs as (label, output).

    Parameters
    ----------
    data : map, map_pixel_size (Å/px), micrographs (pattern), held_out (pattern), pixel_size (Å/px), acquisition
        (keywords of the import), picks (coordinates.sqlite), box_size (px), diameter (Å),
        area (px of a micrograph).
    sizes : simulated, generated (micrographs), steps, controls, particles (on a micrograph), epochs, topaz_options,
        threshold, classes, iterations.
    withPicker : Topaz and Relion come last.
    """
    mics = {'samplingRate': data['pixel_size'], **data['acquisition']}
    made = ('generate', 'outputMicrographs')
    plan = [
        makeStep('ProtImportVolumes', 'import map', filesPath=data['map'], samplingRate=data['map_pixel_size']),
        makeStep('ProtImportMicrographs', 'import micrographs', filesPath=data['micrographs'], **mics),
        makeStep('ProtImportMicrographs', 'import held out', filesPath=data['held_out'], **mics),
        makeStep('ProtImportCoordinates', 'import picks', {'inputMicrographs': ('import micrographs',
                 'outputMicrographs')}, filesPath=data['picks'], boxSize=data['box_size'], importFrom=5),
        makeStep('ProtCryogemSimulate', 'simulate', {'inputVolumes': ('import map', 'outputVolume'), 'inputCoordinates':
                 ('import picks', 'outputCoordinates')}, nMicrographs=sizes['simulated']),
        makeStep('ProtCryogemTrain', 'train', {'inputSimulation': ('simulate', 'outputSimulation')},
                 maxSteps=sizes['steps']),
        makeStep('ProtCryogemGenerate', 'generate', {'inputSimulation': ('simulate', 'outputSimulation'),
                 'inputModel': ('train', 'outputModel')}, nMicrographs=sizes['generated']),
        makeStep('ProtCryogemEvaluate', 'evaluate', {'inputGenerated': made, 'inputMicrographs': ('import held out',
                 'outputMicrographs')}, nSeeds=1, controls=sizes['controls']),
    ]
    return plan + (planPicker(data, sizes) if withPicker else [])


def planRealData(source: Path, folder: Path) -> list[dict[str, Any]]:
    """Return the tutorial on the real data in `source`; links and picks go into `folder`, the last ones are held out.

    Sizes are those of the forms, except for Topaz, which would take hours on a CPU.
    """
    specimen = readRealData(source)
    paths = sorted(Path(specimen.micrographs).parent.glob('*.mrc'))
    for name, part in (('micrographs', paths[:-_JUDGES]), ('held_out', paths[-_JUDGES:])):
        (folder / name).mkdir(parents=True)
        for path in part:
            (folder / name / path.name).symlink_to(path)
    pattern, picks = str(folder / 'micrographs' / '*.mrc'), folder / 'picks.sqlite'
    writePicks(str(picks), specimen.picks, describeMicrographs(pattern), specimen.boxSize)
    number = sum(len(specimen.picks[path.stem]) for path in paths[:-_JUDGES]) / len(paths[:-_JUDGES])
    diameter = json.loads((source / 'dataset.json').read_text(encoding='utf-8'))['particle_diameter_A']
    return planTutorial({
        'map': specimen.volume, 'map_pixel_size': specimen.volumePixelSize, 'micrographs': pattern,
        'held_out': str(folder / 'held_out' / '*.mrc'), 'pixel_size': specimen.pixelSize,
        'acquisition': specimen.acquisition, 'picks': str(picks), 'box_size': specimen.boxSize, 'diameter': diameter,
        'area': readArea(paths[0]),
    }, {'simulated': 20, 'generated': 20, 'steps': None, 'controls': True, 'epochs': 2, 'particles': round(number),
        'threshold': 0, 'topaz_options': '--epoch-size 60 --minibatch-size 64', 'classes': 6, 'iterations': 5},
        withPicker=True)


def readArea(path: Path) -> int:
    """Return how many pixels a micrograph has."""
    with mrcfile.open(path, header_only=True) as file:
        return int(file.header.nx) * int(file.header.ny)


def planPicker(data: dict[str, Any], sizes: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the runs that train Topaz on what was generated and let it pick the held-out micrographs."""
    radius = data['diameter'] / 2 / data['pixel_size']
    learned = max(1, round(0.3 * radius))
    return [
        makeStep('TopazProtTraining', 'topaz training', {'inputMicrographs': ('generate', 'outputMicrographs'),
                 'inputCoordinates': ('generate', 'outputCoordinates')}, scale=1, radius=learned,
                 numEpochs=sizes['epochs'], micsForTraining=sizes['generated'], gpuList='0', trainExtra=' '.join((
                     describeLabels(sizes['particles'], learned, data['area']), sizes['topaz_options']))),
        makeStep('TopazProtPicking', 'topaz picking', {'inputMicrographs': ('import held out', 'outputMicrographs'),
                 'prevTopazModel': ('topaz training', 'outputModel')}, scale=1, radius=round(0.7 * radius),
                 boxSize=data['box_size'], streamingBatchSize=0, threshold=sizes['threshold'], gpuList='0'),
        makeStep('ProtRelionExtractParticles', 'extract', {'inputCoordinates': ('topaz picking', 'outputCoordinates')},
                 boxSize=data['box_size'], doInvert=True, doNormalize=True, saveFloat16=False, numberOfMpi=1),
        makeStep('ProtRelionClassify2D', 'classify', {'inputParticles': ('extract', 'outputParticles')},
                 numberOfClasses=sizes['classes'], numberOfIterations=sizes['iterations'], doCTF=False, doGpu=False,
                 maskDiameterA=round(1.1 * data['diameter']), useGradientAlg=False, numberOfVDAMBatches=0,
                 numberOfMpi=1, numberOfThreads=2),
    ]


def makeStep(protocol: str, label: str, inputs: dict[str, tuple[str, str]] | None = None,
             **values: Any) -> dict[str, Any]:
    """Return one step of a plan."""
    return {'protocol': protocol, 'label': label, 'inputs': inputs or {}, 'values': values}


def walk(driver: Driver, plan: list[dict[str, Any]]) -> Iterator[float]:
    """Open, fill in and execute the forms of a plan, one after another."""
    import pyworkflow as pw
    from pyworkflow.object import Pointer, PointerList
    protocols = pw.Config.getDomain().getProtocols()
    runs: dict[str, Any] = {}
    for step in plan:
        protocol = driver.project.newProtocol(protocols[step['protocol']], **step['values'])
        protocol.setObjLabel(step['label'])
        for name, (label, output) in step['inputs'].items():
            target = getattr(protocol, name)
            if isinstance(target, PointerList):
                target.append(Pointer(runs[label], extended=output))
            else:
                target.set(runs[label])
                target.setExtended(output)
        start = time.monotonic()
        runs[step['label']] = run = yield from execute(driver, protocol, f'walk_{step["label"].replace(" ", "_")}')
        outputs = ', '.join(f'{name}: {output}' for name, output in run.iterOutputAttributes())
        print(f'walked: {step["label"]}, {time.monotonic() - start:.0f} s, {outputs}', flush=True)


def main() -> None:
    """Read the command line and walk, in a project that is made anew."""
    from pyworkflow.project import Manager
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('project', help='name of the project; one of this name is emptied')
    parser.add_argument('folder', type=os.path.abspath, help='where the pictures go')
    parser.add_argument('plan', type=lambda path: Path(path).resolve(), help='JSON file with the steps, or a folder '
                        'as CRYOGEM_TEST_DATA names')
    args = parser.parse_args()
    Path(args.folder).mkdir(parents=True, exist_ok=True)
    plan = (planRealData(args.plan, Path(args.folder) / 'data') if args.plan.is_dir()
            else json.loads(args.plan.read_text(encoding='utf-8')))
    Manager().createProject(args.project)
    Driver(args.project, Path(args.folder), [lambda driver: walk(driver, plan)], _LONG).run()


if __name__ == '__main__':
    main()
