"""From start to serving, against reading the same bytes, both from a cold page cache."""

from pathlib import Path

from benchmarks.index.workbench import Workbench
from benchmarks.report import Figure, at_most
from benchmarks.server import IndexServer, drop_page_cache, files_below
from benchmarks.statistics import median, seconds

_REPETITIONS = 3
_CHUNK_BYTES = 8 << 20


def measure(bench: Workbench, figure: Figure) -> None:
    """Measure a server with one exact pool, one with none, and the reading, in turn."""
    folder = bench.flat_folder
    empty = bench.options.folder / "empty"
    restarts, starts, readings = [], [], []
    for _ in range(_REPETITIONS):
        # The empty one first: it leaves Python and the libraries in the cache for both.
        starts.append(_start(empty))
        drop_page_cache(files_below(folder))
        restarts.append(_start(folder))
        files = files_below(folder)
        drop_page_cache(files)
        readings.append(seconds(lambda files=files: _read(files)))  # type: ignore[misc]
    size = sum(path.stat().st_size for path in files_below(folder))
    restart_s, start_s, reading_s = median(restarts), median(starts), median(readings)
    figure.add("files of the pool", size / 1e6, "MB")
    figure.add(f"restart to serving, {bench.options.items:,} items, flat", restart_s, "s")
    figure.add("start of a server without pools", start_s, "s")
    figure.add("reading the same files", reading_s, "s")
    figure.add("reading the same files", size / reading_s / 1e6, "MB/s")
    figure.add("restart / reading", restart_s / reading_s, "×", bench.at_full_size(at_most(2)))
    figure.add("(restart − start without pools) / reading", (restart_s - start_s) / reading_s, "×")


def _start(folder: Path) -> float:
    server = IndexServer(folder)
    try:
        return server.start()
    finally:
        server.stop()


def _read(files: list[Path]) -> None:
    buffer = bytearray(_CHUNK_BYTES)
    for path in files:
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass
