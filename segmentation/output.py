"""What a command gives: words and tables for people, or one JSON document for machines."""

import json
import sys
from collections.abc import Generator
from contextlib import contextmanager, nullcontext, redirect_stdout
from pathlib import Path
from typing import Any

from segmentation.runs import write_json
from segmentation.terminal import Part, show

STANDARD_OUTPUT = Path("-")
"""Where ``--json`` without a file writes."""


class Output:
    """Where a command says what it has done.

    Args:
        json: File for the document; :data:`STANDARD_OUTPUT` prints it, and people are told nothing there.
    """

    def __init__(self, json: Path | None = None) -> None:
        self.json = json
        self.document: Any = None

    def say(self, *parts: Part) -> None:
        """Tell people."""
        if self.json != STANDARD_OUTPUT:
            show(parts)

    def give(self, document: Any) -> None:
        """Set what machines get: plain data, without NaN or infinity."""
        self.document = document

    @contextmanager
    def opened(self) -> Generator["Output"]:
        """While the block runs, nothing else reaches standard output if the document goes there; then write it."""
        printed = sys.stdout
        with redirect_stdout(sys.stderr) if self.json == STANDARD_OUTPUT else nullcontext():
            yield self
        if self.json == STANDARD_OUTPUT:
            print(json.dumps(self.document, indent=2, allow_nan=False), file=printed, flush=True)
        elif self.json:
            write_json(self.json, self.document)
