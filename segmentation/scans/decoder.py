"""Compressed pixels of DICOM files, decoded in a process of its own.

The decoders of JPEG, JPEG-LS and JPEG 2000 are C++ libraries, which a damaged stream can end, and everything that runs
beside them. Here it ends a helper process, and the caller hears that the file cannot be decoded.
"""

import atexit
import json
import os
import select
import subprocess
import sys
import threading
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import pydicom
from numpy.typing import NDArray

_COMMAND = (sys.executable, "-m", "segmentation.scans.decoder")


class Decoder:
    """Decodes files one at a time; the process is started when first needed, and again after it has died.

    Args:
        command: The program that decodes, as :func:`serve` does.
        patience_s: Seconds that the decoding of one file may take.
    """

    def __init__(self, command: Sequence[str] = _COMMAND, patience_s: float = 120.0) -> None:
        self.command = command
        self.patience_s = patience_s
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def __call__(self, file: Path) -> NDArray[Any]:
        """Decode the pixels of a single-frame file: stored values, shape ``(rows, columns)`` for gray values.

        Raises:
            RuntimeError: If no decoder is installed, or the stream cannot be decoded.
        """
        with self._lock:
            try:
                about, pixels = self._ask(file)
            except BaseException:  # an interrupt too: what is left of this answer must not become the next one
                self.close()
                raise
        if "error" in about:
            raise RuntimeError(about["error"])
        return np.frombuffer(pixels, about["dtype"]).reshape(about["shape"])

    def close(self) -> None:
        """End the process, if one runs."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def forget(self) -> None:
        """Leave the process to the one that started it, after a fork of this one."""
        self._lock = threading.Lock()
        self._process = None

    def _ask(self, file: Path) -> tuple[dict[str, Any], bytes]:
        """What the process says about a file, and its pixels."""
        process = self._started()
        asked, answers = _pipe(process.stdin), _pipe(process.stdout)
        try:
            asked.write(json.dumps(str(file.absolute())).encode() + b"\n")
            asked.flush()
        except BrokenPipeError:
            pass  # It has died: there is no answer.
        ready, _, _ = select.select([answers], [], [], self.patience_s)
        if not ready:
            raise RuntimeError(f"no answer after {self.patience_s:g} s")
        line = answers.readline()
        about = json.loads(line) if line.endswith(b"\n") else {"bytes": 1}
        pixels = answers.read(about.get("bytes", 0))
        if len(pixels) < about.get("bytes", 0):
            raise RuntimeError("the decoder broke off")
        return about, pixels

    def _started(self) -> "subprocess.Popen[bytes]":
        """The process, which runs."""
        if self._process is None or self._process.poll() is not None:
            self.close()
            self._process = subprocess.Popen(
                self.command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,  # the libraries may print what stands in the file
                start_new_session=True,  # an interrupt is the caller's to answer
            )
        return self._process


decode = Decoder()
"""The decoder of this program."""
atexit.register(decode.close)
os.register_at_fork(after_in_child=decode.forget)


def serve() -> None:
    """Answer each line, the path of a file, by a line about its pixels and the pixels, until the input ends."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # libraries may print; answers go another way
    warnings.simplefilter("ignore")
    for line in sys.stdin:
        try:
            pixels = np.ascontiguousarray(pydicom.dcmread(json.loads(line)).pixel_array)
        except Exception as error:  # whatever it is, the caller is told and goes on
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            answers.write(json.dumps({"error": reason}).encode() + b"\n")
        else:
            about = {"shape": pixels.shape, "dtype": pixels.dtype.str, "bytes": pixels.nbytes}
            answers.write(json.dumps(about).encode() + b"\n" + pixels.tobytes())
        answers.flush()


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    """A pipe that was asked for is there."""
    assert stream is not None
    return stream


if __name__ == "__main__":
    serve()
