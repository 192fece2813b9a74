"""Sides timed in turns, so that what else the machine does falls on all of them; medians, ratios, a CSV."""

import os
import platform
import re
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pandas as pd

RESULTS = Path(__file__).parent / "results"


def time_in_turns(sides: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each side, `repeats` times, round after round, after one round that does not count.

    Each round begins with another side: what one leaves to be done after its end does not fall on the same one always.
    """
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    names = list(sides)
    for turn in range(repeats + 1):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            start = time.perf_counter()
            sides[name]()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def tabulate(seconds: Mapping[str, list[float]], items: int, ours: str) -> pd.DataFrame:
    """A row a side: median, fastest and slowest seconds, items/s, and how many times slower than `ours` it is.

    The ratio is the median of the ratios within each round.
    """
    rows = []
    for name, taken in seconds.items():
        ratios = [theirs / own for theirs, own in zip(taken, seconds[ours], strict=True)]
        rows.append(
            {
                "side": name,
                "median_s": round(statistics.median(taken), 4),
                "min_s": round(min(taken), 4),
                "max_s": round(max(taken), 4),
                "items_per_s": round(items / statistics.median(taken), 1),
                "times_slower": round(statistics.median(ratios), 2),
            }
        )
    return pd.DataFrame(rows)


def write_results(name: str, table: pd.DataFrame, versions: Mapping[str, str], *, hardware: str | None = None) -> Path:
    """results/NAME_HARDWARE_torchVERSION.csv, with the versions as columns. `hardware` None is the processor."""
    hardware = _simplify(hardware) if hardware else f"{_describe_processor()}-{os.cpu_count()}cores"
    path = RESULTS / f"{name}_{hardware}_torch{versions['torch'].partition('+')[0]}.csv"
    path.parent.mkdir(exist_ok=True)
    table.assign(hardware=hardware, **versions).to_csv(path, index=False)
    return path


def _describe_processor() -> str:
    named = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists() and (found := re.search(r"model name\s*:\s*(.+)", cpuinfo.read_text())):
        named = found[1]
    return _simplify(named)


def _simplify(named: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", named.lower()).strip("-")
