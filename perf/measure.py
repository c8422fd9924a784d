"""What surrounds a measurement: caches dropped, backing pages locked, the machine's own counters.

Linux only, root only. One measurement at a time: `drop_caches` is the whole machine's.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
import resource
import statistics
import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

MAP_LOCKED = 0x2000
MAP_FAILED = ctypes.c_void_p(-1).value
TICK_S = 1 / os.sysconf("SC_CLK_TCK")
PAGES, DENTRIES = 1, 2  # bits of drop_caches
LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.mmap.restype = ctypes.c_void_p
LIBC.mmap.argtypes = [
    ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long,
]  # fmt: skip
LIBC.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]


class LockedPages:
    """Keeps *paths* in the page cache: mapped and locked, so nothing drops or reclaims them.

    Files are read before they are mapped: readahead fills the page cache with large folios, page
    faults with single pages, and reads from the latter are slower.
    """

    def __init__(self, paths: Iterable[Path]) -> None:
        self.mappings: list[tuple[int, int]] = []
        for path in paths:
            size = path.stat().st_size
            if not size:
                continue
            with path.open("rb", buffering=0) as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
                while file.read(4 << 20):
                    pass
                flags = mmap.MAP_SHARED | mmap.MAP_POPULATE | MAP_LOCKED
                address = LIBC.mmap(None, size, mmap.PROT_READ, flags, file.fileno(), 0)
            if address == MAP_FAILED:
                code = ctypes.get_errno()
                self.close()
                raise OSError(code, os.strerror(code), str(path))
            self.mappings.append((address, size))

    def __enter__(self) -> LockedPages:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Let the pages go."""
        for address, size in self.mappings:
            LIBC.munmap(address, size)
        self.mappings.clear()


def drop_caches(what: int) -> None:
    """Drop clean *what* (`PAGES`, `DENTRIES`, both) of the whole machine, except locked pages."""
    Path("/proc/sys/vm/drop_caches").write_text(str(what))


def machine_ticks() -> tuple[float, float]:
    """Seconds of CPU that the machine has worked, and that the host has stolen, since its start."""
    values = [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    return (sum(values[:3]) + values[5] + values[6]) * TICK_S, values[7] * TICK_S


def paged_in_mib() -> float:
    """MiB read from disks since the start of the machine."""
    for line in Path("/proc/vmstat").read_text().splitlines():
        if line.startswith("pgpgin "):
            return int(line.split()[1]) / 1024
    return 0.0


def settle(longest_s: float) -> None:
    """Wait for a tenth of a second in which the machine is idle, *longest_s* at most."""
    deadline = time.monotonic() + longest_s
    while time.monotonic() < deadline:
        before = machine_ticks()[0]
        time.sleep(0.1)
        if machine_ticks()[0] - before <= 2 * TICK_S:
            return


@dataclass(slots=True)
class Cost:
    """What a piece of work took; `foreign_cpu_s` is work of the machine for somebody else."""

    wall_s: float = 0.0
    daemon_cpu_s: float = 0.0
    client_cpu_s: float = 0.0
    foreign_cpu_s: float = 0.0
    steal_s: float = 0.0
    disk_mib: float = 0.0  # of the whole machine
    daemon_disk_mib: float = 0.0


def children_cpu() -> float:
    """CPU seconds of all ended children."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def timed(
    command: list[object],
    daemon_cpu: Callable[[], float] = lambda: 0.0,
    env: dict[str, str] | None = None,
) -> tuple[Cost, str]:
    """Run *command*; what it cost and its standard output. `SystemExit` if it fails."""
    argv = [str(word) for word in command]
    machine, disk, client, daemon = machine_ticks(), paged_in_mib(), children_cpu(), daemon_cpu()
    began = time.perf_counter()
    done = subprocess.run(argv, capture_output=True, text=True, env={**os.environ, **(env or {})})
    cost = Cost(wall_s=time.perf_counter() - began, daemon_cpu_s=daemon_cpu() - daemon)
    cost.client_cpu_s = children_cpu() - client
    after = machine_ticks()
    worked = after[0] - machine[0] - cost.daemon_cpu_s - cost.client_cpu_s
    cost.foreign_cpu_s = max(worked, 0.0)
    cost.steal_s = after[1] - machine[1]
    cost.disk_mib = paged_in_mib() - disk
    if done.returncode:
        raise SystemExit(f"{argv}: exit {done.returncode}: {done.stderr[-500:]}")
    return cost, done.stdout


def per_item(cost: Cost, unit: str, items: float, amount: int) -> dict[str, float]:
    """*cost* as measures: `rate` in *unit* a second, `cpu_per_item` in µs, or in ms a GiB for MiB.

    *items* were done and *amount* bytes moved.
    """
    measures = asdict(cost)
    if unit == "MiB":
        measures["rate"] = amount / (1 << 20) / cost.wall_s
        measures["cpu_per_item"] = cost.daemon_cpu_s * 1e3 / (amount / (1 << 30))
    else:
        measures["rate"] = items / cost.wall_s
        measures["cpu_per_item"] = cost.daemon_cpu_s * 1e6 / items
    return measures


def medians(samples: list[dict[str, float]]) -> dict[str, float]:
    """One sample whose every measure is the median of *samples*."""
    return {name: statistics.median(sample[name] for sample in samples) for name in samples[0]}


def machine() -> dict[str, object]:
    """What the figures were measured on."""
    cpus = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return {
        "kernel": platform.release(),
        "cpu": cpus[0] if cpus else platform.machine(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)),
        "python": platform.python_version(),
    }


def commit() -> str:
    """The commit of the tree this harness lies in, with a mark when it was changed."""
    done = subprocess.run(
        ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"],
        capture_output=True,
        text=True,
    )
    return done.stdout.strip() or "unknown"
