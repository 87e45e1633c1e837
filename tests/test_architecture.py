"""The rooms: imports go down the list and never up, the engine knows no Scipion, the plugin and `--help` no torch."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ['errors', 'conventions', 'config', 'records', 'progress', 'io', 'specimen', 'imaging', 'translation',
         'dataset', 'evaluation', 'commands', '__main__']
SCIPION = {'pyworkflow', 'pwem', 'scipion', 'cryogem_scipion', 'xmippLib'}
TORCH = {'torch', 'torchvision', 'torch_fourier_slice'}
TORCH_FREE = {'cryogem', 'cryogem.errors', 'cryogem.conventions', 'cryogem.config', 'cryogem.records',
              'cryogem.progress', 'cryogem.io'}

BLOCKING_IMPORTER = """
import importlib, sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in BLOCKED:
            raise ModuleNotFoundError(f'{name} is blocked by the test')

sys.meta_path.insert(0, Blocker())
for name in MODULES:
    importlib.import_module(name)
loaded = {name.partition('.')[0] for name in sys.modules}
print('loaded:', *sorted(loaded & set(WATCHED)))
"""


def list_modules(package: str) -> dict[str, Path]:
    """Return the file of every module of a package of the checkout, by dotted name."""
    modules = {}
    for path in sorted((ROOT / package).rglob('*.py')):
        parts = path.relative_to(ROOT).with_suffix('').parts
        modules['.'.join(parts[:-1] if parts[-1] == '__init__' else parts)] = path
    return modules


def find_imports(module: str, source: str, is_package: bool = False) -> Iterator[str]:
    """Yield what a module imports, anywhere in it and in any manner, as absolute dotted names."""
    package = module if is_package else module.rpartition('.')[0]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ''
            if node.level:
                parents = package.split('.')[:len(package.split('.')) - node.level + 1]
                base = '.'.join([*parents, base] if base else parents)
            yield from (f'{base}.{alias.name}' for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            function = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, 'id', '')
            if function in ('import_module', '__import__', 'importorskip'):
                yield str(node.args[0].value)


def list_imports(package: str) -> list[tuple[str, str]]:
    """Return pairs of a module of `package` and a name that it imports."""
    return [(module, name) for module, path in list_modules(package).items()
            for name in find_imports(module, path.read_text(encoding='utf-8'), path.name == '__init__.py')]


def find_room(name: str) -> int:
    """Return the place of a dotted name in the list of rooms; -1 is the package itself, which holds the version."""
    parts = name.split('.')
    return ROOMS.index(parts[1]) if len(parts) > 1 and parts[1] in ROOMS else -1


def import_in_subprocess(modules: list[str], blocked: set[str], watched: set[str]) -> list[str]:
    """Import modules where some packages cannot be imported; return which of the watched packages were loaded."""
    program = f'BLOCKED, MODULES, WATCHED = {blocked!r}, {modules!r}, {watched!r}\n{BLOCKING_IMPORTER}'
    done = subprocess.run([sys.executable, '-c', program], cwd=ROOT, capture_output=True, text=True, timeout=600,
                          check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1].removeprefix('loaded:').split()


@pytest.mark.parametrize(('source', 'expected'), [
    ('import torch.nn as nn', ['torch.nn']),
    ('from cryogem.io import mrc, star', ['cryogem.io.mrc', 'cryogem.io.star']),
    ('from . import ice', ['cryogem.imaging.ice']),
    ('from .ice import make', ['cryogem.imaging.ice.make']),
    ('from ..commands.train import run', ['cryogem.commands.train.run']),
    ('def f():\n    if True:\n        import pwem', ['pwem']),
    ('import importlib\nimportlib.import_module("cryogem.commands")', ['importlib', 'cryogem.commands']),
])
def test_imports_are_found_in_every_manner_of_writing(source, expected):
    assert sorted(find_imports('cryogem.imaging.noise', source)) == sorted(expected)


def test_relative_imports_of_a_package_start_at_itself():
    imports = find_imports('cryogem.imaging', 'from .ice import make', is_package=True)

    assert list(imports) == ['cryogem.imaging.ice.make']


def test_every_module_of_the_engine_stands_in_a_room():
    modules = set(list_modules('cryogem')) - {'cryogem'}

    assert [module for module in modules if module.split('.')[1] not in ROOMS] == []
    assert {module.split('.')[1] for module in modules} == set(ROOMS)


def test_every_folder_of_the_engine_is_a_package():
    folders = {path.parent for path in list_modules('cryogem').values()}

    assert [folder for folder in folders if not (folder / '__init__.py').exists()] == []


def test_imports_go_down_the_list_of_rooms():
    upward = [(module, name) for module, name in list_imports('cryogem')
              if name.split('.')[0] == 'cryogem' and find_room(name) > find_room(module)]

    assert upward == []


def test_the_engine_names_no_module_of_scipion():
    assert [(module, name) for module, name in list_imports('cryogem') if name.split('.')[0] in SCIPION] == []


def test_the_plugin_names_neither_torch_nor_a_part_of_the_engine_that_needs_it():
    imports = list_imports('cryogem_scipion')
    engine = {'.'.join(name.split('.')[:2]) for module, name in imports
              if name.split('.')[0] == 'cryogem' and module != 'cryogem_scipion.launcher'}

    assert [(module, name) for module, name in imports if name.split('.')[0] in TORCH] == []
    assert {name for name in engine if find_room(name) >= 0} <= TORCH_FREE


def test_the_engine_is_imported_where_there_is_no_scipion():
    assert import_in_subprocess(list(list_modules('cryogem')), SCIPION, {'torch', *SCIPION}) == ['torch']


def test_the_plugin_is_imported_where_there_is_no_torch():
    modules = ['cryogem', *list_modules('cryogem_scipion')]        # the launcher needs the engine to be there

    assert import_in_subprocess(modules, TORCH, {'pwem', *TORCH}) == ['pwem']


def test_the_command_line_loads_nothing_heavy_before_it_knows_the_command():
    assert import_in_subprocess(['cryogem.__main__'], set(), {'torch', 'scipy', 'pandas', 'numpy'}) == []


def test_the_help_works_where_there_is_neither_torch_nor_scipion():
    program = f'BLOCKED, MODULES, WATCHED = {TORCH | SCIPION!r}, ["cryogem.__main__"], []\n{BLOCKING_IMPORTER}'
    program += 'sys.argv = ["cryogem", "--help"]\nsys.modules["cryogem.__main__"].main()\n'
    done = subprocess.run([sys.executable, '-c', program], cwd=ROOT, capture_output=True, text=True, timeout=600,
                          check=False)

    assert (done.returncode, done.stderr) == (0, '')
    assert 'import-checkpoint' in done.stdout
