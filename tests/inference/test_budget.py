import subprocess
import sys

import pytest

from segmentation import SkipSegError
from segmentation.data.hardware import peak_memory
from segmentation.inference.memory import MARGIN, parse_bytes, room_for_arrays


@pytest.mark.parametrize(("text", "amount"), [("1KiB", 1024), ("3 mb", 3_000_000), ("2.5Gi", 5 * 2**29), ("77", 77)])
def test_amounts_of_memory(text, amount):
    assert parse_bytes(text) == amount


@pytest.mark.parametrize("text", ["", "much", "-2GiB", "0GB", "2 XB", "1e9", "2GiB3", "i", "5ib"])
def test_what_is_no_amount_is_refused(text):
    with pytest.raises(SkipSegError, match="such as 2GiB"):
        parse_bytes(text)


def test_the_peak_is_that_of_the_process():
    script = """
from segmentation.data.hardware import peak_memory
before = peak_memory()
block = b"x" * (100 << 20)
print(peak_memory() - before)
"""
    grown = int(subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout)
    assert 90 << 20 <= grown <= 130 << 20


def test_arrays_get_what_the_network_leaves():
    assert room_for_arrays(f"{peak_memory() + MARGIN + 2**30}") == pytest.approx(2**30, abs=2**24)
    assert room_for_arrays(None) > 0


def test_arrays_leave_room_for_what_is_still_to_be_taken():
    limit = f"{peak_memory() + MARGIN + 2**32}"
    assert room_for_arrays(limit, 2**31) < room_for_arrays(limit) - 2**30
    assert room_for_arrays(None, 2**60) == 0
    with pytest.raises(SkipSegError, match="less than this network takes"):
        room_for_arrays(limit, 2**33)


def test_too_little_memory_is_refused_with_what_is_enough():
    with pytest.raises(
        SkipSegError, match=r"memory 1MiB is less than this network takes .* at least \d+MiB"
    ) as refused:
        room_for_arrays("1MiB")
    least = str(refused.value).split()[-1]
    assert room_for_arrays(f"{int(least.removesuffix('MiB')) + 8}MiB") > 0
