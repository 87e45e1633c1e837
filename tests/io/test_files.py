"""Finding inputs, and writing outputs whole or not at all."""

import hashlib
import os
from pathlib import Path

import pytest

from cryogem.errors import InputError, OutputError
from cryogem.io import files
from tests.messages import is_one_sentence


def test_files_come_sorted_and_once_and_folders_do_not_count(tmp_path):
    for name in ('b.mrc', 'a.mrc', 'c.tif'):
        (tmp_path / name).touch()
    (tmp_path / 'd.mrc').mkdir()

    found = files.find_files([str(tmp_path / '*.tif'), str(tmp_path / '*.mrc'), str(tmp_path / 'a.*')], 'micrographs')

    assert [path.name for path in found] == ['c.tif', 'a.mrc', 'b.mrc']


def test_a_pattern_without_matches_is_named_with_its_setting(tmp_path):
    with pytest.raises(InputError, match=r'micrographs .*none\*\.mrc.*matches no file') as caught:
        files.find_files([str(tmp_path / 'none*.mrc')], 'micrographs')
    assert is_one_sentence(caught.value)


def test_two_files_of_one_name_are_refused(tmp_path):
    paths = [tmp_path / 'a' / 'one.mrc', tmp_path / 'b' / 'one.tif']

    with pytest.raises(InputError, match='same name') as caught:
        files.find_by_stem(paths, 'micrographs')
    assert is_one_sentence(caught.value)
    assert files.find_by_stem(paths[:1], 'micrographs') == {'one': paths[0]}


def test_a_file_appears_only_when_the_block_ends(tmp_path):
    path = tmp_path / 'one.txt'
    with files.replace_when_done(path) as temporary:
        temporary.write_text('new')
        assert not path.exists()
        assert temporary.parent == path.parent                      # a rename is atomic within one folder alone

    assert path.read_text() == 'new'
    assert list(tmp_path.iterdir()) == [path]


def write_half(path: Path, error: Exception) -> None:
    with files.replace_when_done(path) as temporary:
        temporary.write_text('half')
        raise error


def test_a_block_that_raises_leaves_the_old_file_and_no_part(tmp_path):
    path = tmp_path / 'one.txt'
    path.write_text('old')

    with pytest.raises(ZeroDivisionError):
        write_half(path, ZeroDivisionError())

    assert path.read_text() == 'old'
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_told_in_one_sentence_and_leaves_the_old_file(tmp_path):
    path = tmp_path / 'one.txt'
    path.write_text('old')

    with pytest.raises(OutputError, match='No space left') as caught:
        write_half(path, OSError(28, 'No space left on device'))

    assert is_one_sentence(caught.value)
    assert path.read_text() == 'old'
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_without_permission_is_told_in_one_sentence(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, 'Permission denied')
    monkeypatch.setattr(Path, 'write_text', refuse)                 # root may write anywhere, so it is simulated

    with pytest.raises(OutputError, match=r'one\.txt.*Permission denied.*permissions') as caught:
        files.write_text(tmp_path / 'one.txt', 'x')
    assert is_one_sentence(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason='root may write into a read-only folder')
def test_a_read_only_folder_is_told_in_one_sentence(tmp_path):
    (tmp_path / 'locked').mkdir(mode=0o500)

    with pytest.raises(OutputError, match='Permission denied'):
        files.write_text(tmp_path / 'locked' / 'one.txt', 'x')


@pytest.mark.parametrize('make', [files.make_folder, lambda path: files.write_text(path, 'x')])
def test_a_file_in_the_place_of_a_folder_is_told_in_one_sentence(tmp_path, make):
    (tmp_path / 'taken').touch()

    with pytest.raises(OutputError, match='taken') as caught:
        make(tmp_path / 'taken' / 'below')
    assert is_one_sentence(caught.value)


def test_json_comes_back_and_ends_with_a_newline(tmp_path):
    values = {'number': 0.1, 'list': [1, None, True], 'text': 'Å', 'nested': {'a': -1e-9}}
    files.write_json(tmp_path / 'one.json', values)

    assert files.read_json(tmp_path / 'one.json', 'dataset') == values
    assert (tmp_path / 'one.json').read_bytes().endswith(b'}\n')


@pytest.mark.parametrize(('content', 'match'), [(None, 'dataset .*no readable one.json'), ('{', 'dataset .*damaged')])
def test_missing_and_damaged_json_is_told_with_its_setting(tmp_path, content, match):
    if content is not None:
        (tmp_path / 'one.json').write_text(content)

    with pytest.raises(InputError, match=match) as caught:
        files.read_json(tmp_path / 'one.json', 'dataset')
    assert is_one_sentence(caught.value)


def test_the_checksum_is_sha256(tmp_path):
    (tmp_path / 'one').write_bytes(b'abc')

    assert files.compute_checksum(tmp_path / 'one') == hashlib.sha256(b'abc').hexdigest()


def test_making_a_folder_twice_is_no_error(tmp_path):
    for _ in range(2):
        files.make_folder(tmp_path / 'a' / 'b')

    assert (tmp_path / 'a' / 'b').is_dir()


def test_of_several_writers_the_first_wins(tmp_path):
    files.write_text_once(tmp_path / 'one.txt', 'first')
    files.write_text_once(tmp_path / 'one.txt', 'second')

    assert (tmp_path / 'one.txt').read_text() == 'first'
    assert [path.name for path in tmp_path.iterdir()] == ['one.txt']


def test_leftovers_of_killed_runs_are_removed_and_nothing_else(tmp_path):
    for name in ('.a.mrc.12.part', 'b.part', '.hidden', 'c.mrc'):
        (tmp_path / name).touch()
    files.remove_leftovers(tmp_path)

    assert sorted(path.name for path in tmp_path.iterdir()) == ['.hidden', 'b.part', 'c.mrc']


def test_the_checksum_that_writing_returns_is_that_of_the_file(tmp_path):
    for path, checksum in ((tmp_path / 'a', files.write_text(tmp_path / 'a', 'Å')),
                           (tmp_path / 'b', files.write_bytes(tmp_path / 'b', b'123'))):
        assert files.compute_checksum(path) == checksum
