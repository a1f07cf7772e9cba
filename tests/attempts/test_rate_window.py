"""A rate window allows the starts of its rate, and no more."""

from hypothesis import given, settings
from hypothesis import strategies as st

from eventjobs.attempts.rate_window import RateWindow
from eventjobs.domain.limits import Rate


@settings(max_examples=200)
@given(
    st.integers(1, 5),
    st.lists(st.tuples(st.integers(0, 500_000), st.booleans(), st.integers(0, 3)), max_size=60),
)
def test_a_window_never_lets_more_start_than_its_rate_says(
    count: int, steps: list[tuple[int, bool, int]]
) -> None:
    window = RateWindow(Rate(count, 1))
    window.load([])
    begun: list[int] = []
    waiting, now_us = 0, 0
    for passed_us, starts, later in steps:
        now_us += passed_us
        at_us = window.opens_us(now_us)
        if at_us is not None and at_us <= now_us:
            window.reserve()
            waiting += 1
        elif at_us is not None:
            now_us = at_us
            assert window.opens_us(now_us) == now_us, "it opens when it says, and not later"
        while waiting > later:
            waiting -= 1
            if starts:
                window.record_start(now_us)
                begun.append(now_us)
            else:
                window.cancel()
    for at in begun:
        assert sum(at <= each < at + 1_000_000 for each in begun) <= count
