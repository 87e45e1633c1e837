"""One painted specimen: density, masks and fractions agree with each other and with geometry."""

import numpy as np
import pytest
import torch

from cryogem.conventions import euler_to_matrix
from cryogem.records import Particle
from cryogem.specimen.micrograph import paint, project_particles, split_centers
from cryogem.specimen.orientation import draw_uniform_orientations
from cryogem.specimen.placement import place_particles
from cryogem.specimen.projection import ParticleProjector
from tests.phantom import make_chiral_phantom, relative_error

SHAPE, MARGIN, BOX = (160, 200), 48, 32


def make_ball(radius: float = 9.0) -> torch.Tensor:
    """Return (2, n, n, n): a ball of density 1, one pixel of slope, and the same as its mask."""
    axis = torch.arange(BOX) - BOX // 2
    distance = torch.sqrt(axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis ** 2)
    return torch.clip(radius + 0.5 - distance, 0, 1).expand(2, -1, -1, -1)


@pytest.fixture(scope='module')
def ball() -> ParticleProjector:
    return ParticleProjector(*make_ball())


@pytest.fixture(scope='module')
def chiral() -> ParticleProjector:
    prepared = make_chiral_phantom().prepare(BOX, 4.0)
    return ParticleProjector(torch.from_numpy(prepared.density), torch.from_numpy(prepared.mask))


def make_particles(centers: np.ndarray, heights: np.ndarray | None = None, seed: int = 0) -> list[Particle]:
    angles = draw_uniform_orientations(len(centers), np.random.default_rng(seed))
    heights = np.zeros(len(centers)) if heights is None else heights
    return [Particle(i + 1, (float(y), float(x)), float(height), *map(float, angle))
            for i, ((y, x), height, angle) in enumerate(zip(centers, heights, angles, strict=True))]


@pytest.fixture(scope='module')
def crowd() -> list[Particle]:
    rng = np.random.default_rng(3)
    centers = place_particles(SHAPE, 30, [22.0], 10, rng)
    return make_particles(centers, rng.uniform(-150, 150, len(centers)))


def test_the_painted_density_is_the_sum_of_all_projections(chiral, crowd):
    painting = paint([chiral], crowd, SHAPE, MARGIN, 100.0)
    _, fractions = split_centers(np.array([one.center_yx for one in crowd]))

    total = sum(float(density.sum(dtype=torch.float64)) for _, density in painting.slices)

    assert total == pytest.approx(float(project_particles([chiral], crowd, fractions)[:, 0].sum()), rel=1e-5)


def test_a_painted_particle_lies_at_its_sub_pixel_centre_in_its_pose(chiral):
    particle = make_particles(np.array([[70.3, 91.65]]))[0]
    painting = paint([chiral], [particle], SHAPE, MARGIN, 100.0)

    (height, density), = painting.slices
    side = 2 * 120
    expected = make_chiral_phantom().project(
        side, 4.0, euler_to_matrix(np.array([particle.rot, particle.tilt, particle.psi])), (0.3, -0.35))
    window = density.numpy()[MARGIN + 70 - 30:MARGIN + 70 + 30, MARGIN + 92 - 30:MARGIN + 92 + 30]

    assert height == 0
    assert density.shape == (SHAPE[0] + 2 * MARGIN, SHAPE[1] + 2 * MARGIN)
    assert relative_error(window, expected[120 - 30:120 + 30, 120 - 30:120 + 30]) < 0.03


def test_slices_gather_particles_of_like_height(ball):
    heights = np.array([-160.0, -140, 0, 49, 51, 140])
    particles = make_particles(np.array([[20 + 22.0 * i, 100] for i in range(6)]), heights)

    painting = paint([ball], particles, SHAPE, MARGIN, 100.0)

    single = float(paint([ball], particles[:1], SHAPE, MARGIN, 100.0).slices[0][1].sum())
    counts = {height: round(float(density.sum()) / single) for height, density in painting.slices}
    assert counts == {-110.0: 2, -10.0: 1, 90.0: 3}         # none farther than 50 from the middle of its slice


def test_heights_within_the_thickness_of_a_slice_need_but_one(ball):
    particles = make_particles(np.array([[60.0, 60], [60, 100]]), np.array([-60.0, 40]))

    assert [height for height, _ in paint([ball], particles, SHAPE, MARGIN, 100.0).slices] == [-10.0]


def test_what_reaches_beyond_the_margin_is_cut_off(chiral):
    """The same specimen with a small and a large margin agrees where both have it."""
    particles = make_particles(np.array([[-10.0, 60], [70, 205], [165, -8], [80, 90]]))

    (_, small), = paint([chiral], particles, SHAPE, 5, 100.0).slices
    (_, large), = paint([chiral], particles, SHAPE, MARGIN, 100.0).slices

    cut = MARGIN - 5
    np.testing.assert_array_equal(small.numpy(), large.numpy()[cut:-cut, cut:-cut])
    assert large[:cut].any()


def test_masks_cover_the_painted_energy_and_little_else(ball, crowd):
    painting = paint([ball], crowd, SHAPE, MARGIN, 1e6)
    density = painting.slices[0][1].numpy()[MARGIN:-MARGIN, MARGIN:-MARGIN]
    is_particle = painting.instance_mask > 0

    assert (density[is_particle] ** 2).sum() > 0.99 * (density ** 2).sum()
    assert density[is_particle].min() > 0.5
    assert is_particle.mean() == pytest.approx((density > 1).mean(), abs=0.01)


def test_the_mask_of_a_ball_is_its_disc(ball):
    particles = make_particles(np.array([[80.0, 100.0]]))
    painting = paint([ball], particles, SHAPE, MARGIN, 100.0)

    distance = np.hypot(*(np.mgrid[:SHAPE[0], :SHAPE[1]] - np.array([80, 100])[:, None, None]))
    assert np.all(painting.instance_mask[distance < 8] == 1)
    assert np.all(painting.instance_mask[distance > 10.5] == 0)
    assert painting.instance_mask.dtype == np.int16
    assert painting.visible_fractions[0] == 1
    assert painting.overlap_fractions[0] == 0


def test_every_visible_particle_is_in_the_instance_mask(chiral, crowd):
    painting = paint([chiral], crowd, SHAPE, MARGIN, 100.0)

    visible = {one.instance_id for one, share in zip(crowd, painting.visible_fractions, strict=True) if share > 0}
    assert visible == set(np.unique(painting.instance_mask)) - {0}
    assert len(visible) >= 30


@pytest.mark.parametrize(('center', 'expected'), [
    ((80, 100), 1.0), ((-0.5, 100), 0.5), ((159.5, 100), 0.5), ((80, -0.5), 0.5), ((80, 199.5), 0.5),
    ((-0.5, -0.5), 0.25), ((-12, 100), 0.0)])
def test_the_visible_fraction_is_the_share_inside_the_frame(ball, center, expected):
    painting = paint([ball], make_particles(np.array([center])), SHAPE, MARGIN, 100.0)

    assert painting.visible_fractions[0] == pytest.approx(expected, abs=0.04)
    assert (painting.instance_mask > 0).any() == (expected > 0)


def test_coincident_particles_overlap_wholly_and_distant_ones_not_at_all(ball):
    centers = np.array([[50.0, 50], [50, 50], [50, 150], [120, 60], [120, 69]])
    painting = paint([ball], make_particles(centers), SHAPE, MARGIN, 100.0)

    np.testing.assert_allclose(painting.overlap_fractions[:3], [1, 1, 0], atol=0.02)
    # two discs of radius r at a distance r share 2 (pi/3 - sqrt(3)/4) / pi = 39.1 % of each
    np.testing.assert_allclose(painting.overlap_fractions[3:], 0.391, atol=0.06)


def test_of_two_particles_the_deeper_owns_the_shared_pixels():
    small, large = ParticleProjector(*make_ball(5.0)), ParticleProjector(*make_ball(10.0))
    first = Particle(1, (80.0, 100.0), 0.0, 0, 0, 0, volume_index=0)
    second = Particle(2, (80.0, 103.0), 0.0, 0, 0, 0, volume_index=1)

    for order in ([first, second], [second, first]):
        painting = paint([small, large], order, SHAPE, MARGIN, 100.0)
        assert painting.instance_mask[80, 100] == 2
        assert painting.instance_mask[80, 103] == 2


def test_each_particle_is_projected_from_its_own_map(ball):
    double = ParticleProjector(*(2 * make_ball()))
    particles = [Particle(1, (80.0, 50.0), 0.0, 0, 0, 0, volume_index=1),
                 Particle(2, (80.0, 150.0), 0.0, 0, 0, 0, volume_index=0)]

    images = project_particles([ball, double], particles, np.zeros((2, 2)))

    assert float(images[0, 0].sum()) == pytest.approx(2 * float(images[1, 0].sum()), rel=1e-4)


def test_an_empty_frame_is_painted_empty(ball):
    painting = paint([ball], [], SHAPE, MARGIN, 100.0)

    assert painting.slices == ()
    assert not painting.instance_mask.any()
    assert painting.instance_mask.shape == SHAPE
    assert len(painting.visible_fractions) == len(painting.overlap_fractions) == 0


def test_centres_split_into_whole_pixels_and_a_rest():
    whole, rest = split_centers(np.array([[10.7, 10.2], [-0.7, 0.5]]))

    np.testing.assert_array_equal(whole, [[11, 10], [-1, 1]])
    np.testing.assert_allclose(rest, [[-0.3, 0.2], [0.3, -0.5]])
