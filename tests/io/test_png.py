"""Pictures of masks are read by Pillow as they were."""

import io

import numpy as np
import pytest
from PIL import Image

from cryogem.io.png import encode_mask


@pytest.mark.parametrize('shape', [(1, 1), (7, 13), (256, 300)])
def test_a_mask_is_white_where_it_is_true(shape):
    mask = np.random.default_rng(0).uniform(size=shape) > 0.7
    picture = Image.open(io.BytesIO(encode_mask(mask)))

    assert picture.mode == 'L'
    np.testing.assert_array_equal(np.asarray(picture), np.where(mask, 255, 0))


def test_equal_masks_give_equal_bytes():
    mask = np.eye(40, dtype=bool)

    assert encode_mask(mask) == encode_mask(mask.copy())
