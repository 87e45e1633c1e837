"""What the example scripts share: Scipion without its window, one project, runs that follow each other.

Not a program. Every run is a process of its own with its own log, exactly as from the window.
"""

import argparse
import os
import sys
import time
from glob import glob
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
HOSTS = '[localhost]\nPARALLEL_COMMAND = mpirun -np %_(JOB_NODES)d --map-by node %_(COMMAND)s\n'
SCIPION_FORMAT = 5                          # of picks: coordinates.sqlite, which needs no other plugin


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what a workflow from a map and picked micrographs needs to know."""
    data = parser.add_argument_group('data')
    data.add_argument('--map', required=True, help='map of the particle (MRC)')
    data.add_argument('--map-pixel-size', type=float, required=True, help='Å/px')
    data.add_argument('--micrographs', required=True, help='quoted pattern of the real micrographs')
    data.add_argument('--pixel-size', type=float, required=True, help='Å/px of the micrographs')
    data.add_argument('--picks', required=True, help='quoted pattern of STAR or CSV files named like the micrographs')
    data.add_argument('--box', type=int, required=True, help='box of a particle, px of the micrographs, even')
    data.add_argument('--voltage', type=float, default=300.0, help='kV (300)')
    data.add_argument('--cs', type=float, default=2.7, help='spherical aberration, mm (2.7)')
    data.add_argument('--q0', type=float, default=0.1, help='amplitude contrast (0.1)')
    amount = parser.add_argument_group('amount')
    amount.add_argument('--simulated', type=int, default=20, help='micrographs to simulate (20)')
    amount.add_argument('--steps', type=int, default=300, help='training steps (300)')
    amount.add_argument('--generated', type=int, default=50, help='micrographs to generate (50)')
    amount.add_argument('--threads', type=int, default=1, help='processes that work side by side (1)')
    amount.add_argument('--repetitions', type=int, default=3, help='of what is random in the evaluation (3)')
    amount.add_argument('--controls', action=argparse.BooleanOptionalAction, default=True,
                        help='judge simpler noise beside what was generated (yes)')
    amount.add_argument('--evaluation', action=argparse.BooleanOptionalAction, default=True,
                        help='compare what was generated with the real micrographs (yes)')
    amount.add_argument('--cpu', action='store_true', help='do not use a GPU')
    parser.add_argument('--project', default='cryogem_example', help='name of the project; one of that name is emptied')
    parser.add_argument('--folder', type=Path, default=ROOT / '.scipion',
                        help='configuration and projects, where Scipion itself has not said it (.scipion)')


def prepare_scipion(home: Path) -> None:
    """Say where Scipion finds its configuration; must come before the first import of pyworkflow.

    What the environment says already, as that of `scipion3 python`, wins.
    """
    home = home.resolve()
    for name, value in {
        'SCIPION_HOME': str(home), 'SCIPION_USER_DATA': str(home / 'data'),
        'SCIPION_CONFIG': str(home / 'config' / 'scipion.conf'),
        'SCIPION_LOCAL_CONFIG': str(home / 'config' / 'scipion.conf'),
        'SCIPION_HOSTS': str(home / 'config' / 'hosts.conf'), 'SCIPION_DOMAIN': 'pwem', 'SCIPION_NOTIFY': 'False',
        'SCIPION_PRIORITY_PACKAGE_LIST': 'pwem', 'SCIPION_PYTHON': sys.executable,
    }.items():
        os.environ.setdefault(name, value)
    os.environ['PATH'] = str(Path(sys.executable).parent) + os.pathsep + os.environ.get('PATH', '')
    for variable, text in (('SCIPION_HOSTS', HOSTS), ('SCIPION_CONFIG', '')):
        path = Path(os.environ[variable])
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.write_text(text)


class Workflow:
    """A Scipion project and what was run in it."""

    def __init__(self, name: str):
        import pyworkflow as pw
        from pyworkflow.project import Manager
        self.protocols = pw.Config.getDomain().getProtocols()
        self.project = Manager().createProject(name)            # empties a project of that name
        os.chdir(self.project.path)                             # every path in a project is relative to it

    def run(self, name: str, label: str, inputs: dict[str, tuple[Any, str]], **values: Any) -> Any:
        """Launch a protocol, wait for it and print its outputs; leave with its last log lines if it fails.

        Parameters
        ----------
        name : class of the protocol.
        inputs : parameter -> run and name of its output.
        """
        from pyworkflow.object import Pointer, PointerList
        if name not in self.protocols:
            sys.exit(f'ERROR: the protocol {name} is not installed; install its plugin')
        protocol = self.project.newProtocol(self.protocols[name], **values)
        protocol.setObjLabel(label)
        for parameter, (source, output) in inputs.items():
            pointer = getattr(protocol, parameter)
            if isinstance(pointer, PointerList):
                pointer.append(Pointer(source, extended=output))
            else:
                pointer.set(source)
                pointer.setExtended(output)
        print(f'{label} ...', flush=True)
        started = time.time()
        self.project.launchProtocol(protocol, wait=True)
        print(f'    {protocol.getStatus()} after {time.time() - started:.0f} s, log: '
              f'{os.path.abspath(protocol.getStdoutLog())}')
        if not protocol.isFinished():
            for log in (0, 1):                                  # stdout, stderr
                print('\n'.join(protocol.getLogsLastLines(80, logFile=log)))
            sys.exit(f'ERROR: {label}: {protocol.getErrorMessage()}')
        for output, value in protocol.iterOutputAttributes():
            print(f'    {output}: {value}', flush=True)
        return protocol

    def import_map(self, path: str, pixel_size: float) -> Any:
        """Import a map."""
        return self.run('ProtImportVolumes', 'import map', {}, filesPath=path, samplingRate=pixel_size)

    def import_micrographs(self, pattern: str, pixel_size: float, **acquisition: float) -> Any:
        """Import micrographs; the acquisition has the names of Scipion's form."""
        return self.run('ProtImportMicrographs', 'import micrographs', {}, filesPath=pattern, samplingRate=pixel_size,
                        **acquisition)

    def import_picks(self, micrographs: Any, picks: dict[str, Any], box: int) -> Any:
        """Import picks: name of a micrograph without extension -> (n, 2) x, y in px."""
        from cryogem_scipion.tests.data import writePicks
        items = [mic.clone() for mic in micrographs.outputMicrographs]
        path = os.path.abspath('Tmp/picks.sqlite')
        writePicks(path, picks, items, box)
        return self.run('ProtImportCoordinates', 'import picks',
                        {'inputMicrographs': (micrographs, 'outputMicrographs')}, importFrom=SCIPION_FORMAT,
                        filesPath=path, boxSize=box)


def imitate(args: argparse.Namespace) -> tuple[Workflow, dict[str, Any]]:
    """Run the workflow from imports to generated micrographs and what judges them; return its runs by label."""
    from cryogem.io.star import read_coordinates
    from cryogem_scipion.tests.data import describeMicroscope
    picks = {Path(path).stem: read_coordinates(Path(path))[:, ::-1] for path in sorted(glob(args.picks))}
    if not picks:
        sys.exit(f'ERROR: no file matches the pattern of --picks, {args.picks!r}')
    paths = {name: os.path.abspath(getattr(args, name)) for name in ('map', 'micrographs')}
    workflow = Workflow(args.project)
    volume = workflow.import_map(paths['map'], args.map_pixel_size)
    micrographs = workflow.import_micrographs(paths['micrographs'], args.pixel_size,
                                              **describeMicroscope(args.voltage, args.cs, args.q0))
    imported = workflow.import_picks(micrographs, picks, args.box)
    gpu = {'useGpu': not args.cpu}
    simulation = workflow.run('ProtCryogemSimulate', 'simulate', {
        'inputVolumes': (volume, 'outputVolume'), 'inputCoordinates': (imported, 'outputCoordinates'),
    }, nMicrographs=args.simulated, numberOfThreads=args.threads, **gpu)
    of_simulation = {'inputSimulation': (simulation, 'outputSimulation')}
    training = workflow.run('ProtCryogemTrain', 'train', of_simulation, maxSteps=args.steps, **gpu)
    of_model = {**of_simulation, 'inputModel': (training, 'outputModel')}
    generated = workflow.run('ProtCryogemGenerate', 'generate', of_model, nMicrographs=args.generated,
                             numberOfThreads=args.threads, **gpu)
    if args.evaluation:
        workflow.run('ProtCryogemEvaluate', 'evaluate', {
            'inputGenerated': (generated, 'outputMicrographs'), 'inputMicrographs': (micrographs, 'outputMicrographs'),
            'inputCoordinates': (imported, 'outputCoordinates')},
            nSeeds=args.repetitions, controls=args.controls, **gpu)
    return workflow, {'micrographs': micrographs, 'picks': imported, 'simulate': simulation, 'train': training,
                      'generate': generated}
