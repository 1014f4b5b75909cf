import gc
import subprocess
import sys

import numpy as np
import pytest

from segmentation import SkipSegError
from segmentation.scans.workspace import Workspace


def test_arrays_lie_in_memory_while_the_limit_lasts_and_their_room_comes_back(tmp_path):
    space = Workspace(limit=1000, folder=tmp_path)
    first = space.zeros((600,), np.uint8)
    view = first[100:].reshape(5, 100).T
    second = space.zeros((600,), np.uint8)
    assert space.spilled == 1
    del first
    gc.collect()
    third = space.zeros((600,), np.uint8)
    assert space.spilled == 2, "a view keeps the room of its array"
    del view
    gc.collect()
    fourth = space.zeros((600,), np.uint8)
    assert space.spilled == 2
    assert not any(array.any() for array in (second, third, fourth))


def test_what_is_reserved_is_not_given_out(tmp_path):
    space = Workspace(limit=1000, folder=tmp_path, strict=True)
    with space.reserved(500):
        space.zeros((600,), np.uint8)
        assert space.spilled == 1
    space.zeros((600,), np.uint8)
    assert space.spilled == 1
    with pytest.raises(SkipSegError, match="its planes take 1 MiB more memory than there is"), space.reserved(1001):
        pass
    for unasked in (Workspace(), Workspace(limit=1000)):
        with unasked.reserved(10**15):
            pass


def test_values_in_files_survive_a_release(tmp_path):
    space = Workspace(limit=0, folder=tmp_path)
    array = space.zeros((3, 4, 5), np.int16)
    array[...] = np.arange(60).reshape(3, 4, 5)
    space.release()
    np.testing.assert_array_equal(array, np.arange(60).reshape(3, 4, 5))
    assert not list(tmp_path.iterdir()), "the files have no name"


def test_no_limit_means_no_file(tmp_path):
    space = Workspace(folder=tmp_path)
    assert space.zeros((10, 10), np.float32).shape == (10, 10)
    assert space.spilled == 0


def test_an_empty_array_needs_no_file(tmp_path):
    assert Workspace(limit=-1, folder=tmp_path).zeros((0, 3), np.uint8).shape == (0, 3)


def test_a_full_disk_is_an_error_at_once(tmp_path):
    with pytest.raises(OSError, match=r"space|large"):
        Workspace(limit=0, folder=tmp_path).zeros((1 << 50,), np.uint8)


@pytest.mark.parametrize("release", ["release()", "walked(plane)"])
def test_release_bounds_resident_memory(tmp_path, release):
    script = f"""
import numpy
from segmentation.data.hardware import peak_memory
from pathlib import Path
from segmentation.scans.workspace import Workspace
space = Workspace(limit=0, folder=Path({str(tmp_path)!r}))
before = peak_memory()
array = space.zeros((64, 1 << 20), numpy.uint8)
for plane in array:
    plane += 1
    space.{release}
total = 0
for plane in array:
    total += int(plane.sum(dtype=numpy.int64))
    space.{release}
assert total == 64 << 20
print((peak_memory() - before) // 1024)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 20_000, "KiB of 64 MiB"
