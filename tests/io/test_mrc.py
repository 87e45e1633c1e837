"""Images and volumes: what is written is read back, by us and by mrcfile, and what cannot be used is refused."""

import mrcfile
import numpy as np
import pytest
import tifffile
from PIL import Image

from cryogem.errors import InputError, OutputError
from cryogem.io import mrc
from tests.messages import is_one_sentence

PIXEL_SIZE = 1.37


def draw_image(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(100, 20, shape).astype(np.float32)


def save_mrc(path, data, pixel_size=PIXEL_SIZE):
    with mrcfile.new(path) as file:
        file.set_data(data)
        file.voxel_size = pixel_size
    return path


@pytest.mark.parametrize('dtype', [np.int8, np.int16, np.uint16, np.float16, np.float32])
def test_micrographs_of_every_type_are_read_with_their_values(tmp_path, dtype):
    data = (draw_image((20, 31)) - (0 if dtype == np.uint16 else 100)).astype(dtype)

    image, pixel_size = mrc.read_micrograph(save_mrc(tmp_path / 'one.mrc', data))

    assert image.dtype == np.float32
    np.testing.assert_array_equal(image, data.astype(np.float32))
    assert pixel_size == pytest.approx(PIXEL_SIZE, rel=1e-6)


def test_eight_bit_data_with_bytes_above_127_stay_in_range_and_order(tmp_path):
    data = np.arange(256, dtype=np.uint8).reshape(16, 16)           # mrcfile keeps unsigned bytes as 16 bit

    image, _ = mrc.read_micrograph(save_mrc(tmp_path / 'one.mrc', data))

    np.testing.assert_array_equal(image, data)


def test_a_stack_of_one_image_is_a_micrograph(tmp_path):
    data = draw_image((1, 12, 18))
    with mrcfile.new(tmp_path / 'one.mrcs') as file:
        file.set_data(data)
        file.set_image_stack()
        file.voxel_size = PIXEL_SIZE

    image, pixel_size = mrc.read_micrograph(tmp_path / 'one.mrcs')

    np.testing.assert_array_equal(image, data[0])
    assert pixel_size == pytest.approx(PIXEL_SIZE, rel=1e-6)
    assert mrc.read_micrograph_header(tmp_path / 'one.mrcs')[0] == (12, 18)


def test_an_image_comes_back_with_its_values_and_its_header(tmp_path):
    data = draw_image((24, 40))
    mrc.write_image(tmp_path / 'one.mrc', data, PIXEL_SIZE)

    image, pixel_size = mrc.read_micrograph(tmp_path / 'one.mrc')

    np.testing.assert_array_equal(image, data)
    assert pixel_size == pytest.approx(PIXEL_SIZE, rel=1e-6)
    with mrcfile.open(tmp_path / 'one.mrc') as file:
        assert (file.header.mode, file.header.ispg, file.header.mz) == (2, 0, 1)
        assert (file.header.nx, file.header.ny, file.header.nz) == (40, 24, 1)
        assert float(file.header.dmean) == pytest.approx(data.mean(dtype=np.float64), rel=1e-5)
        assert file.voxel_size.y == pytest.approx(PIXEL_SIZE, rel=1e-6)
    assert mrcfile.validate(tmp_path / 'one.mrc')


def test_an_instance_mask_keeps_its_whole_numbers(tmp_path):
    mask = np.arange(600, dtype=np.int16).reshape(20, 30)
    mrc.write_image(tmp_path / 'mask.mrc', mask, PIXEL_SIZE)

    with mrcfile.open(tmp_path / 'mask.mrc') as file:
        assert file.data.dtype == np.int16
        np.testing.assert_array_equal(file.data, mask)


def test_a_volume_is_marked_as_one_and_a_stack_is_not(tmp_path):
    data = draw_image((8, 8, 8))
    mrc.write_volume(tmp_path / 'map.mrc', data, PIXEL_SIZE)
    mrc.write_stack(tmp_path / 'stack.mrcs', data, PIXEL_SIZE)

    with mrcfile.open(tmp_path / 'map.mrc') as file:
        assert (file.header.ispg, file.header.mz) == (1, 8)
        assert file.voxel_size.z == pytest.approx(PIXEL_SIZE, rel=1e-6)
    with mrcfile.open(tmp_path / 'stack.mrcs') as file:
        assert (file.header.ispg, file.header.mz, file.header.nz) == (0, 1, 8)
        assert file.voxel_size.x == pytest.approx(PIXEL_SIZE, rel=1e-6)
        np.testing.assert_array_equal(file.data, data)
    assert mrcfile.validate(tmp_path / 'map.mrc')
    assert mrcfile.validate(tmp_path / 'stack.mrcs')


def test_a_volume_comes_back(tmp_path):
    data = draw_image((9, 9, 9))
    mrc.write_volume(tmp_path / 'map.mrc', data, PIXEL_SIZE)

    volume, pixel_size = mrc.read_volume(tmp_path / 'map.mrc')

    np.testing.assert_array_equal(volume, data)
    assert pixel_size == pytest.approx(PIXEL_SIZE, rel=1e-6)


@pytest.mark.parametrize('n', [1, 5])
def test_a_stack_written_image_by_image_equals_one_written_at_once(tmp_path, n):
    images = draw_image((n, 16, 16))
    mrc.write_stack(tmp_path / 'whole.mrcs', images, PIXEL_SIZE)
    with mrc.StackWriter(tmp_path / 'single.mrcs', n, 16, PIXEL_SIZE) as stack:
        for image in images:
            stack.append(image)

    with mrcfile.open(tmp_path / 'whole.mrcs') as whole, mrcfile.open(tmp_path / 'single.mrcs') as single:
        np.testing.assert_array_equal(single.data.reshape(images.shape), images)    # mrcfile gives (h, w) for one
        np.testing.assert_array_equal(whole.data.reshape(images.shape), images)
        for key in ('ispg', 'mz', 'nz', 'mode'):
            assert single.header[key] == whole.header[key]
        for key in ('dmin', 'dmax', 'dmean', 'rms'):
            assert float(single.header[key]) == pytest.approx(float(whole.header[key]), rel=1e-4)
        assert single.voxel_size == whole.voxel_size
    assert mrcfile.validate(tmp_path / 'single.mrcs')


def test_a_stack_that_is_not_finished_leaves_nothing(tmp_path):
    def write() -> None:
        with mrc.StackWriter(tmp_path / 'one.mrcs', 3, 16, PIXEL_SIZE) as stack:
            stack.append(draw_image((16, 16)))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('write', [
    lambda path: mrc.write_image(path, draw_image((8, 8)), PIXEL_SIZE),
    lambda path: mrc.StackWriter(path, 2, 8, PIXEL_SIZE).__enter__(),
])
def test_a_missing_folder_is_an_error_of_the_output(tmp_path, write):
    with pytest.raises(OutputError) as caught:
        write(tmp_path / 'missing' / 'one.mrcs')

    assert is_one_sentence(caught.value)
    assert 'missing' in str(caught.value)


@pytest.mark.parametrize('write', [
    lambda path: mrc.write_image(path, draw_image((10, 14)), PIXEL_SIZE),
    lambda path: mrc.write_volume(path, draw_image((6, 6, 6)), PIXEL_SIZE),
    lambda path: mrc.write_stack(path, draw_image((3, 6, 6)), PIXEL_SIZE),
])
def test_equal_data_give_equal_bytes_without_a_time_in_them(tmp_path, write):
    write(tmp_path / 'first.mrc')
    label = (tmp_path / 'first.mrc').read_bytes()[224:1024]
    write(tmp_path / 'second.mrc')

    assert (tmp_path / 'first.mrc').read_bytes() == (tmp_path / 'second.mrc').read_bytes()
    assert label.strip(b'\0 ') == b'made by cryogem'                # no time in it


@pytest.mark.parametrize(('name', 'dtype'), [('one.tif', np.uint8), ('one.tiff', np.uint16), ('one.tif', np.float32)])
def test_tiff_micrographs_are_read(tmp_path, name, dtype):
    data = draw_image((15, 22)).astype(dtype)
    tifffile.imwrite(tmp_path / name, data)

    image, pixel_size = mrc.read_micrograph(tmp_path / name, pixel_size=2.5)

    np.testing.assert_array_equal(image, data.astype(np.float32))
    assert pixel_size == 2.5
    assert mrc.read_micrograph_header(tmp_path / name, pixel_size=2.5) == ((15, 22), 2.5)


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16])
def test_png_micrographs_are_read(tmp_path, dtype):
    data = (draw_image((15, 22)) * (1 if dtype == np.uint8 else 200)).astype(dtype)
    Image.fromarray(data).save(tmp_path / 'one.png')

    image, _ = mrc.read_micrograph(tmp_path / 'one.png', pixel_size=2.5)

    np.testing.assert_array_equal(image, data.astype(np.float32))


def test_a_grey_picture_saved_in_colour_is_read_as_grey(tmp_path):
    data = draw_image((15, 22)).astype(np.uint8)
    Image.fromarray(data).convert('RGB').save(tmp_path / 'one.png')

    np.testing.assert_array_equal(mrc.read_micrograph(tmp_path / 'one.png', pixel_size=1.0)[0], data)


def test_the_said_pixel_size_wins_over_the_header(tmp_path):
    path = save_mrc(tmp_path / 'one.mrc', draw_image((8, 10)))

    assert mrc.read_micrograph(path, pixel_size=3.0)[1] == 3.0
    assert mrc.read_micrograph_header(path, pixel_size=3.0) == ((8, 10), 3.0)
    assert mrc.read_micrograph_header(path) == ((8, 10), pytest.approx(PIXEL_SIZE, rel=1e-6))


@pytest.mark.parametrize('blank', [0.0, 1.0])
def test_a_blank_pixel_size_in_the_header_must_be_mended_by_the_user(tmp_path, blank):
    path = save_mrc(tmp_path / 'one.mrc', draw_image((8, 10)), blank)

    for read in (mrc.read_micrograph, mrc.read_micrograph_header):
        with pytest.raises(InputError, match=r'pixel_size.*one\.mrc.*Å/px') as caught:
            read(path)
        assert is_one_sentence(caught.value)
        assert read(path, pixel_size=1.0)[1] == 1.0                 # 1 Å is fine when it is said


def test_a_picture_without_pixel_size_must_be_given_one(tmp_path):
    Image.fromarray(draw_image((15, 22)).astype(np.uint8)).save(tmp_path / 'one.png')

    with pytest.raises(InputError, match='pixel_size is missing') as caught:
        mrc.read_micrograph(tmp_path / 'one.png')
    assert is_one_sentence(caught.value)


@pytest.mark.parametrize('name', ['none.mrc', 'none.tif', 'none.png'])
def test_a_missing_micrograph_is_named(tmp_path, name):
    with pytest.raises(InputError, match='cannot be read') as caught:
        mrc.read_micrograph(tmp_path / name, pixel_size=1.0)
    assert is_one_sentence(caught.value)
    assert name in str(caught.value)


@pytest.mark.parametrize('name', ['text.mrc', 'text.tif', 'text.png', 'text.map'])
@pytest.mark.parametrize('content', [b'', b'this is no image\n' * 200])
def test_a_file_that_is_no_image_is_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)

    with pytest.raises(InputError) as caught:
        mrc.read_micrograph(tmp_path / name, pixel_size=1.0)
    assert is_one_sentence(caught.value)
    assert name in str(caught.value)


def test_a_truncated_micrograph_is_refused(tmp_path):
    path = save_mrc(tmp_path / 'one.mrc', draw_image((40, 40)))
    path.write_bytes(path.read_bytes()[:3000])

    with pytest.raises(InputError, match='valid MRC') as caught:
        mrc.read_micrograph(path)
    assert is_one_sentence(caught.value)


def test_a_volume_is_no_micrograph(tmp_path):
    path = save_mrc(tmp_path / 'map.mrc', draw_image((6, 8, 8)))

    with pytest.raises(InputError, match=r'\(6, 8, 8\).*one grey image') as caught:
        mrc.read_micrograph(path)
    assert is_one_sentence(caught.value)


@pytest.mark.filterwarnings('ignore::RuntimeWarning')
@pytest.mark.parametrize('bad', [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(tmp_path, bad):
    image, volume = draw_image((8, 8)), draw_image((8, 8, 8))
    image[3, 4] = volume[1, 2, 3] = bad
    for read, data, name in ((mrc.read_micrograph, image, 'image.mrc'), (mrc.read_volume, volume, 'map.mrc')):
        with pytest.raises(InputError, match='not finite') as caught:
            read(save_mrc(tmp_path / name, data))
        assert is_one_sentence(caught.value)


@pytest.mark.parametrize(('data', 'match'), [
    (draw_image((8, 8)), r'\(8, 8\).*cube'),
    (draw_image((6, 8, 8)), r'\(6, 8, 8\).*cube'),
    (np.full((8, 8, 8), 2.5, np.float32), r'constant \(2\.5\)'),
])
def test_a_map_that_holds_no_particle_is_refused(tmp_path, data, match):
    with pytest.raises(InputError, match=match) as caught:
        mrc.read_volume(save_mrc(tmp_path / 'map.mrc', data))
    assert is_one_sentence(caught.value)
