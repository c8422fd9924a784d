"""Tell what the JSON files of `perf.run` say: medians, ranges, ratios and verdicts, and a plot.

`python -m perf.compare FILE.json... [--base LABEL] [--markdown FILE] [--plot FILE.png]`. Samples of
several files are put together. The base is the first program of the first file; what every other
one must reach stands in the scenario files and is taken from the JSON. Exit status 1 if a target
is missed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SHOWN = ("rate", "cpu_per_item", "p50_us", "p99_us", "start_cpu_ms")  # beside those with a target
TITLES = {
    "p50_us": "p50, µs",
    "p99_us": "p99, µs",
    "start_ms": "start to first stat, ms",
    "start_cpu_ms": "CPU until then, ms",
    "version_ms": "`--version`, ms",
    "rss_mib": "resident, MiB",
    "over_idle_mib": "peak over idle, MiB",
    "growth_mib": "growth over the opens, MiB",
    "kept": "part of the free rate",
}
BUSY = "+busy"


@dataclass(slots=True)
class Row:
    """One measure of one workload of one program beside the base."""

    scenario: str
    workload: str
    measure: str
    title: str
    mode: str
    base: list[float]
    values: list[float]
    targets: dict[str, float] = field(default_factory=dict)

    @property
    def ratio(self) -> float | None:
        """Median over the base's median; None where there is nothing to divide."""
        if not self.base or not self.values or not statistics.median(self.base):
            return None
        return statistics.median(self.values) / statistics.median(self.base)

    @property
    def verdict(self) -> str:
        """`ok`, `missed`, or nothing where there is no target."""
        if not self.targets:
            return ""
        if not self.values:
            return "missed"
        value, ratio = statistics.median(self.values), self.ratio
        checks = {
            "min": lambda limit: value >= limit,
            "max": lambda limit: value <= limit,
            "ratio_min": lambda limit: ratio is not None and ratio >= limit,
            "ratio_max": lambda limit: ratio is not None and ratio <= limit,
        }
        good = all(checks[name](limit) for name, limit in self.targets.items())
        return "ok" if good else "missed"

    @property
    def wanted(self) -> str:
        """The targets in words."""
        signs = {"min": "≥ {}", "max": "≤ {}", "ratio_min": "≥ {}x", "ratio_max": "≤ {}x"}
        return ", ".join(signs[name].format(limit) for name, limit in self.targets.items())


def title_of(measure: str, workload: dict[str, Any]) -> str:
    """*measure* of *workload* with its unit."""
    unit = workload.get("unit", "")
    if measure == "rate":
        return f"{unit}/s"
    if measure == "cpu_per_item":
        one = {"MiB": "ms a GiB", "entries": "µs an entry", "files": "µs a file"}
        return f"daemon CPU, {one.get(unit, 'µs a read')}"
    return TITLES.get(measure, measure)


def number(value: float) -> str:
    """*value* with three digits that matter."""
    size = abs(value)
    digits = 0 if size >= 100 else 1 if size >= 10 else 2
    return f"{value:,.{digits}f}"


def spread(values: list[float]) -> str:
    """Median and, of several values, the range."""
    if not values:
        return "failed"
    middle = number(statistics.median(values))
    if len(values) == 1:
        return middle
    return f"{middle} ({number(min(values))}-{number(max(values))})"


class Results:
    """All samples of some files."""

    def __init__(self, reports: list[dict[str, Any]], base: str | None) -> None:
        self.reports = reports
        self.scenarios: dict[str, Any] = {}
        self.modes: dict[str, dict[str, Any]] = {}
        self.samples: dict[tuple[str, str, str], list[dict[str, Any]]] = defaultdict(list)
        self.errors: list[str] = []
        for report in reports:
            self.scenarios.update(report["scenarios"])
            for mode in report["modes"]:
                self.modes.setdefault(mode["label"], mode)
            for sample in report["samples"]:
                where = (sample["scenario"], sample["workload"], sample["mode"])
                if "error" in sample:
                    self.errors.append(f"{'/'.join(where)}: {sample['error']}")
                else:
                    self.samples[where].append(sample)
        self.base = base or next(iter(self.modes))

    def values(self, scenario: str, workload: str, mode: str, measure: str) -> list[float]:
        """What was measured, one value a run."""
        samples = self.samples[scenario, workload, mode]
        return [sample[measure] for sample in samples if measure in sample]

    def rows(self) -> list[Row]:
        """Every comparison that the samples allow."""
        rows = []
        for scenario, table in self.scenarios.items():
            for workload in table["workload"]:
                targets = workload.get("targets", {})
                for measure in dict.fromkeys([*SHOWN, *targets]):
                    rows += self.rows_of(scenario, workload, measure, targets.get(measure, {}))
        return rows

    def rows_of(
        self, scenario: str, workload: dict[str, Any], measure: str, targets: dict[str, float]
    ) -> list[Row]:
        """One row for each program that is not the base."""
        rows = []
        name = workload["name"]
        title = title_of(measure, workload)
        plain = {key: limit for key, limit in targets.items() if key != "busy_min"}
        for mode in self.modes:
            quiet = mode.removesuffix(BUSY)
            values = self.values(scenario, name, mode, measure)
            failed = bool(targets) and self.has_failed(scenario, name, mode)
            if mode == self.base or not (values or failed):
                continue
            if mode == quiet:
                base = self.values(scenario, name, self.base, measure)
                rows.append(Row(scenario, name, measure, title, mode, base, values, plain))
            elif "busy_min" in targets:
                # Beside the same program at leisure: what its busy thread costs.
                base = self.values(scenario, name, quiet, measure)
                limit = {"ratio_min": targets["busy_min"]}
                label = f"{mode} : {quiet}"
                rows.append(Row(scenario, name, measure, title, label, base, values, limit))
        return rows

    def has_failed(self, scenario: str, workload: str, mode: str) -> bool:
        """Whether *mode* was asked to do the work and gave nothing but errors."""
        return any(
            error.startswith((f"{scenario}/{workload}/{mode}:", f"{scenario}/*/{mode}:"))
            for error in self.errors
        )


def markdown(results: Results, rows: list[Row]) -> str:
    """The figures as a Markdown text: where they come from, then one table."""
    lines = []
    for report in results.reports:
        where = report["machine"]
        lines.append(
            f"{report['date']}, commit {report['commit']}; {where['cores']} cores"
            f" ({where['cpu']}), {where['memory_gib']} GiB, Linux {where['kernel']},"
            f" Python {where['python']}."
        )
    lines += [
        f"`{mode['label']}`: {mode['tool']}, version {mode['version']}."
        for mode in results.modes.values()
    ]
    counts = [len(row.values) for row in rows]
    if counts:
        lines.append(f"Medians and ranges of {max(counts)} interleaved runs.")
    head = f"| workload | measure | {results.base} | other | its figure | ratio | target | |"
    lines += ["", head, "|---|---|---|---|---|---|---|---|"]
    for row in rows:
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}x"
        verdict = f"**{row.verdict}**" if row.verdict == "missed" else row.verdict
        cells = [row.workload, row.title, spread(row.base), row.mode, spread(row.values), ratio]
        lines.append("| " + " | ".join([*cells, row.wanted, verdict]) + " |")
    if results.errors:
        lines += ["", "Failures:", "", *(f"- {error}" for error in results.errors)]
    return "\n".join(lines) + "\n"


def plot(results: Results, rows: list[Row], path: Path) -> None:
    """Bars of the rates over the base's, with the targets marked, as an image in *path*."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    shown = [row for row in rows if row.measure == "rate" and row.ratio and " : " not in row.mode]
    names = list(dict.fromkeys(row.workload for row in shown))
    modes = list(dict.fromkeys(row.mode for row in shown))
    if not shown:
        raise SystemExit("nothing to plot: no rates of a second program")
    figure, axes = plt.subplots(figsize=(9, 1.2 + 0.35 * len(names) * max(len(modes), 1)))
    height = 0.8 / len(modes)
    for place, mode in enumerate(modes):
        mine = [row for row in shown if row.mode == mode]
        spots = [names.index(row.workload) + (place + 0.5) * height - 0.4 for row in mine]
        bars = axes.barh(spots, [row.ratio or 0 for row in mine], height * 0.9, label=mode)
        axes.bar_label(bars, fmt="%.2fx", padding=3, fontsize=8)
    for row in shown:
        if "ratio_min" in row.targets:
            spot, limit = names.index(row.workload), row.targets["ratio_min"]
            axes.plot([limit, limit], [spot - 0.45, spot + 0.45], color="black", linewidth=1.5)
    axes.axvline(1, color="grey", linestyle=":", linewidth=1)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlabel(f"rate over {results.base}; black: target")
    if len(modes) > 1:
        axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> int:
    """Print the table; 1 if a target is missed."""
    parser = argparse.ArgumentParser(prog="python -m perf.compare", description=__doc__)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--base", metavar="LABEL", help="what the ratios are over")
    parser.add_argument("--markdown", type=Path, metavar="FILE")
    parser.add_argument("--plot", type=Path, metavar="FILE.png")
    args = parser.parse_args()
    results = Results([json.loads(path.read_text()) for path in args.files], args.base)
    if results.base not in results.modes:
        parser.error(f"no program {results.base}; there are: {' '.join(results.modes)}")
    rows = results.rows()
    text = markdown(results, rows)
    print(text, end="")
    if args.markdown:
        args.markdown.write_text(text)
    if args.plot:
        plot(results, rows, args.plot)
    return int(any(row.verdict == "missed" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
