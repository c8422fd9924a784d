"""Lines of nydusctl; those of the reference were printed by its own program from these figures."""

from nydusd.cli import control_text

COUNTED = {
    "underlying_files": ["ab.blob.data"],
    "store_path": "/cache",
    "partial_hits": 1,
    "whole_hits": 0,
    "total": 1,
    "prefetch_data_amount": 10113,
    "prefetch_requests_count": 1,
    "prefetch_workers": 2,
    "prefetch_unmerged_chunks": 0,
    "prefetch_cumulative_time_millis": 41,
    "prefetch_begin_time_secs": 1795523232,
    "prefetch_begin_time_millis": 380,
    "prefetch_end_time_secs": 1795523232,
    "prefetch_end_time_millis": 422,
    "buffered_backend_size": 0,
}


def test_cache_metrics_look_as_the_reference_prints_them():
    assert control_text.cache_text(COUNTED).splitlines() == [
        "",
        "Partial Hits:               1",
        "Whole Hits:                 0",
        "Total Read:                 1",
        'Directory:                  "/cache"',
        'Files:                      ["ab.blob.data"]',
        "Persister Buffer:           0",
        "",
        "Prefetch Workers:           2",
        "Prefetch Amount:            10113 = 9.8759765625 KB",
        "Prefetch Requests:          1",
        "Prefetch Average Size:      10113 Bytes",
        "Prefetch Duration:          0.04199981689453125 Seconds",
        "Prefetch Bandwidth:         0.22963215258855585 MB/S",
        "Prefetch Request Latency:   0.041 Seconds",
        "Prefetch Unmerged:          0",
    ]


def test_without_a_prefetch_there_is_no_bandwidth():
    text = control_text.cache_text(
        {**COUNTED, **{name: 0 for name in COUNTED if name.startswith("prefetch")}}
    )

    assert "Prefetch Bandwidth:         NaN MB/S" in text
    assert "Prefetch Request Latency:   NaN Seconds" in text


def test_numbers_are_written_without_an_exponent():
    assert control_text.number(73 / 1048576) == "0.00006961822509765625"
    assert control_text.number(0.0) == "0"
    assert control_text.number(9.8759765625) == "9.8759765625"


def test_an_error_is_shown_in_the_debug_form():
    error = {"code": "UNDEFINED", "message": 'Other("x")', "n": [1, None, True]}

    assert control_text.debug_form(error) == (
        'Object({"code": String("UNDEFINED"), "message": String("Other(\\"x\\")"), '
        '"n": Array([Number(1), Null, Bool(true)])})'
    )


def test_a_prefetch_is_one_line_a_mount():
    state = {
        "state": "running",
        "ready_chunks": 5,
        "total_chunks": 20,
        "data_bytes": 5 << 20,
        "begin_time": 100.0,
        "end_time": 110.0,
    }
    lines = control_text.prefetch_text({"/a": state, "/b": None}).splitlines()

    assert lines[1].split() == ["/a", "running", "5/20", "25.0%", "5.0", "MiB", "512.0", "KiB/s",
                                "10.0"]  # fmt: skip
    assert lines[2].split() == ["/b", "none"]


def test_sizes_have_the_unit_that_fits():
    assert [control_text.size_text(n) for n in (0, 1023, 1024, 5 << 30, 1 << 60)] == [
        "0 B", "1023 B", "1.0 KiB", "5.0 GiB", "1048576.0 TiB",
    ]  # fmt: skip
