"""The addresses behind a name: which are asked, and when the name is resolved."""

from hypothesis import given
from hypothesis import strategies as st

from ppsd.ntp.pool import LONGEST_RETRY_NS, REST_NS, WRONG_NS, Change, Pool, outvoted
from refclock.sample import NS

FOUR = ["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"]


def test_a_pool_asks_as_many_as_it_may() -> None:
    """Of more addresses the first are taken, and nothing more is wanted."""
    pool = Pool(3, 0)
    assert pool.resolved(FOUR, 0) == Change(("192.0.2.1", "192.0.2.2", "192.0.2.3"))
    assert pool.due_ns is None


def test_a_name_that_gives_too_few_is_asked_again() -> None:
    """A pool whose name gives some addresses at a time fills up from later answers."""
    pool = Pool(4, 0)
    pool.resolved(FOUR[:2], 0)
    assert pool.due_ns == 2 * NS
    assert pool.resolved(FOUR[1:], 2 * NS).begin == ("192.0.2.3", "192.0.2.4")
    assert pool.due_ns is None


def test_a_server_that_is_wrong_for_long_is_replaced() -> None:
    """Wrong for a while it stays, for that may be its path; wrong for a quarter of an hour it goes, though it answers."""
    pool, now_ns = Pool(2, 0), WRONG_NS
    pool.resolved(FOUR[:2], 0)
    for wrong in (["192.0.2.1"], [], ["192.0.2.1"]):
        pool.judged(wrong, now_ns)
        now_ns += WRONG_NS // 2
    assert pool.due_ns is None
    pool.judged(["192.0.2.1"], now_ns + WRONG_NS)
    pool.works("192.0.2.1")
    assert pool.due_ns == now_ns + WRONG_NS
    assert pool.resolved(FOUR[:2], now_ns + WRONG_NS) == Change()
    assert pool.due_ns is not None
    assert pool.resolved(FOUR, pool.due_ns) == Change(("192.0.2.3",), ("192.0.2.1",))
    assert pool.due_ns is None


def test_who_is_wrong_is_decided_by_more_than_half() -> None:
    """A receiver that lies makes every honest server contradict it: none of them is lost for that. Where no majority agrees, and so nothing
    is served, all are drawn anew."""
    assert outvoted({"a": "x", "b": "-", "c": "*", "d": "?"}, served=True) == {"a"}
    assert outvoted({"a": "x", "b": "x", "c": "-", "d": "-"}, served=True) == set()
    assert outvoted({"a": "x"}, served=True) == set()
    assert outvoted({"a": "x", "b": "x", "c": "x", "d": "?"}, served=False) == {"a", "b", "c"}


def test_a_name_that_does_not_resolve_yet() -> None:
    """Tried again and again, at growing intervals, and at once when the network changes."""
    pool, now_ns = Pool(1, 0), 0
    for _ in range(20):
        pool.asked()
        assert pool.due_ns is None
        pool.resolved([], now_ns)
        assert pool.due_ns is not None
        assert pool.due_ns - now_ns <= LONGEST_RETRY_NS
        now_ns = pool.due_ns
    pool.resolved([], now_ns)
    pool.wake(now_ns + NS)
    assert pool.due_ns == now_ns + NS


def test_a_silent_server_gives_its_place_to_another() -> None:
    """As soon as the name has another address, and it is not taken again at once."""
    pool = Pool(1, 0)
    pool.resolved(["192.0.2.1"], 0)
    pool.failing("192.0.2.1", NS)
    assert pool.due_ns == NS
    assert pool.resolved(["192.0.2.1"], NS) == Change()
    assert pool.addresses == ["192.0.2.1"]
    assert pool.resolved(["192.0.2.1", "192.0.2.9"], 3 * NS) == Change(("192.0.2.9",), ("192.0.2.1",))
    pool.failing("192.0.2.9", 4 * NS)
    assert pool.resolved(["192.0.2.1"], 4 * NS) == Change()
    assert pool.resolved(["192.0.2.1"], 4 * NS + REST_NS) == Change(("192.0.2.1",), ("192.0.2.9",))


def test_one_that_answers_again_stays() -> None:
    """Its place is not given away any more."""
    pool = Pool(1, 0)
    pool.resolved(["192.0.2.1"], 0)
    pool.failing("192.0.2.1", NS)
    pool.works("192.0.2.1")
    assert pool.resolved(["192.0.2.9"], 2 * NS) == Change()
    assert pool.due_ns is None


@given(st.integers(1, 5), st.lists(st.tuples(st.lists(st.sampled_from(FOUR), max_size=6), st.lists(st.sampled_from(FOUR))), max_size=20))
def test_never_more_than_most_and_none_twice(most: int, turns: list[tuple[list[str], list[str]]]) -> None:
    """Whatever resolves and fails: at most so many, each once, and what is told of begin and end adds up to what is in use."""
    pool, told = Pool(most, 0), set[str]()
    for turn, (found, fail) in enumerate(turns):
        change = pool.resolved(found, turn * NS)
        assert not told & set(change.begin)
        told = (told | set(change.begin)) - set(change.end)
        assert told == set(pool.addresses)
        assert len(pool.addresses) == len(told) <= most
        for address in fail:
            pool.failing(address, turn * NS)
