"""Every cell of the fault matrix. The cells run side by side: most of them only wait."""

from __future__ import annotations

import logging
import re
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.conftest import REFERENCE_IMAGES
from tests.faults.images import KINDS, make_images, zran_image
from tests.faults.matrix import BY_NAME, MARKERS, Cell, LogLines, Result, table

AT_A_TIME = 16
PAGE = Path(__file__).parents[2] / "docs" / "operations" / "backends.md"
CELLS = [
    *((name, kind, False) for name in BY_NAME for kind in KINDS),
    *((name, "v6", True) for name in BY_NAME),
]

pytestmark = [pytest.mark.usefixtures("caplog"), pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def cells(request, tmp_path_factory):
    """The running cells that this session's tests ask for, by (fault, kind, mirrored)."""
    folder = tmp_path_factory.mktemp("matrix")
    images = make_images(folder)
    if REFERENCE_IMAGES.is_dir():
        images["zran"] = zran_image(REFERENCE_IMAGES / "v6-targz-ref")
    wanted = [
        item.callspec.params["cell"]
        for item in request.session.items
        if item.path == request.path and hasattr(item, "callspec")
    ]
    listener = LogLines()
    logger = logging.getLogger("nydusd")
    logger.addHandler(listener)
    level = logger.level
    logger.setLevel(logging.DEBUG)
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        running: dict[tuple[str, str, bool], Future[Result]] = {}
        for number, key in enumerate(dict.fromkeys(wanted)):
            name, kind, mirrored = key
            if kind not in images:
                continue
            cell = Cell(BY_NAME[name], images[kind], folder / str(number), mirrored=mirrored)
            running[key] = pool.submit(cell.run)
        yield running, listener
    logger.setLevel(level)
    logger.removeHandler(listener)


def name_of(cell):
    name, kind, mirrored = cell
    return f"{name}-{kind}{'-mirrored' if mirrored else ''}"


@pytest.mark.parametrize("cell", CELLS, ids=name_of)
def test_a_read_ends_as_it_should_and_the_next_one_is_right(cells, cell):
    running, _ = cells
    if cell not in running:
        pytest.skip("no reference images: there is none of this kind here")
    result = running[cell].result()
    fault = BY_NAME[cell[0]]
    expected = fault.mirrored if cell[2] else fault.outcome
    if cell[1] == "zran":
        expected = fault.zran or expected

    assert not result.wrong
    assert (result.cold, result.warm) == (expected, expected)
    for message in result.messages:
        assert not any(marker in message for marker in MARKERS)


def test_no_secret_is_in_any_log_line(cells):
    running, listener = cells
    for future in running.values():
        future.result()

    assert not [line for line in listener.lines if any(marker in line for marker in MARKERS)]


def test_the_documentation_has_the_table():
    written = re.search(r"<!-- fault matrix -->\n(.*?)\n<!-- end -->", PAGE.read_text(), re.S)

    assert written is not None
    assert written[1] == table()
