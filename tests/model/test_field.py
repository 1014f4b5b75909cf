"""Reach by hand: which voxels of the image a voxel of a map depends on."""

from segmentation.model.field import Reach

IMAGE = Reach.of_image(period=4)


def span(reach: Reach) -> list[tuple[int, int]]:
    return list(zip(reach.first, reach.last, strict=True))


def test_a_voxel_of_the_image_is_itself():
    assert span(IMAGE) == [(0, 0), (1, 1), (2, 2), (3, 3)]
    assert IMAGE.width == 1


def test_an_odd_kernel_is_centred():
    assert span(IMAGE.window(5)) == [(-2, 2), (-1, 3), (0, 4), (1, 5)]


def test_a_strided_kernel_is_centred_on_every_second_voxel():
    assert span(IMAGE.window(3, stride=2)) == [(-1, 1), (1, 3)]
    assert span(IMAGE.window(1, stride=2)) == [(0, 0), (2, 2)]


def test_pooling_reads_its_own_voxels():
    assert span(IMAGE.window(2, stride=2)) == [(0, 1), (2, 3)]
    assert span(IMAGE.window(3, stride=2, padding=0)) == [(0, 2), (2, 4)]


def test_repeating_gives_back_the_finer_grid():
    assert span(IMAGE.window(2, stride=2).repeat(2)) == [(0, 1), (0, 1), (2, 3), (2, 3)]


def test_a_decoder_voxel_looks_left_or_right_by_its_place():
    """A convolution of three voxels on a doubled map covers two coarse voxels, one of them twice."""
    assert span(IMAGE.window(2, stride=2).repeat(2).window(3)) == [(-2, 1), (0, 3), (0, 3), (2, 5)]


def test_linear_interpolation_reads_the_two_nearest():
    coarse = IMAGE.window(1, stride=2)  # voxels 0, 2, 4, ...
    assert span(coarse.interpolate(2)) == [(-2, 0), (0, 2), (0, 2), (2, 4)]
    assert span(IMAGE.interpolate(1)) == span(IMAGE)
    # Three times as fine: every middle voxel lies on a coarse one.
    image = Reach.of_image(3)
    assert span(image.window(1, stride=3).interpolate(3)) == [(-3, 0), (0, 0), (0, 3)]


def test_joining_takes_the_outer_ends():
    wide, shifted = IMAGE.window(3), IMAGE.window(2, stride=1, padding=0)
    assert span(wide.join(shifted)) == [(-1, 1), (0, 2), (1, 3), (2, 4)]


def test_the_pattern_goes_on_beyond_its_period():
    """The window of the first voxel reaches into the period before."""
    assert Reach.of_image(1).window(7).window(3, stride=1).width == 9
