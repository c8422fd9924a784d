import pytest

from nydusd.build.pack import Batch, pieces, runs


def batch(*sizes: int) -> Batch:
    data = bytearray(range(sum(sizes)))
    return Batch(bytearray(data) + bytes(10), sizes=list(sizes), used=len(data))


@pytest.mark.parametrize(
    ("positions", "joined"),
    [
        ([0, 1, 2, 3], [10]),
        ([], []),
        ([0], [1]),
        ([3], [4]),
        ([0, 1, 3], [3, 4]),
        ([1, 2], [5]),
        ([0, 2], [1, 3]),
    ],
)
def test_neighbours_are_joined_and_nothing_else_is_written(positions, joined):
    made = batch(1, 2, 3, 4)

    found = runs(made, positions)

    assert [len(run) for run in found] == joined
    assert b"".join(found) == b"".join(pieces(made, positions))


def test_pieces_are_the_chunks_at_their_positions():
    assert [bytes(piece) for piece in pieces(batch(1, 2, 3), [0, 2])] == [b"\0", b"\3\4\5"]
