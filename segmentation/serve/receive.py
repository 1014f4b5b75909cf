"""Receive uploads: the one file of a multipart form, written to the disk as it comes, and read by a worker."""

import asyncio
import shutil
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from segmentation.serve.process import Limits, Worker
from segmentation.serve.records import RAW, Upload
from segmentation.serve.store import Store

MOST_AT_ONCE = 8
"""Uploads that are received or read at a time; more are refused."""

IDLE_SECONDS = 30.0
"""Without a byte for so long, an upload is given up."""

_READERS = 2
_LIMITS = Limits(memory=1 << 30, seconds=120.0)


class BusyError(Exception):
    """As many uploads come in, or as many bytes are kept, as are allowed."""


class FormError(Exception):
    """The request is no form with one file."""


class Receiver:
    """Takes uploads in.

    Args:
        store: Where they are kept.
        unpacked: Bytes that one may hold when it is unpacked.
        storage: Bytes that all uploads and results may take.
    """

    def __init__(self, store: Store, unpacked: int, storage: int) -> None:
        self.store = store
        self.unpacked = unpacked
        self.storage = storage
        self._receiving = 0
        self._ending = threading.Event()
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="read")
        self._spare: dict[int, Worker] = {}

    def stop(self) -> None:
        """End the readers, whatever they read."""
        self._ending.set()
        self._readers.shutdown()
        for worker in self._spare.values():
            worker.end()

    async def receive(self, content_type: str, body: AsyncIterator[bytes]) -> Upload:
        """Take one upload in.

        Args:
            content_type: Header of the request.
            body: Of the request, in parts.

        Raises:
            BusyError: If there is no room at present.
            OSError: If the disk is full.
            FormError: If the request is no form with one file.
            TaskError: If the upload is of no known type, damaged or too large.
            TimeoutError: If nothing comes any more.
        """
        if self._receiving >= MOST_AT_ONCE or self.store.stored_bytes() >= self.storage:
            raise BusyError
        draft = self.store.new_draft()
        self._receiving += 1
        try:
            await _write(content_type, body, draft / RAW)
            facts = await asyncio.wrap_future(self._readers.submit(self._read, draft))
            return await asyncio.to_thread(self.store.add_upload, draft, facts)
        finally:
            self._receiving -= 1
            await asyncio.to_thread(shutil.rmtree, draft, ignore_errors=True)

    def _read(self, draft: Path) -> dict[str, Any]:
        """Have a worker read an upload; the worker for the next one is started meanwhile."""
        worker = self._spare.pop(threading.get_ident(), None)
        if worker is None or not worker.is_alive():
            worker = Worker("take_in", _LIMITS)
        self._spare[threading.get_ident()] = Worker("take_in", _LIMITS)
        task = {"folder": str(draft), "unpacked": self.unpacked}
        return worker.run(task, lambda said: None, self._ending.is_set)


async def _write(content_type: str, body: AsyncIterator[bytes], target: Path) -> None:
    """Write the file of a form to the disk as it comes."""
    kind, options = parse_options_header(content_type)
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        raise FormError
    with target.open("xb") as file:
        form = _Form(file)
        try:
            parser = MultipartParser(options[b"boundary"], form.callbacks())
            parts = aiter(body)
            while (part := await asyncio.wait_for(anext(parts, None), IDLE_SECONDS)) is not None:
                parser.write(part)
            parser.finalize()
        except FormParserError:
            raise FormError from None
    if form.files != 1 or not form.is_whole:
        raise FormError


class _Form:
    """What a parser finds in a form: the bytes of its field ``file`` go to a file."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.files = 0
        self.is_whole = False
        self._header = self._value = b""
        self._is_file = False

    def callbacks(self) -> Any:
        """Functions for the parser."""
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._field,
            "on_header_value": self._content,
            "on_header_end": self._end_header,
            "on_part_data": self._data,
            "on_end": self._end,
        }

    def _begin(self) -> None:
        self._is_file = False

    def _field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _content(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        if self._header.lower() == b"content-disposition":
            _, options = parse_options_header(self._value)
            self._is_file = options.get(b"name") == b"file"
            self.files += self._is_file
        self._header = self._value = b""

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._is_file and self.files == 1:
            self.file.write(data[start:end])

    def _end(self) -> None:
        self.is_whole = True
