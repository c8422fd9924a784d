"""What `nydusctl` prints, in the lines of the reference's: scripts read them."""

import json
import time
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any, Final

SIZE_LABELS: Final = ("<1K", "1K~", "4K~", "16K~", "64K~", "128K~", "512K~", "1M~")
LATENCY_LABELS: Final = ("<1ms", "~20ms", "~50ms", "~100ms", "~500ms", "~1s", "~2s", "2s~")
FOP_LABELS: Final = (
    "Getattr", "Readlink", "Open", "Release", "Read", "Statfs", "Getxattr", "Listxattr",
    "Opendir", "Lookup", "Readdir", "Readdirplus", "Access", "Forget", "BatchForget",
)  # fmt: skip
FOPS_A_LINE: Final = 8
MIB: Final = 1 << 20


def raw_text(value: object) -> str:
    """*value* as one line of JSON, keys in order."""
    return json.dumps(value, separators=(",", ":"), sort_keys=True)


def quoted(value: object) -> str:
    """A string in quotes, as JSON has it."""
    return json.dumps(value, ensure_ascii=False)


def number(value: float) -> str:
    """*value* without an exponent, whole ones without a fraction."""
    if value != value:
        return "NaN"
    text = f"{Decimal(repr(float(value))):f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def row(label: str, width: int, cells: Iterable[object]) -> str:
    """*label*, then each cell in eight columns."""
    return label.ljust(width) + "".join(f"{cell!s:<8}" for cell in cells)


def info_text(info: dict[str, Any]) -> str:
    """`nydusctl info`."""
    version = info["version"]
    lines = [
        "",
        f"Version:                {quoted(version['package_ver'])}",
        f"Status:                 {quoted(info['state'])}",
        f"Profile:                {quoted(version['profile'])}",
        f"Commit:                 {quoted(version['git_commit'])}",
        "Instances:",
    ]
    for path, mount in (info.get("backend_collection") or {}).items():
        lines += [
            f"\tInstance Mountpoint:  {path}",
            f"\tType:  {mount['backend_type']}",
            f"\tMounted Time:  {mount['mounted_time']}",
        ]
        rafs = (mount.get("config") or {}).get("rafs")
        if rafs is not None:
            lines += [
                f"\tMode:  {rafs['mode']}",
                f"\tPrefetch:  {str(rafs['prefetch']['enable']).lower()}",
                f"\tPrefetch Merging Size:  {rafs['prefetch']['batch_size']}",
            ]
        lines.append("")
    return "\n".join(lines)


def fsstats_text(found: dict[str, Any]) -> str:
    """`nydusctl metrics fsstats`."""
    hits = found["fop_hits"]
    fops = [f"{name}({count})" for name, count in zip(FOP_LABELS, hits, strict=False)]
    lines = [
        "",
        row("Read Latency:", 16, LATENCY_LABELS),
        row("Reads Count:", 16, found["read_latency_dist"]),
        "",
        f"Read Errors: {found['fop_errors'][4]}",
        f"Read Data: {found['data_read']}Bytes ({found['data_read'] // MIB}MB)",
        "",
        "FOP Counters:",
    ]
    lines += [
        " ".join(fops[start : start + FOPS_A_LINE]) for start in range(0, len(fops), FOPS_A_LINE)
    ]
    return "\n".join(lines)


def backend_text(found: dict[str, Any]) -> str:
    """`nydusctl metrics backend`."""
    amount = found["read_amount_total"]
    return "\n".join(
        [
            "",
            f"Backend Type:       {quoted(found['backend_type'])}",
            f"Read Amount:        {amount} Bytes ({number(amount / MIB)} MB)",
            f"Read Count:         {found['read_count']}",
            f"Read Errors:        {found['read_errors']}",
            "",
            row("Block Sizes:", 25, SIZE_LABELS),
            row("Average Latency(millis):", 25, average_latencies(found)),
            "",
            row("Block Sizes:", 25, SIZE_LABELS),
            row("Request Count:", 25, found["read_count_block_size_dist"]),
        ]
    )


# The middle of each latency class, in milliseconds: the daemon tells how many requests were in a
# class, not what each of them took.
CLASS_MILLISECONDS: Final = (0, 10, 35, 75, 300, 750, 1500, 2000)


def average_latencies(found: dict[str, Any]) -> list[int]:
    """Milliseconds of a request, by its size, from the classes that the daemon counts."""
    return [_average(counts) for counts in found["read_latency_sizes_dist"]]


def _average(counts: Sequence[int]) -> int:
    total = sum(counts)
    weighted = sum(n * each for n, each in zip(counts, CLASS_MILLISECONDS, strict=False))
    return weighted // total if total else 0


def backend_change_text(before: dict[str, Any], now: dict[str, Any], seconds: float) -> str:
    """`nydusctl metrics backend -I`: what came between two looks."""
    count = now["read_count"] - before["read_count"]
    amount = now["read_amount_total"] - before["read_amount_total"]
    millis = (
        now["read_cumulative_latency_millis_total"] - before["read_cumulative_latency_millis_total"]
    )
    sizes = [
        after - first
        for after, first in zip(
            now["read_count_block_size_dist"], before["read_count_block_size_dist"], strict=True
        )
    ]
    return "\n".join(
        [
            "",
            ">>> >>> >>> >>> >>>",
            f"Backend Read Bandwidth:     {number(amount / 1024 / seconds)} KB/S",
            f"Backend Average IO Size:    {amount // count if count else 0} Bytes",
            f"Backend Average Latency:    {millis // count if count else 0} millis",
            "",
            "Block Sizes/millis:",
            row("", 0, SIZE_LABELS),
            row("", 0, sizes),
            "<<< <<< <<< <<< <<<",
        ]
    )


def cache_text(found: dict[str, Any]) -> str:
    """`nydusctl metrics cache`."""
    amount, requests = found["prefetch_data_amount"], found["prefetch_requests_count"]
    begin = found["prefetch_begin_time_secs"] + found["prefetch_begin_time_millis"] / 1000
    end = found["prefetch_end_time_secs"] + found["prefetch_end_time_millis"] / 1000
    seconds = max(0.0, end - begin)
    bandwidth = amount / MIB / seconds if seconds else float("nan")
    latency = found["prefetch_cumulative_time_millis"] / 1000 / requests if requests else None
    return "\n".join(
        [
            "",
            f"Partial Hits:               {found['partial_hits']}",
            f"Whole Hits:                 {found['whole_hits']}",
            f"Total Read:                 {found['total']}",
            f"Directory:                  {quoted(found['store_path'])}",
            f"Files:                      {raw_text(found['underlying_files'])}",
            f"Persister Buffer:           {found['buffered_backend_size']}",
            "",
            f"Prefetch Workers:           {found['prefetch_workers']}",
            f"Prefetch Amount:            {amount} = {number(amount / 1024)} KB",
            f"Prefetch Requests:          {requests}",
            f"Prefetch Average Size:      {amount // requests if requests else 0} Bytes",
            f"Prefetch Duration:          {number(seconds)} Seconds",
            f"Prefetch Bandwidth:         {number(bandwidth)} MB/S",
            f"Prefetch Request Latency:   "
            f"{number(float('nan') if latency is None else latency)} Seconds",
            f"Prefetch Unmerged:          {found['prefetch_unmerged_chunks']}",
        ]
    )


def debug_form(value: object) -> str:
    """*value*, JSON, as the reference prints the error of a failed request."""
    if isinstance(value, dict):
        fields = ", ".join(f"{quoted(name)}: {debug_form(each)}" for name, each in value.items())
        return f"Object({{{fields}}})"
    if isinstance(value, list):
        return f"Array([{', '.join(debug_form(each) for each in value)}])"
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'String("{escaped}")'
    if value is None:
        return "Null"
    if isinstance(value, bool):
        return f"Bool({str(value).lower()})"
    return f"Number({value})"


# --- what the reference does not have


def size_text(count: float) -> str:
    """*count* bytes in the unit that fits."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(count) < 1024 or unit == "TiB":
            break
        count /= 1024
    return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"


def share_text(part: int, whole: int) -> str:
    """*part* of *whole* in per cent."""
    return f"{100 * part / whole:.1f}%" if whole else "-"


def blobs_text(blobs: list[dict[str, Any]]) -> str:
    """`nydusctl cache`: one line a blob."""
    lines = [
        f"{'BLOB':<16} {'SIZE':>10} {'CHUNKS':>9} {'LOCAL':>7} {'HITS':>9} {'MISSES':>8} "
        f"{'FETCHED':>10} {'CORRUPT':>7}"
    ]
    lines += [
        f"{blob['blob_id'][:16]:<16} {size_text(blob['uncompressed_size']):>10} "
        f"{blob['chunks']:>9} {share_text(blob['ready_chunks'], blob['chunks']):>7} "
        f"{blob['hits']:>9} {blob['misses']:>8} {size_text(blob['backend_bytes']):>10} "
        f"{blob['corrupt_chunks']:>7}"
        for blob in blobs
    ]
    return "\n".join(lines)


def prefetch_text(found: dict[str, Any]) -> str:
    """`nydusctl prefetch`: one line a mount, as it is now."""
    now = time.time()
    lines = [
        f"{'MOUNT':<20} {'STATE':<9} {'CHUNKS':>15} {'LOCAL':>7} {'FETCHED':>10} {'RATE':>12} "
        f"{'SECONDS':>8}"
    ]
    for path, state in found.items():
        if state is None:
            lines.append(f"{path:<20} {'none':<9}")
            continue
        begin = state["begin_time"]
        seconds = max(0.0, (state["end_time"] or now) - begin) if begin else 0.0
        rate = state["data_bytes"] / seconds if seconds else 0.0
        chunks = f"{state['ready_chunks']}/{state['total_chunks']}"
        lines.append(
            f"{path:<20} {state['state']:<9} {chunks:>15} "
            f"{share_text(state['ready_chunks'], state['total_chunks']):>7} "
            f"{size_text(state['data_bytes']):>10} {size_text(rate) + '/s':>12} {seconds:>8.1f}"
        )
    return "\n".join(lines)
