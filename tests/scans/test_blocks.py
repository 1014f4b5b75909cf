import gzip
import io
from pathlib import Path

import numpy as np
import pytest

from segmentation import SkipSegError
from segmentation.scans import blocks
from segmentation.scans.blocks import (
    check_room,
    copy,
    file_blocks,
    fill,
    finish,
    gzip_writer,
    slowest_first,
    spans,
    stack,
    taker,
)
from segmentation.scans.workspace import Workspace

VALUES = np.random.default_rng(0).integers(-100, 100, (2, 7, 6, 5)).astype(np.int16)
VIEWS = {
    "as it is": VALUES,
    "transposed": VALUES.T,
    "flipped": VALUES[:, ::-1, :, ::-1],
    "moved": np.moveaxis(VALUES, 0, -1),
    "every second": VALUES[:, ::2, 1:],
    "one channel": VALUES[1],
    "broadcast": np.broadcast_to(np.int16(3), (4, 3, 2)),
    "empty": VALUES[:, :0],
}


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
@pytest.mark.parametrize("limit", [1, 24, 100, 10**6])
def test_spans_cover_every_voxel_once_and_touch_little(view: np.ndarray, limit: int):
    times = np.zeros(view.shape, int)
    for place in spans(view, limit):
        times[place] += 1
        low, high = np.lib.array_utils.byte_bounds(view[place])
        assert high - low <= max(limit, view.itemsize)
    assert (times == 1).all()


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_a_view_is_copied_and_written_as_it_looks(view: np.ndarray, file_space: Workspace, tiny_blocks: None):
    copied = file_space.zeros(view.shape, np.int32)
    copy(copied, view, file_space)
    np.testing.assert_array_equal(copied, view)
    written = b"".join(bytes(block) for block in file_blocks(view, ">i4", file_space))
    assert written == view.astype(">i4").tobytes()


def test_a_full_disk_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch, file_space: Workspace):
    def full(*arguments: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(SkipSegError, match=r"temporary file of 3 MiB \(No space left on device\); free disk space"):
        blocks.zeros((3 << 20,), np.uint8, file_space)


def test_blocks_are_small(tiny_blocks: None):
    sizes = [block.nbytes for block in file_blocks(np.zeros((50, 2, 3), np.int16), np.int16, None)]
    assert (sum(sizes), max(sizes)) == (600, 48)


@pytest.mark.parametrize("target", [np.empty((2, 7, 6, 5), np.int16), np.empty((5, 6, 7, 2), np.float32).T])
def test_a_target_of_any_strides_is_filled_in_its_order(target: np.ndarray, tiny_blocks: None):
    fill(target, taker(io.BytesIO(VALUES.astype(">i2").tobytes()), np.dtype(">i2")), None)
    np.testing.assert_array_equal(target, VALUES)


@pytest.mark.parametrize("missing", [1, 2, 100])
def test_voxels_that_end_early_are_missed(missing: int, tiny_blocks: None):
    content = VALUES.tobytes()[:-missing]
    with pytest.raises(EOFError, match=f"{len(content) // 2} of 420 voxels"):
        fill(np.empty(VALUES.shape, np.int16), taker(io.BytesIO(content), VALUES.dtype), None)


def test_padding_may_follow_but_no_more():
    finish(io.BytesIO(bytes(4096)))
    with pytest.raises(ValueError, match="more voxels than its header says"):
        finish(io.BytesIO(bytes(4097)))


def test_a_claim_is_measured_against_what_is_there():
    check_room(1032 * 50, 50, blocks.MOST_COMPRESSED)
    with pytest.raises(EOFError, match="claims 51601 bytes, which a file of 50 cannot hold"):
        check_room(1032 * 50 + 1, 50, blocks.MOST_COMPRESSED)


def test_zeros_are_compressed_no_further_than_the_limit_that_is_assumed():
    zeros = gzip.compress(bytes(10 << 20), 9)
    assert 1000 < (10 << 20) / len(zeros) < blocks.MOST_COMPRESSED


def test_arrays_are_joined_as_numpy_would(file_space: Workspace):
    for arrays in ([VALUES, VALUES[:1].astype(np.uint16)], [VALUES[0, :1], VALUES[0, 1:].astype(np.float32)]):
        joined = stack(arrays, file_space)
        np.testing.assert_array_equal(joined, np.concatenate(arrays))
        assert joined.dtype == np.concatenate(arrays).dtype


def test_the_last_axis_of_a_volume_is_the_slowest():
    volume = blocks.empty_volume(2, (3, 4, 5), np.uint8, None)
    assert (volume.shape, slowest_first(volume).flags.c_contiguous) == ((2, 3, 4, 5), True)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_a_packed_stream_names_no_file_and_no_time(tmp_path: Path, dtype: type):
    with (tmp_path / "name").open("wb") as file, gzip_writer(file, dtype) as stream:
        stream.write(b"voxels")
    content = (tmp_path / "name").read_bytes()
    assert gzip.decompress(content) == b"voxels"
    assert (content[3], content[4:8]) == (0, bytes(4))
