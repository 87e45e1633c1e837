"""The manual says what is there: commands, flags, protocols, fields of templates, pictures and links."""

import re
from pathlib import Path

import pytest

from cryogem.config import COMMANDS, key_of

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / 'README.rst', *sorted((ROOT / 'docs').glob('*.rst'))]
# Other programs that the manual shows, each with flags of its own.
FOREIGN = ('sbatch', 'srun', 'torchrun', '#SBATCH', 'scipion', 'xvfb-run', '--rdzv')
FOREIGN_FLAGS = {'--help', '--config', '--nogui', '--num-particles', '--method', '--pi'}      # Topaz's come last


def read_pages() -> str:
    return '\n'.join(path.read_text(encoding='utf-8') for path in PAGES)


def list_flags() -> set[str]:
    """Return every flag of the command line and of the example scripts."""
    import dataclasses
    flags = {'--' + key_of(one).replace('_', '-') for kind in COMMANDS.values() for one in dataclasses.fields(kind)}
    for path in (ROOT / 'examples').glob('*.py'):
        flags |= set(re.findall(r"'(--[a-z][a-z0-9-]*)'", path.read_text(encoding='utf-8')))
    return flags


@pytest.mark.parametrize('page', PAGES, ids=lambda path: path.name)
def test_pictures_and_pages_that_are_referred_to_exist_and_are_small(page):
    text = page.read_text(encoding='utf-8')
    for name in re.findall(r'(?:image|figure):: (?!https:)(\S+)', text):
        picture = page.parent / name
        assert picture.exists(), f'{page.name}: {name}'
        assert picture.stat().st_size <= 150_000, name
    for name in re.findall(r'<([\w./]+\.(?:rst|md))>`_', text):
        assert (page.parent / name).exists(), f'{page.name}: {name}'


def test_every_picture_of_the_manual_is_used():
    text = read_pages()

    assert [path.name for path in (ROOT / 'docs' / 'images').iterdir() if path.name not in text] == []


def test_every_flag_of_the_manual_is_one():
    lines = [line for line in read_pages().splitlines() if not any(word in line for word in FOREIGN)]
    named = set(re.findall(r'(?<![\w-])(--[a-z][a-z0-9-]+)', '\n'.join(lines)))

    assert named - list_flags() - FOREIGN_FLAGS == set()


def test_every_command_is_in_the_manual():
    text = (ROOT / 'docs' / 'command_line.rst').read_text(encoding='utf-8')

    assert [name for name in COMMANDS if not re.search(rf'cryogem {name}\b', text)] == []


def test_every_target_of_make_that_is_named_exists():
    makefile = (ROOT / 'Makefile').read_text(encoding='utf-8')
    targets = set(re.findall(r'^([a-z-]+):', makefile, re.MULTILINE))
    named = set(re.findall(r'(?:``|^ {4})make ([a-z-]+)', read_pages(), re.MULTILINE))

    assert named - targets == set()


def test_every_protocol_of_the_tree_is_in_the_manual():
    text = (ROOT / 'docs' / 'protocols.rst').read_text(encoding='utf-8')
    words = [re.sub(r'(?<!^)([A-Z])', r' \1', name).lower()
             for name in re.findall(r'"ProtCryogem(\w+)"', (ROOT / 'protocols.conf').read_text(encoding='utf-8'))]

    assert [word for word in words if f'\n{word} ' not in text] == []


def test_fields_of_templates_that_the_manual_names_exist():
    text = (ROOT / 'docs' / 'batch.rst').read_text(encoding='utf-8')
    template = (ROOT / 'cryogem_scipion/templates/imitate-micrographs.json.template').read_text(encoding='utf-8')
    aliases = {field.split('|')[3] for field in template.split('~')[1::2]}
    command = next(part for part in text.split('\n\n') if 'scipion template cryogem-imitate' in part)
    named = set(re.findall(r'\b(\w+)=', command)) - {'project_name'}

    assert named == aliases
