"""A rate window allows the starts of its rate, and no more."""

from hypothesis import given, settings
from hypothesis import strategies as st

from eventjobs.attempts.rate_window import RateWindow
from eventjobs.domain.limits import Rate

PERIOD_US = 1_000_000


@settings(max_examples=200)
@given(
    st.integers(1, 5),
    st.lists(st.integers(-2 * PERIOD_US, 0), max_size=10),
    st.lists(st.tuples(st.integers(0, 500_000), st.booleans(), st.integers(0, 3)), max_size=60),
)
def test_a_window_never_lets_more_start_than_its_rate_says(
    count: int, before: list[int], steps: list[tuple[int, bool, int]]
) -> None:
    """With the starts from before, which are in no order: the wall clock may have been set back."""
    window = RateWindow(Rate(count, 1))
    assert window.opens_us(0) is None, "nothing starts before these are known"
    window.load(before)
    begun = list(before)
    waiting, now_us = 0, 0

    def started_lately() -> int:
        return waiting + sum(now_us - PERIOD_US < each for each in begun)

    for passed_us, starts, later in steps:
        now_us += passed_us
        at_us = window.opens_us(now_us)
        is_open = at_us is not None and at_us <= now_us
        assert is_open == (started_lately() < count)
        if is_open:
            window.reserve()
            waiting += 1
        elif at_us is not None:
            now_us = at_us - 1
            assert window.opens_us(now_us) == at_us, "not before it says"
            assert started_lately() >= count
            now_us = at_us
            assert window.opens_us(now_us) == now_us, "nor later"
        while waiting > later:
            waiting -= 1
            if starts:
                window.record_start(now_us)
                begun.append(now_us)
            else:
                window.cancel()
