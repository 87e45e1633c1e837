"""The same seed gives the same bytes, whatever the number of workers and micrographs; another seed gives others."""

import json

import pytest

from cryogem.__main__ import main

WHOLE_RUN = ('manifest.json', 'micrographs.star', 'particles.star', 'particles_other.star', 'coordinates.txt',
             'outline.json', 'config.json')   # files that speak of all micrographs


def generate(simulated, output, *more):
    assert main(['generate', '--dataset', str(simulated), '--output', str(output), *more]) == 0
    return output


@pytest.fixture
def three(generated, fingerprint):
    """Fingerprint of the shared run of three micrographs with seed 11."""
    return fingerprint(generated)


def test_the_same_seed_gives_the_same_bytes_in_every_file_of_simulate(real_set, tmp_path, fingerprint):
    runs = []
    for name in ('one', 'two'):
        out = tmp_path / name
        assert main(real_set.simulate(out, '--n-micrographs', '2', '--particles', 'both', '--seed', '3')) == 0
        runs.append(fingerprint(out))

    assert runs[0] == runs[1]
    assert len(runs[0]) == 31


def test_two_workers_give_the_same_bytes_as_one_in_simulate(real_set, simulated, tmp_path, fingerprint):
    out = tmp_path / 'out'
    assert main(real_set.simulate(out, '--n-micrographs', '3', '--particles', 'both', '--seed', '7', '--workers',
                                  '2')) == 0

    assert fingerprint(out) == fingerprint(simulated)


@pytest.mark.parametrize('noise', ['measured', 'gaussian', 'poisson', 'poisson_gaussian'])
def test_the_same_seed_gives_the_same_bytes_in_every_file_of_generate(noise, simulated, tmp_path, fingerprint):
    runs = [fingerprint(generate(simulated, tmp_path / name, '--model', noise, '--n-micrographs', '2', '--seed', '5'))
            for name in ('one', 'two')]

    assert runs[0] == runs[1]


def test_two_workers_give_the_same_bytes_as_one_with_a_trained_model(simulated, model, tmp_path, fingerprint):
    runs = [fingerprint(generate(simulated, tmp_path / n, '--model', str(model), '--n-micrographs', '2', '--workers',
                                 n)) for n in ('1', '2')]

    assert runs[0] == runs[1]


def test_a_micrograph_does_not_depend_on_how_many_there_are(simulated, three, tmp_path, fingerprint):
    five = fingerprint(generate(simulated, tmp_path / 'out', '--n-micrographs', '5', '--seed', '11'))

    common = {file for file in three if file not in WHOLE_RUN}
    assert len(common) == 21
    assert {file: five[file] for file in common} == {file: three[file] for file in common}
    assert len(five) == len(three) + 12


def test_the_rows_of_a_longer_run_begin_with_those_of_a_shorter_one(generated, simulated, tmp_path):
    out = generate(simulated, tmp_path / 'out', '--n-micrographs', '5', '--seed', '11')

    for name in ('coordinates.txt', 'micrographs.star', 'particles.star', 'particles_other.star'):
        short, long = ((folder / name).read_text().rstrip() for folder in (generated, out))
        assert long.startswith(short)
        assert len(long) > len(short)


def test_another_seed_gives_other_micrographs_in_every_file(simulated, three, tmp_path, fingerprint):
    other = fingerprint(generate(simulated, tmp_path / 'out', '--n-micrographs', '3', '--seed', '12'))

    same = {file for file in three if other[file] == three[file]}
    assert same == {'calibration.json', 'specimen/volume_01.mrc', 'specimen/mask_01.mrc'}


def test_no_two_micrographs_of_a_run_are_alike(three):
    for folder in ('micrographs', 'clean', 'masks', 'coordinates'):
        checksums = [checksum for file, checksum in three.items() if file.startswith(folder + '/')]
        assert len(set(checksums)) == len(checksums)


def test_the_specimen_of_generate_is_that_of_simulate_byte_by_byte(simulated, generated):
    for name in ('specimen/volume_01.mrc', 'specimen/mask_01.mrc', 'calibration.json'):
        assert (simulated / name).read_bytes() == (generated / name).read_bytes()


def test_noise_has_a_stream_of_its_own_so_every_model_sees_the_same_specimens(simulated, generated, tmp_path):
    other = generate(simulated, tmp_path / 'out', '--model', 'gaussian', '--n-micrographs', '3', '--seed', '11')

    checksums = [json.loads((folder / 'manifest.json').read_text())['checksums'] for folder in (generated, other)]
    for file, checksum in checksums[0].items():
        assert (checksums[1][file] == checksum) == (not file.startswith('micrographs/'))
