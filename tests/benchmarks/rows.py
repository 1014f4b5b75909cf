"""What a benchmark finds: rows of ours beside a peer, printed as a table and written as JSON.

Every module of this folder with a function ``rows`` is a benchmark and a command: ``python -m tests.benchmarks.start``.
"""

import argparse
import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from segmentation.plain import to_plain
from segmentation.runs import user_cache, write_json
from tests.benchmarks import peers

Size = Literal["small", "full"]


def machine() -> str:
    """Processor, cores and system, for the record."""
    names = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next(
        (line.partition(":")[2].strip() for line in names if line.startswith("model name")), platform.machine()
    )
    return f"{model}, {os.cpu_count()} cores, {platform.system()}"


@dataclass(frozen=True)
class Row:
    """One measured number beside a peer's.

    Attributes:
        name: What was measured, with the work.
        ours: Ours, in ``unit``.
        unit: Of ``ours``, ``peer`` and ``floor``.
        peer: The peer's; absent where a target stands alone.
        peer_name: Who that is.
        target: What ``ratio`` is to reach, or ``ours`` where there is no peer.
        better: Whether less is better, as of times, or more, as of scores.
        floor: What the hardware allows at best, where that was measured.
        machine: Where it was measured.

    Examples:
        >>> row = Row("a step", 4.0, "s", peer=5.0, peer_name="the other", target=0.8, machine="here")
        >>> row.ratio, row.met
        (0.8, True)
        >>> Row("help", 0.7, "s", target=0.5, machine="here").met
        False
    """

    name: str
    ours: float
    unit: str
    peer: float | None = None
    peer_name: str | None = None
    target: float | None = None
    better: Literal["less", "more"] = "less"
    floor: float | None = None
    machine: str = field(default_factory=machine)

    @property
    def ratio(self) -> float | None:
        """Ours divided by the peer's; None without a peer, or where its number is 0."""
        return self.ours / self.peer if self.peer else None

    @property
    def met(self) -> bool | None:
        """Tell whether the target is reached; None without a target."""
        if self.target is None:
            return None
        bound = self.target if self.peer is None else self.target * self.peer
        return self.ours <= bound if self.better == "less" else self.ours >= bound

    def to_plain(self) -> dict[str, Any]:
        """All fields, with ratio and met."""
        return asdict(self) | {"ratio": self.ratio, "met": self.met}


@dataclass(frozen=True)
class Options:
    """What every benchmark is told.

    Attributes:
        size: ``small`` shows in seconds that all works, ``full`` is the work to quote.
        repeats: Rounds of ours and peers in turn; medians are reported.
        peers: Environment of nnU-Net; its rows are left out where it does not stand.
        work: Folder for data and logs.
    """

    size: Size
    repeats: int
    peers: Path
    work: Path

    @property
    def nnunet(self) -> Path | None:
        """Python of the environment of nnU-Net, if it was built."""
        return self.peers / "bin" / "python" if peers.is_built(self.peers) else None


Benchmark = Callable[[Options], list[Row]]


def run(benchmark: Benchmark, arguments: Sequence[str] | None = None) -> int:
    """Run a benchmark as a command: print its table, and write it where asked."""
    parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--size", choices=("small", "full"), default="full", help="small shows that all works")
    parser.add_argument("--repeats", type=int, default=3, help="rounds; medians are reported")
    parser.add_argument("--peers", type=Path, default=peers.default_folder(), help="environment of nnU-Net")
    parser.add_argument("--build-peers", action="store_true", help="make that environment first, about 2 GB")
    parser.add_argument("--work", type=Path, default=user_cache() / "benchmarks" / "work", help="data and logs")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    given = parser.parse_args(arguments)
    if given.build_peers:
        peers.build(given.peers)
    rows = benchmark(Options(given.size, given.repeats, given.peers.absolute(), given.work.absolute()))
    print(table(rows))
    if given.json:
        write_json(given.json, to_plain([row.to_plain() for row in rows]))
    return 0


def table(rows: Sequence[Row]) -> str:
    """Lay rows out for reading, one a line."""
    lines = [f"{'':62}{'ours':>12}{'peer':>12}{'ratio':>9}{'target':>8}{'floor':>12}"]
    for row in rows:
        sign = "<=" if row.better == "less" else ">="
        target = "" if row.target is None else f"{sign}{row.target:g}"
        met = {None: "", True: "met", False: "missed"}[row.met]
        cells = [_shown(row.ours, row.unit, 12), _shown(row.peer, row.unit, 12), _shown(row.ratio, "", 9)]
        cells += [f"{target:>8}", _shown(row.floor, row.unit, 12), f"  {met:6}"]
        lines.append(f"{row.name:62}{''.join(cells)}" + (f"  ({row.peer_name})" if row.peer_name else ""))
    return "\n".join(lines)


def _shown(value: float | None, unit: str, width: int) -> str:
    """A number of three digits with its unit, at the right of a cell."""
    if value is None:
        return " " * width
    digits = f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{f'{digits} {unit}'.strip():>{width}}"
