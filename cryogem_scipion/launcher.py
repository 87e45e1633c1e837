"""Start the bundled engine in an interpreter that has its requirements but not this distribution.

Run by file name, never imported: `python launcher.py <command> --config FILE`. Only the folder `cryogem` beside this
package is made importable, so that the packages of Scipion's own Python stay out. It happens on import, not only
when started, because worker processes import this file again.
"""

import importlib.util
import sys
from pathlib import Path


def loadEngine() -> None:
    """Make `cryogem` importable from the folder beside the one of this file."""
    folder = Path(__file__).resolve().parent.parent / 'cryogem'
    spec = importlib.util.spec_from_file_location(
        'cryogem', folder / '__init__.py', submodule_search_locations=[str(folder)])
    if spec is None or spec.loader is None:
        raise ImportError(f'the engine is not at {folder}; install the plugin again')
    module = importlib.util.module_from_spec(spec)
    sys.modules['cryogem'] = module
    spec.loader.exec_module(module)


if 'cryogem' not in sys.modules:
    loadEngine()

if __name__ == '__main__':
    from cryogem.__main__ import main
    sys.exit(main())
