import errno
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import nrrd
import numpy as np
import pytest
from PIL import Image

from segmentation import SkipSegError
from segmentation.scans import Scan, read_label_map, read_scan, scan_geometry, write_label_map, write_map
from segmentation.scans.workspace import Workspace

MakeNifti = Callable[..., Path]
SHAPE = (9, 7, 5)
LABELS = np.random.default_rng(0).integers(0, 3, SHAPE)


@pytest.fixture
def like() -> Scan:
    return Scan(np.zeros((1, *SHAPE), np.int16), np.diag([0.8, 1.2, 3.0, 1.0]), "scan.nii.gz")


def test_files_of_one_scan_are_stacked_in_order(make_nifti: MakeNifti):
    paths = [make_nifti(np.full(SHAPE, value, np.int16), name=f"a_000{value}.nii.gz") for value in range(3)]
    scan = read_scan(paths[::-1])
    assert scan.array[:, 0, 0, 0].tolist() == [2, 1, 0]
    assert scan.source == "a_0002.nii.gz"


@pytest.mark.parametrize("dtypes", [(np.int16, np.int16), (np.int16, np.uint16), (np.uint8, np.float32)])
@pytest.mark.parametrize("endings", [(".nii.gz", ".nii"), (".nii", ".nrrd"), (".nrrd", ".nrrd")])
def test_channel_files_are_read_into_one_array(
    make_nifti: MakeNifti, file_space: Workspace, tiny_blocks: None, dtypes: tuple, endings: tuple[str, str]
):
    arrays = [np.random.default_rng(index).integers(0, 100, SHAPE).astype(dtype) for index, dtype in enumerate(dtypes)]
    affine = np.diag([0.8, 1.2, 3.0, 1.0])
    paths = [make_nifti(array, affine, name=f"{index}.nii") for index, array in enumerate(arrays)]
    for index, (array, ending) in enumerate(zip(arrays, endings, strict=True)):
        if ending == ".nrrd":
            paths[index] = paths[index].with_suffix(ending)
            header = {"space": "RAS", "space directions": affine[:3, :3], "space origin": np.zeros(3)}
            nrrd.write(str(paths[index]), array, header)
        elif ending == ".nii.gz":
            paths[index] = make_nifti(array, affine, name=f"{index}{ending}")
    scan = read_scan(paths, workspace=file_space)
    np.testing.assert_array_equal(scan.array, np.stack(arrays))
    assert (scan.array.dtype, file_space.spilled) == (np.result_type(*dtypes), 1)
    assert scan.source == paths[0].name


def test_pictures_are_stacked_in_the_workspace(tmp_path: Path, file_space: Workspace, tiny_blocks: None):
    pixels = np.random.default_rng(0).integers(0, 255, (2, 40, 30), dtype=np.uint8)
    paths = [tmp_path / "a_0000.png", tmp_path / "a_0001.png"]
    for path, plane in zip(paths, pixels, strict=True):
        Image.fromarray(plane).save(path)
    np.testing.assert_array_equal(read_scan(paths, workspace=file_space).array, pixels)


def test_channels_on_different_grids_are_refused(make_nifti: MakeNifti):
    paths = [
        make_nifti(np.zeros(SHAPE), np.diag([1, 1, step, 1]), name=f"a_000{index}.nii.gz")
        for index, step in enumerate((2.0, 3.0))
    ]
    with pytest.raises(SkipSegError, match=r"a_0000\.nii\.gz and a_0001\.nii\.gz .* spacing"):
        read_scan(paths)


def test_a_scan_needs_a_file():
    with pytest.raises(SkipSegError, match="at least one file"):
        read_scan([])


def test_nan_in_an_image_is_passed_on(make_nifti: MakeNifti):
    assert np.isnan(read_scan(make_nifti(np.full(SHAPE, np.nan, np.float32))).array).all()


@pytest.mark.parametrize("read", [read_scan, read_label_map, scan_geometry])
def test_an_unknown_ending_lists_the_known_ones(read: Callable, tmp_path: Path):
    with pytest.raises(SkipSegError, match=r"scan\.mgz: unknown format; known are \.nii, \.nii\.gz"):
        read(tmp_path / "scan.mgz")


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.float32, np.float64])
@pytest.mark.parametrize(("factor", "smallest"), [(1, np.uint8), (127, np.uint8), (128, np.uint16)])
def test_labels_take_the_smallest_dtype(make_nifti: MakeNifti, dtype: type, factor: int, smallest: type):
    stored = LABELS * factor if dtype is not np.uint8 else LABELS
    labels = read_label_map(make_nifti(stored.astype(dtype)))
    assert labels.array.dtype == (smallest if dtype is not np.uint8 else np.uint8)
    np.testing.assert_array_equal(labels.array[0], stored)


@pytest.mark.parametrize(
    ("value", "words"), [(np.nan, "NaN or infinity"), (np.inf, "NaN or infinity"), (0.5, "got 0.5"), (-1, "got -1")]
)
def test_what_is_no_label_is_refused(make_nifti: MakeNifti, value: float, words: str):
    array = LABELS.astype(np.float32)
    array[4, 3, 2] = value
    with pytest.raises(SkipSegError, match=words):
        read_label_map(make_nifti(array))


def test_negative_integers_are_no_labels(make_nifti: MakeNifti):
    with pytest.raises(SkipSegError, match="labels start at 0, got -1"):
        read_label_map(make_nifti((LABELS - 1).astype(np.int16)))


def test_remap_replaces_all_values_at_once(make_nifti: MakeNifti):
    path = make_nifti(LABELS.astype(np.uint8))
    swapped = read_label_map(path, remap={1: 2, 2: 1, 7: 9}).array[0]
    np.testing.assert_array_equal(swapped, np.choose(LABELS, [0, 2, 1]))
    assert read_label_map(path, remap={2: 300}).array.dtype == np.uint16


def test_a_mask_of_0_and_255_becomes_0_and_1(tmp_path: Path):
    Image.fromarray(np.array([[0, 255, 255]], np.uint8)).save(tmp_path / "mask.png")
    labels = read_label_map(tmp_path / "mask.png", remap={255: 1})
    assert labels.array.tolist() == [[[0, 1, 1]]]
    assert labels.array.dtype == np.uint8


def test_a_label_map_on_another_grid_names_both(make_nifti: MakeNifti, like: Scan):
    path = make_nifti(LABELS.astype(np.uint8), np.diag([0.8, 1.2, 2.0, 1.0]), name="label.nii.gz")
    with pytest.raises(SkipSegError, match=r"label\.nii\.gz does not lie on the grid of scan\.nii\.gz: spacing"):
        read_label_map(path, like=like)
    with pytest.raises(SkipSegError, match="shape"):
        read_label_map(path, like=Scan(like.array[..., 1:], like.affine))


def test_a_four_dimensional_label_map_is_refused(make_nifti: MakeNifti):
    with pytest.raises(SkipSegError, match="4-D where 3-D"):
        read_label_map(make_nifti(np.stack([LABELS] * 2, axis=-1).astype(np.uint8)))


@pytest.mark.parametrize(
    ("name", "label_map", "words"),
    [
        ("map.nii", LABELS[1:], "the label map has shape"),
        ("map.nii", LABELS[None], "the label map has shape"),
        ("map.nii", LABELS * 0.5, "whole numbers"),
        ("map.nii", LABELS - 1, "start at 0"),
        ("map.nii", LABELS + 65535, "up to 65535"),
        ("map.png", LABELS, "has 3 axes; write one of .nii"),
        ("map.mgz", LABELS, "unknown format"),
    ],
)
def test_what_cannot_be_written_is_refused_and_leaves_nothing(
    tmp_path: Path, like: Scan, name: str, label_map: np.ndarray, words: str
):
    with pytest.raises(SkipSegError, match=words):
        write_label_map(tmp_path / name, label_map, like)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "shape", "names", "words"),
    [
        ("map.nii", (8, 7, 5), (), r"the map has shape \(8, 7, 5\)"),
        ("map.nii", (2, 2, *SHAPE), (), "the map has shape"),
        ("map.nii", (2, *SHAPE), ("a",), "and 1 names"),
        ("map.nii", SHAPE, ("a", "b"), "and 2 names"),
        ("map.tif", SHAPE, (), r"has 3 axes; write one of \.nii"),
        ("map.seg", SHAPE, (), "unknown format"),
    ],
)
def test_a_map_that_cannot_be_written_is_refused_and_leaves_nothing(
    tmp_path: Path, like: Scan, name: str, shape: tuple[int, ...], names: tuple[str, ...], words: str
):
    with pytest.raises(SkipSegError, match=words):
        write_map(tmp_path / name, np.zeros(shape), like, names)
    assert list(tmp_path.iterdir()) == []


def test_a_picture_has_no_volume_format(tmp_path: Path):
    with pytest.raises(SkipSegError, match=r"has 2 axes; write one of \.png"):
        write_label_map(tmp_path / "map.nii", LABELS[0], Scan(LABELS[:1], np.eye(4), "picture.png"))


@pytest.mark.parametrize("dtype", [bool, np.int64, np.float32, np.uint16])
@pytest.mark.parametrize("name", ["map.nii.gz", "map.nrrd"])
def test_any_whole_numbers_can_be_written(tmp_path: Path, like: Scan, dtype: type, name: str):
    write_label_map(tmp_path / name, LABELS.astype(dtype), like)
    np.testing.assert_array_equal(read_label_map(tmp_path / name, like=like).array[0], LABELS.astype(dtype))


MEMORY = """
import gc, resource, sys
from pathlib import Path
import numpy as np
from segmentation.scans import Scan, read_scan, write_label_map, write_map
from segmentation.scans.workspace import Workspace
folder, shape = Path(sys.argv[1]), (256, 256, 800)
like = Scan(np.broadcast_to(np.int16(0), (1, *shape)), np.eye(4), "scan")
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
write_label_map(folder / "warm.nii.gz", np.ones((4, 5, 6)), Scan(np.ones((1, 4, 5, 6)), np.eye(4), "scan"))
read_scan(folder / "warm.nii.gz")
before, space = peak(), Workspace(limit=0, folder=folder)
labels = space.zeros(shape, np.uint16)  # its slowest axis is the file's fastest
for plane in labels:
    plane[:, ::7] = 3
    space.release()
for name in ("a.nii", "a.nii.gz", "a.nrrd"):
    write_label_map(folder / name, labels, like, workspace=space)
    scan = read_scan(folder / name, workspace=space)
    assert scan.array.dtype == np.uint8
scan = read_scan([folder / "a.nii", folder / "a.nrrd"], workspace=space)
write_map(folder / "map.nii", scan.array, like, workspace=space)
print(peak() - before)
"""


@pytest.mark.slow
def test_memory_stays_within_blocks_whatever_the_size(tmp_path: Path):
    done = subprocess.run([sys.executable, "-c", MEMORY, str(tmp_path)], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 60, "MiB, where the largest array has 200"


@pytest.mark.parametrize("name", ["map.nii", "map.nii.gz", "map.nrrd", "map.png", "map.tif"])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path: Path, name: str):
    shape = (400, 300) if name.endswith(("png", "tif")) else (40, 30, 100)
    noise = np.random.default_rng(0).integers(0, 250, shape)
    scan = Scan(np.zeros((1, *shape), np.uint8), np.eye(4), "scan")
    (tmp_path / name).write_bytes(b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, hard))  # the kernel refuses to write on
    try:
        with pytest.raises(OSError, match="too large") as error:
            write_label_map(tmp_path / name, noise, scan)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert error.value.errno == errno.EFBIG
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [(name, b"old")]


def test_the_written_map_opens_in_another_reader(tmp_path: Path, like: Scan):
    write_label_map(tmp_path / "map.nii.gz", LABELS, like)
    image = nib.load(tmp_path / "map.nii.gz")
    assert image.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(np.asarray(image.dataobj), LABELS)
    np.testing.assert_allclose(image.affine, like.affine, rtol=1e-6)
