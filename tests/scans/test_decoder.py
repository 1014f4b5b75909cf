"""Compressed pixels are decoded in a process of their own, which may die without harm."""

import io
import signal
import sys
import threading

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGBaseline8Bit

from segmentation import SkipSegError
from segmentation.scans import read_series
from segmentation.scans.decoder import Decoder


def compress(series):
    """JPEG in place of the pixels of a series; what they are after that."""
    columns, rows = np.meshgrid(np.arange(40), np.arange(30))
    found = []
    for index, file in enumerate(sorted(series.iterdir())):
        jpeg = io.BytesIO()
        Image.fromarray((2 * columns + rows + 20 * index).astype(np.uint8)).save(jpeg, "jpeg", quality=90)
        dataset = pydicom.dcmread(file)
        dataset.Rows, dataset.Columns = 30, 40
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 8, 8, 7, 0
        dataset.RescaleSlope, dataset.RescaleIntercept = 1, 0
        dataset.PixelData = encapsulate([jpeg.getvalue()])
        dataset["PixelData"].VR = "OB"
        dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
        dataset.save_as(file)
        found.append(np.asarray(Image.open(jpeg)))
    return found


def test_a_compressed_series_is_read(make_series):
    series = make_series()
    expected = compress(series)
    found = np.moveaxis(read_series(series).array[0], -1, 0)
    assert len(found) == len(expected)
    for pixels in expected:  # the files' order is not that of the slices, and decoders round
        assert min(np.abs(slice_.T.astype(int) - pixels).max() for slice_ in found) <= 2


def test_a_damaged_stream_is_refused_and_the_next_file_is_read(make_series):
    series = make_series()
    compress(series)
    damaged = sorted(series.iterdir())[1]
    whole = damaged.read_bytes()
    damaged.write_bytes(whole.replace(b"\xff\xc0", b"\x00\x00"))
    with pytest.raises(SkipSegError, match=f"{damaged.name} cannot be decompressed") as error:
        read_series(series)
    assert "\n" not in str(error.value)
    damaged.write_bytes(whole)
    assert read_series(series).array.shape[:3] == (1, 40, 30)


def test_a_decoder_that_dies_is_started_anew(tmp_path):
    once = f"""
import pathlib, sys
if not pathlib.Path({str(tmp_path / "died")!r}).exists():
    sys.stdin.readline()
    pathlib.Path({str(tmp_path / "died")!r}).touch()
    sys.exit(1)
for line in sys.stdin:
    sys.stdout.buffer.write(b'{{"shape": [1, 2], "dtype": "|u1", "bytes": 2}}\\n' + b"ab")
    sys.stdout.flush()
"""
    decoder = Decoder([sys.executable, "-c", once])
    with pytest.raises(RuntimeError, match="broke off"):
        decoder(tmp_path / "a.dcm")
    assert decoder(tmp_path / "a.dcm").tobytes() == b"ab"
    decoder.close()


def test_a_decoder_that_hangs_is_ended(tmp_path):
    decoder = Decoder([sys.executable, "-c", "import time; time.sleep(60)"], patience_s=0.2)
    with pytest.raises(RuntimeError, match=r"no answer after 0\.2 s"):
        decoder(tmp_path / "a.dcm")


ANSWER = """
import json, sys, time
for line in sys.stdin:
    value = int(json.loads(line)[-5])
    sys.stdout.buffer.write(b'{"shape": [2], "dtype": "|u1", "bytes": 2}\\n' + bytes([value]))
    sys.stdout.flush()
    time.sleep(WAIT)
    sys.stdout.buffer.write(bytes([value]))
    sys.stdout.flush()
"""


def test_an_interrupted_answer_is_not_taken_for_the_next_files(tmp_path):
    slow, quick = (ANSWER.replace("WAIT", wait) for wait in ("30", "0"))
    decoder = Decoder([sys.executable, "-c", slow])
    timer = threading.Timer(1.0, signal.raise_signal, [signal.SIGUSR1])
    before = signal.signal(signal.SIGUSR1, signal.default_int_handler)
    try:
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            decoder(tmp_path / "1.dcm")
    finally:
        signal.signal(signal.SIGUSR1, before)
    decoder.command = [sys.executable, "-c", quick]
    assert decoder(tmp_path / "2.dcm").tolist() == [2, 2]
    decoder.close()


def test_an_answer_that_ends_half_way_is_refused(tmp_path):
    half = """print('{"shape": [4], "dtype": "|u1", "bytes": 4}', flush=True); print("ab", end="", flush=True)"""
    decoder = Decoder([sys.executable, "-c", half])
    with pytest.raises(RuntimeError, match="broke off"):
        decoder(tmp_path / "a.dcm")


def test_a_forked_process_has_a_decoder_of_its_own(tmp_path):
    decoder = Decoder([sys.executable, "-c", ANSWER.replace("WAIT", "0")])
    assert decoder(tmp_path / "1.dcm").tolist() == [1, 1]
    first = decoder._process
    decoder.forget()
    assert decoder(tmp_path / "2.dcm").tolist() == [2, 2]
    assert first.poll() is None, "that of the other one runs on"
    first.kill()
    first.communicate()
    decoder.close()
