"""The counters of a daemon as the JSON tables of its API (spec: http-api, metrics).

Everything here is a look at what others count; nothing waits. `NoCounter` when there is nothing
under a name, or no name and more than one candidate.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nydusd.cache.metered import MeteredBackend
from nydusd.daemon.errors import NoCounter
from nydusd.daemon.mount_request import MountKind
from nydusd.fs.stats import FOP_NAMES, LATENCY_BOUNDS_MICROSECONDS, SIZE_BOUNDS_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from nydusd.cache.cached_blob import CachedBlob
    from nydusd.cache.prefetch import PrefetchProgress
    from nydusd.daemon.mounts import Mount, Mounts
    from nydusd.fs.stats import FsStats

__all__ = ["FOP_NAMES", "LATENCY_BOUNDS_MICROSECONDS", "SIZE_BOUNDS_BYTES"]  # and what is here

FUSE_READ = 4  # index of reads among the operations


def images(mounts: Mounts) -> dict[str, Mount]:
    """The mounts that show an image, by their path."""
    return {
        path: mount for path, mount in mounts.list().items() if mount.request.kind is MountKind.RAFS
    }


def find_mount(mounts: Mounts, path: str | None) -> tuple[str, Mount]:
    """The image mounted at *path*, or the only one; `NoCounter`."""
    found = images(mounts)
    if path is None and len(found) == 1:
        return next(iter(found.items()))
    if path is None or path not in found:
        raise NoCounter(f"no counters of {path or 'a mount without a name'}")
    return path, found[path]


def stats_of(mount: Mount) -> FsStats:
    """What is counted of the mount's file system."""
    stats = mount.image.filesystem.stats
    if stats is None:
        raise NoCounter("nothing is counted of this mount")
    return stats


# --- file systems


def fs_metrics(path: str, mount: Mount) -> dict[str, Any]:
    """Operations and reads of one mount."""
    rafs = mount.request.config.rafs
    assert rafs is not None
    counted = stats_of(mount).snapshot()
    read_microseconds = counted.pop("read_ns") // 1000
    latencies = [0] * len(counted["fop_hits"])
    latencies[FUSE_READ] = read_microseconds
    return {
        "files_account_enabled": rafs.iostats_files,
        "access_pattern_enabled": rafs.access_pattern,
        "record_latest_read_files_enabled": rafs.latest_read_files,
        "measure_latency": True,
        "id": path,
        "nr_opens": 0,
        "data_read": counted["data_read"],
        "block_count_read": counted["block_count_read"],
        "fop_hits": counted["fop_hits"],
        "fop_errors": counted["fop_errors"],
        "fop_cumulative_latency_total": latencies,
        "read_latency_dist": counted["read_latency_dist"],
    }


def file_metrics(mount: Mount) -> dict[str, Any]:
    """Counters of each file, by its inode number; empty when they were not asked for."""
    return {str(ino): counted for ino, counted in stats_of(mount).files_snapshot().items()}


def latest_read_files(mount: Mount) -> list[list[int]]:
    """Files read since the last call, as runs of inode numbers: one number, or first and last."""
    runs: list[list[int]] = []
    for ino in stats_of(mount).take_latest_reads():
        if runs and ino == runs[-1][-1] + 1:
            runs[-1] = [runs[-1][0], ino]
        else:
            runs.append([ino])
    return runs


def access_pattern(mount: Mount) -> list[dict[str, int]]:
    """How often each file was read, and when first."""
    return [
        {
            "ino": ino,
            "nr_read": reads,
            "first_access_time_secs": first // 10**9,
            "first_access_time_nanos": first % 10**9,
        }
        for ino, reads, first in stats_of(mount).first_reads()
    ]


# --- below the file systems


def backend_metrics(mount: Mount) -> dict[str, Any]:
    """What was asked of the mount's backend; mounts with the same backend share it."""
    backend = mount.image.backend
    if not isinstance(backend, MeteredBackend):
        raise NoCounter("nothing is counted of this backend")
    return backend.metrics.snapshot()


def cache_mounts(mounts: Mounts, config_id: str | None) -> list[Mount]:
    """The mounts whose configuration is called *config_id*, or all when there is only one name."""
    found = images(mounts).values()
    names = {mount.request.config.id for mount in found}
    if config_id is None and len(names) == 1:
        return list(found)
    wanted = [mount for mount in found if mount.request.config.id == config_id]
    if not wanted:
        raise NoCounter(f"no cache counters of {config_id or 'a configuration without a name'}")
    return wanted


def blobs_of(mounts: Iterable[Mount]) -> list[CachedBlob]:
    """The blobs of *mounts*, each once."""
    blobs = (blob for mount in mounts for blob in mount.image.device.blobs if blob is not None)
    return list({id(blob): blob for blob in blobs}.values())


def cache_metrics(mounts: list[Mount]) -> dict[str, Any]:
    """What the cache of *mounts*, which share a configuration's name, has done."""
    cache = mounts[-1].request.config.cache
    assert cache is not None
    blobs = blobs_of(mounts)
    counted = [blob.counters.snapshot() for blob in blobs]
    hits = sum(each["hits"] for each in counted)
    return {
        "underlying_files": [f"{blob.info.blob_id}.blob.data" for blob in blobs],
        "store_path": cache.filecache.work_dir if cache.filecache is not None else "",
        "partial_hits": hits,
        "whole_hits": sum(each["whole_hits"] for each in counted),
        "total": hits + sum(each["misses"] for each in counted),
        "entries_count": sum(each["kept_chunks"] for each in counted),
        **prefetch_metrics(mounts, counted),
        "buffered_backend_size": sum(blob.buffered for blob in blobs),
        "data_all_ready": bool(blobs) and all(blob.complete for blob in blobs),
    }


def prefetch_metrics(mounts: list[Mount], counted: list[dict[str, int]]) -> dict[str, int]:
    """What was fetched in the background, and when."""
    progress = progress_of(mounts)
    begins = [each.begin_time for each in progress if each.begin_time]
    ends = [each.end_time for each in progress]
    begin = min(begins, default=0.0)
    end = max(ends, default=0.0) if all(ends) else 0.0
    return {
        "prefetch_data_amount": sum(each["prefetch_bytes"] for each in counted),
        "prefetch_requests_count": sum(each["prefetch_requests"] for each in counted),
        "prefetch_workers": sum(each.workers for each in progress),
        "prefetch_unmerged_chunks": sum(each["prefetch_chunks"] for each in counted),
        "prefetch_cumulative_time_millis": int(1000 * sum(each.busy_seconds for each in progress)),
        "prefetch_begin_time_secs": int(begin),
        "prefetch_begin_time_millis": int(begin * 1000) % 1000,
        "prefetch_end_time_secs": int(end),
        "prefetch_end_time_millis": int(end * 1000) % 1000,
    }


def progress_of(mounts: Iterable[Mount]) -> list[PrefetchProgress]:
    """How far the prefetches of *mounts* have come."""
    found = (mount.image.prefetcher for mount in mounts)
    return [prefetcher.progress() for prefetcher in found if prefetcher is not None]


def prefetch_state(mount: Mount) -> dict[str, Any] | None:
    """How far the prefetch of *mount* has come; None when it has none."""
    found = progress_of([mount])
    return found[0]._asdict() if found else None


def blob_state(blob: CachedBlob) -> dict[str, Any]:
    """One blob: what of it is on local disk, and what has been asked of it."""
    file = blob.file
    return {
        "blob_id": blob.info.blob_id,
        "uncompressed_size": blob.info.uncompressed_size,
        "compressed_size": blob.info.compressed_size,
        "chunks": blob.chunks.count,
        "ready_chunks": blob.chunks.ready_count() if file is not None else 0,
        "file": str(file.path) if file is not None else None,
        **blob.counters.snapshot(),
    }
