"""What is shipped: the wheel and the sdist hold what the plugin needs, and Scipion finds its protocols in them."""

import ast
import configparser
import email
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import cryogem

ROOT = Path(__file__).resolve().parents[1]
PROTOCOLS = {'ProtCryogemSimulate', 'ProtCryogemTrain', 'ProtCryogemGenerate', 'ProtCryogemEvaluate',
             'ProtCryogemImportModel', 'ProtCryogemExportModel'}
# Tests of the plugin that are run in an installation; the others take minutes.
QUICK = ('test_chain', 'test_convert', 'test_installation.TestCryogemEnvironment', 'test_outputs', 'test_protocols')
PIP = [sys.executable, '-m', 'pip', '--disable-pip-version-check']


def run(command: list, **options) -> str:
    """Run a program and return what it wrote; a failure shows it."""
    done = subprocess.run([str(one) for one in command], capture_output=True, text=True, timeout=1800, check=False,
                          **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def build_wheel(source: Path, folder: Path) -> Path:
    """Build a wheel from a source tree or an sdist, with the build tools of this interpreter."""
    run([*PIP, 'wheel', '--quiet', '--no-deps', '--no-build-isolation', '--wheel-dir', folder, source])
    wheel, = folder.glob('*.whl')
    return wheel


@pytest.fixture(scope='module')
def tree(tmp_path_factory):
    """Copy the source tree: building leaves folders behind."""
    copy = tmp_path_factory.mktemp('tree') / 'cryogem'
    ignored = shutil.ignore_patterns('.*', '__pycache__', 'build', 'dist', 'demo', '*.egg-info')
    return shutil.copytree(ROOT, copy, symlinks=True, ignore=ignored)


@pytest.fixture(scope='module')
def wheel(tree, tmp_path_factory):
    return build_wheel(tree, tmp_path_factory.mktemp('wheel'))


@pytest.fixture(scope='module')
def sdist(tree, tmp_path_factory):
    folder = tmp_path_factory.mktemp('sdist')
    program = f'from setuptools import build_meta; build_meta.build_sdist({str(folder)!r})'
    run([sys.executable, '-c', program], cwd=tree)
    archive, = folder.glob('*.tar.gz')
    return archive


def list_distributions_imported() -> set[str]:
    """Return the lower-case names of distributions whose packages the project imports outside its tests."""
    names = set()
    for path in [*(ROOT / 'cryogem').rglob('*.py'), *(ROOT / 'cryogem_scipion').rglob('*.py')]:
        for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition('.')[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names.add(str(node.module).partition('.')[0])
    foreign = names - set(sys.stdlib_module_names) - {'cryogem', 'cryogem_scipion'}
    distributions = metadata.packages_distributions()
    return {normalise(distributions.get(name, [name])[0]) for name in foreign}


def normalise(name: str) -> str:
    """Return the name of a distribution as package indices compare it."""
    return re.sub(r'[-_.]+', '-', name).lower()


def read_metadata(wheel: Path) -> email.message.Message:
    with zipfile.ZipFile(wheel) as archive:
        name, = (one for one in archive.namelist() if one.endswith('.dist-info/METADATA'))
        return email.message_from_bytes(archive.read(name))


def test_the_wheel_holds_the_two_packages_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        folders = {name.split('/')[0] for name in archive.namelist()}

    assert {name for name in folders if not name.endswith('.dist-info')} == {'cryogem', 'cryogem_scipion'}


def test_every_module_is_in_the_wheel(tree, wheel):
    expected = {str(path.relative_to(tree)) for package in ('cryogem', 'cryogem_scipion')
                for path in (tree / package).rglob('*.py')}
    with zipfile.ZipFile(wheel) as archive:
        assert expected - set(archive.namelist()) == set()


def test_the_tree_of_protocols_is_one_top_level_file_that_the_plugin_reaches_by_a_link():
    link = ROOT / 'cryogem_scipion' / 'protocols.conf'

    assert os.readlink(link) == os.path.join('..', 'protocols.conf')
    assert not (ROOT / 'protocols.conf').is_symlink()


def test_the_wheel_holds_the_tree_of_protocols_as_a_file(wheel):
    with zipfile.ZipFile(wheel) as archive:
        text = archive.read('cryogem_scipion/protocols.conf').decode()

    assert text == (ROOT / 'protocols.conf').read_text()
    parser = configparser.ConfigParser()
    parser.read_string(text)
    assert set(re.findall(r'"(Prot\w+)"', dict(parser['PROTOCOLS'])['protocols spa'])) >= PROTOCOLS


def test_the_wheel_holds_the_logo_and_all_other_data_of_the_plugin(wheel):
    data = {str(path.relative_to(ROOT)) for pattern in ('*.png', '*.json.template')
            for path in (ROOT / 'cryogem_scipion').rglob(pattern)}
    with zipfile.ZipFile(wheel) as archive:
        assert data - set(archive.namelist()) == set()

    assert any(name.endswith('.png') for name in data)


def test_the_wheel_says_version_licence_and_keyword(wheel):
    described = read_metadata(wheel)

    assert (described['Name'], described['Version']) == ('scipion-em-cryogem', cryogem.__version__)
    assert (described['License-Expression'] or described['License']) == 'GPL-3.0-or-later'
    assert 'scipion-3.0' in described['Keywords']
    assert {'test', 'dev', 'evaluation'} <= set(described.get_all('Provides-Extra'))


def test_the_wheel_registers_the_plugin_and_the_program(wheel):
    with zipfile.ZipFile(wheel) as archive:
        name, = (one for one in archive.namelist() if one.endswith('.dist-info/entry_points.txt'))
        parser = configparser.ConfigParser()
        parser.read_string(archive.read(name).decode())

    assert dict(parser['pyworkflow.plugin']) == {'cryogem_scipion': 'cryogem_scipion'}
    assert dict(parser['console_scripts']) == {'cryogem': 'cryogem.__main__:run_as_program'}


def test_every_package_that_is_imported_is_required(wheel):
    required = [text for text in read_metadata(wheel).get_all('Requires-Dist') if 'extra == "evaluation"' in text
                or 'extra ==' not in text]
    names = {normalise(re.split(r'[^\w.-]', text)[0]) for text in required}

    assert list_distributions_imported() - names == set()


def test_the_requirements_are_met_by_what_the_tests_run_with(wheel):
    required = [Requirement(text) for text in read_metadata(wheel).get_all('Requires-Dist')
                if 'extra ==' not in text]
    unmet = [str(one) for one in required if not one.specifier.contains(metadata.version(one.name), prereleases=True)]

    assert unmet == []
    torch, = (one for one in required if one.name == 'torch')
    assert torch.specifier.contains('2.13.0')
    assert not torch.specifier.contains('3.0')


def test_the_sdist_holds_the_tree_of_protocols_twice_and_all_that_a_build_needs(sdist):
    with tarfile.open(sdist) as archive:
        names = {name.partition('/')[2] for name in archive.getnames()}

    assert {'protocols.conf', 'cryogem_scipion/protocols.conf', 'setup.py', 'pyproject.toml', 'requirements.txt',
            'README.rst', 'CHANGES.txt', 'LICENSE', 'cryogem_scipion/logo.png'} <= names


@pytest.mark.slow
@pytest.mark.parametrize('source', ['wheel', 'sdist'])
def test_scipion_lists_the_protocols_of_an_installation_in_a_clean_environment(source, request, tmp_path):
    built = request.getfixturevalue(source)
    python, options = install(built if source == 'wheel' else build_wheel(built, tmp_path / 'wheel'), tmp_path)

    place = run([python, '-c', 'import cryogem_scipion; print(cryogem_scipion.__file__)'], **options).splitlines()[-1]
    listed = run([python, '-m', 'scipion', 'protocols'], **options)

    assert Path(place).is_relative_to(tmp_path / 'environment')
    assert set(re.findall(r'^cryogem_scipion\s+(\w+)', listed, re.MULTILINE)) >= PROTOCOLS
    assert run([python.parent / 'cryogem', '--version'], **options) == f'cryogem {cryogem.__version__}\n'


@pytest.mark.slow
def test_scipion_lists_the_tests_of_an_installation_and_passes_them(wheel, tmp_path):
    python, options = install(wheel, tmp_path)
    written = {f'{path.stem}.{node.name}' for path in (ROOT / 'cryogem_scipion' / 'tests').glob('test_*.py')
               for node in ast.parse(path.read_text(encoding='utf-8')).body
               if isinstance(node, ast.ClassDef) and any(one.name.startswith('test_') for one in node.body
                                                         if isinstance(one, ast.FunctionDef))}

    listed = run([python, '-m', 'scipion', 'tests', '--grep', 'cryogem'], **options)
    run([python, '-m', 'scipion', 'tests', *(f'cryogem_scipion.tests.{name}' for name in QUICK)], **options)

    assert written
    assert set(re.findall(r'cryogem_scipion\.tests\.(\w+\.\w+)', listed)) >= written


def install(wheel: Path, folder: Path) -> tuple[Path, dict]:
    """Install a wheel into an environment of its own; return its Python and the options of `run` for Scipion there."""
    pytest.importorskip('scipion', reason='scipion-app is not installed')
    python = make_environment(folder / 'environment')
    run([*PIP, '--python', python, 'install', '--quiet', '--no-deps', '--no-index', wheel])
    home = folder / 'home'
    home.mkdir()
    environment = {name: value for name, value in os.environ.items()
                   if not name.startswith(('SCIPION', 'PYTHON')) and name != 'VIRTUAL_ENV'}
    environment.update(SCIPION_HOME=str(home), SCIPION_USER_DATA=str(home / 'data'), SCIPION_NOTIFY='False',
                       PATH=str(python.parent) + os.pathsep + environment['PATH'])
    options = {'cwd': folder, 'env': environment, 'stdin': subprocess.DEVNULL}
    run([python, '-m', 'scipion', 'config', '--unattended'], **options)
    return python, options


def make_environment(folder: Path) -> Path:
    """Make an environment that sees the dependencies of this interpreter but not its editable installation.

    The line of a .pth file adds a folder to the path without reading the .pth files in it, among them that of the
    editable installation.
    """
    run([sys.executable, '-m', 'venv', '--without-pip', folder])
    python = folder / 'bin' / 'python'
    site = Path(run([python, '-c', 'import sysconfig; print(sysconfig.get_path("purelib"))']).strip())
    dependencies = {sysconfig.get_path('purelib'), sysconfig.get_path('platlib')}
    (site / 'dependencies.pth').write_text('\n'.join(sorted(dependencies)) + '\n')
    return python
