from hypothesis import given
from hypothesis import strategies as st

from nydusd.cache.plan import plan_requests

KIB = 1 << 10
MIB = 1 << 20


def test_neighbours_become_one_request():
    assert plan_requests([(0, 100), (100, 50)], 0) == [(0, 150)]


def test_without_a_batch_size_no_gap_is_fetched():
    assert plan_requests([(0, 100), (101, 50)], 0) == [(0, 100), (101, 50)]


def test_a_gap_of_a_128th_of_the_batch_is_fetched_along():
    assert plan_requests([(0, 100), (100 + 8 * KIB, 50)], MIB) == [(0, 150 + 8 * KIB)]
    assert len(plan_requests([(0, 100), (101 + 8 * KIB, 50)], MIB)) == 2


def test_a_request_is_at_most_one_and_a_half_batches_or_192_kib():
    chunks = [(i * 64 * KIB, 64 * KIB) for i in range(20)]
    assert plan_requests(chunks, 0)[0] == (0, 192 * KIB)
    assert plan_requests(chunks * 2, MIB) == [(0, 1280 * KIB)]
    chunks = [(i * 64 * KIB, 64 * KIB) for i in range(32)]
    assert plan_requests(chunks, MIB) == [(0, 1536 * KIB), (1536 * KIB, 512 * KIB)]


def test_two_chunks_that_are_longer_than_half_a_batch_are_one_request():
    assert plan_requests([(0, 600 * KIB), (600 * KIB, 936 * KIB)], MIB) == [(0, 1536 * KIB)]
    assert len(plan_requests([(0, 600 * KIB), (600 * KIB, 937 * KIB)], MIB)) == 2
    half = MIB // 2 + 1
    chunks = [(i * half, half) for i in range(4)]
    assert plan_requests(chunks, MIB) == [(0, 2 * half), (2 * half, 2 * half)]


def test_one_chunk_may_be_longer_than_a_batch():
    assert plan_requests([(0, 4 * MIB), (4 * MIB, 1)], MIB) == [(0, 4 * MIB), (4 * MIB, 1)]


@given(
    places=st.lists(
        st.tuples(st.integers(0, 1 << 62), st.integers(0, 1 << 24)), min_size=1, max_size=40
    ),
    batch_size=st.sampled_from([0, 1, 4096, MIB, 1 << 32]),
)
def test_every_chunk_lies_in_a_request(places, batch_size):
    requests = plan_requests(places, batch_size)
    for offset, size in places:
        assert any(
            start <= offset and offset + size <= start + length for start, length in requests
        )
    assert [start for start, _ in requests] == sorted(start for start, _ in requests)
