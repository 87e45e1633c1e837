"""The gallery: sizes, one grey mapping for all, and circles where the particles are."""

import numpy as np
import pytest
from PIL import Image

from cryogem.evaluation.gallery import Exhibit, draw_exhibit, write_gallery

CAPTION = 22                                # px above each picture


def make_exhibit(shape=(100, 140), centers=(), seed=0):
    contrast = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    return Exhibit('one', contrast, np.array(centers, dtype=float).reshape(-1, 2))


def draw(exhibit, diameter=20):
    return np.asarray(draw_exhibit(exhibit, diameter)).astype(int)[CAPTION:]


def find_circle(picture):
    return (picture[..., 0] > 230) & (picture[..., 1] > 190) & (picture[..., 2] < 40)


def test_a_picture_keeps_the_shape_of_its_frame():
    assert draw(make_exhibit()).shape == (500, 700, 3)
    assert draw(make_exhibit((140, 100))).shape == (700, 500, 3)


@pytest.mark.parametrize('center', [(30.0, 100.0), (70.4, 25.6)])
def test_a_circle_has_the_particles_centre_and_diameter(center):
    is_circle = find_circle(draw(make_exhibit(centers=[center])))
    y, x = np.nonzero(is_circle)

    # the picture is enlarged five times; the centre of pixel i lies at 5 (i + 1/2)
    assert [y.min() + y.max(), x.min() + x.max()] == pytest.approx([10 * (one + 0.5) for one in center], abs=3)
    assert [np.ptp(y), np.ptp(x)] == pytest.approx([100, 100], abs=2)
    radius = np.hypot(y - 5 * (center[0] + 0.5), x - 5 * (center[1] + 0.5))
    assert np.abs(radius - 50).max() < 2


def test_a_dark_particle_lies_in_the_middle_of_its_circle():
    y, x = np.mgrid[:100, :140]
    dark = -3 * np.exp(-((y - 40) ** 2 + (x - 90) ** 2) / 30)
    picture = draw(Exhibit('one', dark.astype(np.float32), np.array([[40.0, 90.0]])))
    is_circle = find_circle(picture)
    rows, columns = np.nonzero(is_circle)
    darkest = np.unravel_index(np.where(is_circle, 999, picture[..., 0]).argmin(), is_circle.shape)

    assert darkest == pytest.approx(((rows.min() + rows.max()) / 2, (columns.min() + columns.max()) / 2), abs=4)


def test_no_centres_no_circles():
    assert not find_circle(draw(make_exhibit())).any()


@pytest.mark.parametrize(('value', 'grey'), [(-3, 0), (0, 127), (3, 255), (-50, 0), (50, 255), (1.5, 191)])
def test_the_grey_mapping_is_the_same_for_all_pictures(value, grey):
    picture = draw(Exhibit('one', np.full((50, 50), value, np.float32), np.empty((0, 2))))

    assert set(picture.ravel()) == {grey}


def test_rows_lie_below_each_other_and_the_caption_is_written(tmp_path):
    rows = [[make_exhibit(seed=1), make_exhibit(seed=2)], [make_exhibit(seed=3)]]
    write_gallery(tmp_path / 'gallery.png', rows, 20)
    sheet = np.asarray(Image.open(tmp_path / 'gallery.png'))

    assert sheet.shape == (2 * (500 + CAPTION) + 3 * 10, 2 * 700 + 3 * 10, 3)
    pictures = [sheet[top + CAPTION:top + CAPTION + 500, left:left + 700]
                for top, left in ((10, 10), (10, 720), (542, 10))]
    for picture, exhibit in zip(pictures, (rows[0][0], rows[0][1], rows[1][0]), strict=True):
        np.testing.assert_array_equal(picture, draw(exhibit))
    assert (sheet[542:, 720:] == 255).all()
    assert sheet[10:10 + CAPTION, 10:60].min() < 100
    assert [one.name for one in tmp_path.iterdir()] == ['gallery.png']


def test_the_same_exhibits_give_the_same_bytes(tmp_path):
    for name in ('a.png', 'b.png'):
        write_gallery(tmp_path / name, [[make_exhibit(centers=[(5, 5)])]], 20)

    assert (tmp_path / 'a.png').read_bytes() == (tmp_path / 'b.png').read_bytes()
