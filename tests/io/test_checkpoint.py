import pickle

import pytest
import torch

from cryogem.errors import InputError, OutputError
from cryogem.io.checkpoint import load_checkpoint, load_tensors, save_checkpoint


class Mischief:
    """Would run a function of ours when unpickled."""

    def __reduce__(self):
        return (pytest.fail, ('code of a checkpoint was run',))


def test_a_checkpoint_comes_back_with_tensors_numbers_and_text(tmp_path):
    content = {
        'weights': {'a': torch.randn(2, 3)}, 'step': 7, 'seconds': 0.1, 'text': 'x', 'nothing': None, 'pair': (1, 2)}
    save_checkpoint(tmp_path / 'one.pt', content)
    found = load_checkpoint(tmp_path / 'one.pt')
    assert torch.equal(found.pop('weights')['a'], content.pop('weights')['a'])
    assert found == content


def test_saving_leaves_one_file_and_replaces_the_earlier_one(tmp_path):
    for step in (1, 2):
        save_checkpoint(tmp_path / 'one.pt', {'step': step})
    assert [one.name for one in tmp_path.iterdir()] == ['one.pt']
    assert load_checkpoint(tmp_path / 'one.pt') == {'step': 2}


def test_a_checkpoint_that_cannot_be_written_leaves_the_earlier_one(tmp_path):
    save_checkpoint(tmp_path / 'one.pt', {'step': 1})
    with pytest.raises((AttributeError, pickle.PicklingError)):
        save_checkpoint(tmp_path / 'one.pt', {'step': lambda: 2})
    assert [one.name for one in tmp_path.iterdir()] == ['one.pt']
    assert load_checkpoint(tmp_path / 'one.pt') == {'step': 1}


def test_a_missing_folder_is_reported_as_output_error(tmp_path):
    with pytest.raises(OutputError, match='cannot be written'):
        save_checkpoint(tmp_path / 'missing' / 'one.pt', {})


def test_a_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(InputError, match=r'none\.pt.*check the path'):
        load_checkpoint(tmp_path / 'none.pt')


@pytest.mark.parametrize('keep', [0, 10, 400])
def test_a_truncated_checkpoint_is_called_damaged(tmp_path, keep):
    path = tmp_path / 'one.pt'
    save_checkpoint(path, {'weights': torch.randn(100)})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match='is damaged'):
        load_checkpoint(path)


def test_code_in_a_checkpoint_is_never_run(tmp_path):
    torch.save({'format': 'cryogem checkpoint', 'version': 1, 'content': Mischief()}, tmp_path / 'one.pt')
    (tmp_path / 'two.pt').write_bytes(pickle.dumps(Mischief(), protocol=2))
    for name in ('one.pt', 'two.pt'):
        with pytest.raises(InputError, match='holds more than tensors'):
            load_checkpoint(tmp_path / name)


def test_tensors_of_others_are_read_but_are_no_checkpoint_of_ours(tmp_path):
    torch.save({'weight': torch.ones(2)}, tmp_path / 'theirs.pth')
    assert torch.equal(load_tensors(tmp_path / 'theirs.pth')['weight'], torch.ones(2))
    with pytest.raises(InputError, match='is not a checkpoint of cryogem'):
        load_checkpoint(tmp_path / 'theirs.pth')
    torch.save(torch.ones(2), tmp_path / 'bare.pth')
    with pytest.raises(InputError, match='holds a Tensor, not weights by name'):
        load_tensors(tmp_path / 'bare.pth')


def test_a_checkpoint_of_another_format_version_is_refused(tmp_path):
    torch.save({'format': 'cryogem checkpoint', 'version': 99, 'content': {}}, tmp_path / 'one.pt')
    with pytest.raises(InputError, match='format version 99'):
        load_checkpoint(tmp_path / 'one.pt')
