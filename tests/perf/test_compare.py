"""Verdicts: what counts as reached, and what a failure looks like."""

from __future__ import annotations

import pytest

from perf.compare import Results, markdown

WORKLOAD = {
    "name": "walk",
    "kind": "walk",
    "unit": "entries",
    "targets": {
        "rate": {"ratio_min": 1.1, "busy_min": 0.9},
        "cpu_per_item": {"ratio_max": 0.5},
        "start_ms": {"max": 120},
    },
}


def results(**samples):
    """Results of samples {mode: [measures, ...]}; the first mode is the base."""
    modes = [mode.replace("_", "+") for mode in samples]
    rows = [
        {"scenario": "s", "workload": "walk", "mode": mode, "run": run, **measures}
        for mode, runs in zip(modes, samples.values(), strict=True)
        for run, measures in enumerate(runs)
    ]
    report = {
        "date": "2026-01-01T00:00:00Z",
        "commit": "abc",
        "machine": {"cores": 2, "cpu": "x", "memory_gib": 1, "kernel": "6", "python": "3"},
        "modes": [{"label": mode, "tool": "nydusd", "version": "1"} for mode in modes],
        "scenarios": {"s": {"workload": [WORKLOAD]}},
        "samples": rows,
    }
    return Results([report], None)


def verdicts(found):
    return {(row.mode, row.measure): row.verdict for row in found.rows()}


def test_a_ratio_is_the_median_over_the_median_of_the_base():
    found = results(a=[{"rate": 10}, {"rate": 100}, {"rate": 20}], b=[{"rate": 30}])
    (row,) = [row for row in found.rows() if row.measure == "rate"]

    assert row.ratio == 1.5
    assert row.verdict == "ok"


@pytest.mark.parametrize(
    ("measures", "wanted"),
    [
        ({"rate": 11}, "ok"),
        ({"rate": 10.9}, "missed"),
        ({"cpu_per_item": 5}, "ok"),
        ({"cpu_per_item": 5.1}, "missed"),
        ({"start_ms": 120}, "ok"),
        ({"start_ms": 121}, "missed"),
    ],
)
def test_each_kind_of_target_has_a_verdict(measures, wanted):
    found = results(a=[{"rate": 10, "cpu_per_item": 10, "start_ms": 1}], b=[measures])

    (measure,) = measures
    assert verdicts(found)["b", measure] == wanted


def test_a_busy_program_is_compared_with_itself_only():
    found = results(a=[{"rate": 1000}], b=[{"rate": 10}], b_busy=[{"rate": 9}])

    assert verdicts(found)["b+busy : b", "rate"] == "ok"
    assert not [row for row in found.rows() if row.mode == "b+busy"]


def test_work_that_failed_is_a_missed_target_and_is_told():
    found = results(a=[{"rate": 10}], b=[{"error": "no mount"}])

    assert verdicts(found)["b", "rate"] == "missed"
    assert "s/walk/b: no mount" in markdown(found, found.rows())
