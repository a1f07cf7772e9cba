"""Delays between attempts."""

import math

import pytest

from eventjobs.backoff import NO_JITTER, POSITIVE_JITTER, Backoff


def test_each_delay_is_a_multiple_of_the_one_before_up_to_the_longest() -> None:
    backoff = Backoff(0.5, 3.0, 10.0, NO_JITTER)
    assert [backoff.delay_s(failures) for failures in range(1, 6)] == [0.5, 1.5, 4.5, 10.0, 10.0]


def test_a_first_delay_above_the_longest_is_the_longest() -> None:
    assert Backoff(60.0, max_s=5.0, jitter=NO_JITTER).delay_s(1) == 5.0


@pytest.mark.parametrize("first_s", [0.0, 1.0])
def test_no_number_of_failures_is_too_large(first_s: float) -> None:
    backoff = Backoff(first_s, factor=1e300, jitter=NO_JITTER)
    assert backoff.delay_s(2**62) == (10.0 if first_s else 0.0)


def test_without_a_longest_delay_they_grow_on() -> None:
    assert Backoff(1.0, max_s=math.inf, jitter=NO_JITTER).delay_s(11) == 1024.0


@pytest.mark.parametrize("jitter", [(0.75, 1.25), POSITIVE_JITTER])
def test_a_delay_is_spread_over_its_jitter(jitter: tuple[float, float]) -> None:
    least, most = jitter
    delays = [Backoff(2.0, jitter=jitter).delay_s(1) for _ in range(200)]
    assert 2 * least <= min(delays) < max(delays) <= 2 * most
    assert max(delays) - min(delays) > 0.8 * 2 * (most - least)
