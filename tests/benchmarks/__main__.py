"""All benchmarks in turn, or some: ``python -m tests.benchmarks [NAME ...]``, or ``make bench``.

The rows are written after each benchmark, so that an interruption keeps what was measured.
"""

import argparse
from importlib import import_module
from pathlib import Path

from segmentation.runs import user_cache, write_json
from tests.benchmarks import peers
from tests.benchmarks.rows import Options, Row, table

BENCHMARKS = ("start", "metrics", "prepare", "loader", "step", "study", "growth", "predict", "accuracy")


def main() -> int:
    """Build the peers' environment, measure, print and write the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", default=list(BENCHMARKS), metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--size", choices=("small", "full"), default="full", help="small shows that all works")
    parser.add_argument("--repeats", type=int, default=1, help="rounds; medians are reported")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks.json"), help="file for the rows")
    given = parser.parse_args()
    if unknown := set(given.names) - set(BENCHMARKS):
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}")
    peers.build(peers.default_folder())
    work = user_cache() / "benchmarks" / "work"
    options = Options(given.size, given.repeats, peers.default_folder(), work)
    found: list[Row] = []
    for name in given.names:
        print(f"\n{name}", flush=True)
        rows = import_module(f"tests.benchmarks.{name}").rows(options)
        print(table(rows), flush=True)
        found += rows
        write_json(given.out, [row.to_plain() for row in found])
    print(f"\n{table(found)}\n{given.out.absolute()}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
