import numpy as np
import pytest
from matplotlib.image import imread

from segmentation import SkipSegError
from segmentation.evaluation.overlays import BACKDROP, COLOURS, OPACITY, write_overlay

PNG_TEXT = {b"tEXt", b"zTXt", b"iTXt", b"tIME"}


def example(shape, seed=0):
    rng = np.random.default_rng(seed)
    reference = np.zeros(shape, np.uint8)
    reference[tuple(slice(size // 4, size // 2) for size in shape)] = 1
    return rng.normal(100, 20, shape) + 80 * reference, np.roll(reference, 2, axis=0), reference


def shares(path):
    """Share of the pixels that have each of the colours, painted over the flat background."""
    pixels = imread(path)[..., :3]
    painted = {name: (1 - OPACITY) * BACKDROP + OPACITY * np.array(colour) for name, colour in COLOURS.items()}
    return {name: np.isclose(pixels, colour, atol=0.01).all(axis=-1).mean() for name, colour in painted.items()}


@pytest.mark.parametrize(("shape", "spacing_mm"), [((49, 67), (1, 1)), ((25, 29, 13), (0.9, 0.9, 2.5))])
@pytest.mark.parametrize("channels", [None, 1, 3])
def test_overlay_is_a_png_of_the_same_bytes(tmp_path, shape, spacing_mm, channels):
    image, prediction, reference = example(shape)
    image = image if channels is None else np.stack([image] * channels)
    contents = []
    for name in ("a.png", "b.png"):
        write_overlay(tmp_path / name, image, prediction, reference, spacing_mm, "case_01   Dice: organ 0.8")
        contents.append((tmp_path / name).read_bytes())
    assert contents[0] == contents[1]
    assert contents[0].startswith(b"\x89PNG")
    assert not any(chunk in contents[0] for chunk in PNG_TEXT)  # no date, no software
    assert imread(tmp_path / "a.png")[..., :3].std() > 0.1


@pytest.mark.parametrize(
    ("prediction", "reference", "seen"),
    [
        (0, 1, {"missed (FN)"}),
        (1, 0, {"false alarm (FP)"}),
        (2, 2, {"agreement (TP)"}),
        (2, 1, {"wrong class"}),
        (0, 0, set()),
    ],
)
@pytest.mark.parametrize("shape", [(40, 50), (30, 20, 9)])
def test_each_kind_of_voxel_has_its_colour(tmp_path, shape, prediction, reference, seen):
    block = np.zeros(shape, np.uint8)
    block[tuple(slice(size // 4, size // 2) for size in shape)] = 1
    write_overlay(tmp_path / "x.png", None, prediction * block, reference * block, (1,) * len(shape), "x")
    assert {name for name, share in shares(tmp_path / "x.png").items() if share > 0.005} == seen


def test_a_volume_shows_the_slice_with_most_errors_too(tmp_path):
    image, prediction, reference = example((25, 29, 13))
    write_overlay(tmp_path / "one.png", image, prediction, reference, (1, 1, 3), "one slice")
    prediction[:, :, 11] = 1
    write_overlay(tmp_path / "two.png", image, prediction, reference, (1, 1, 3), "two slices")
    assert imread(tmp_path / "two.png").shape[0] > 1.5 * imread(tmp_path / "one.png").shape[0]


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slices_lie_across_the_axis_with_the_largest_spacing(tmp_path, axis):
    reference = np.zeros((24, 24, 24), np.uint8)
    reference[np.arange(24) == 7, ...] = 1  # a plate: across axis 0 it fills a slice, else it is a line
    spacing_mm = np.ones(3)
    spacing_mm[axis] = 1.01
    write_overlay(tmp_path / "x.png", None, reference, reference, spacing_mm.tolist(), "x")
    assert (shares(tmp_path / "x.png")["agreement (TP)"] > 0.2) == (axis == 0)


def test_the_view_is_radiological(tmp_path):
    image = np.zeros((60, 60, 3))
    image[45:50, 5:10, 1] = 1  # far right, posterior
    write_overlay(tmp_path / "x.png", image, 0 * image.astype(int), image.astype(int), (1, 1, 5), "")
    pixels = imread(tmp_path / "x.png")[..., :3]
    left = pixels[:, : pixels.shape[1] // 2]
    black = (left < 0.02).all(axis=-1)
    rows, columns = (np.flatnonzero(black.sum(axis=axis) > 50)[[0, -1]] for axis in (1, 0))  # more than text has
    bright = np.argwhere((left[slice(*rows), slice(*columns)] > 0.97).all(axis=-1))
    row, column = bright.mean(axis=0) / (np.ptp(rows), np.ptp(columns))
    assert row > 0.55  # posterior is below
    assert column < 0.45  # the right of the patient is on the left


@pytest.mark.parametrize("value", [np.nan, np.inf, 7.0])
def test_odd_intensities_are_drawn(tmp_path, value):
    image, prediction, reference = example((49, 67))
    image[:5] = value
    write_overlay(tmp_path / "part.png", image, prediction, reference, (1, 1), "part")
    write_overlay(tmp_path / "all.png", np.full((49, 67), value), prediction, reference, (1, 1), "all")
    assert (tmp_path / "part.png").stat().st_size > (tmp_path / "all.png").stat().st_size


def test_bad_maps_are_refused(tmp_path):
    image, prediction, reference = example((49, 67))
    with pytest.raises(SkipSegError, match="one grid"):
        write_overlay(tmp_path / "x.png", image, prediction[1:], reference, (1, 1), "x")
    with pytest.raises(SkipSegError, match="integer labels"):
        write_overlay(tmp_path / "x.png", image, prediction / 2, reference, (1, 1), "x")
    with pytest.raises(SkipSegError, match="spacing_mm"):
        write_overlay(tmp_path / "x.png", image, prediction, reference, (1, 1, 1), "x")
    assert list(tmp_path.iterdir()) == []
