"""When a breaker opens, admits a trial and closes; its bounds."""

import pytest

from eventjobs.handlers.breaker_state import (
    TRIAL_RETRY_MAX_S,
    BreakerConfig,
    BreakerOpen,
    LocalBreakerRegistry,
)
from tests.support.clock import FakeClock


async def test_during_a_trial_others_wait_for_a_while_and_do_not_come_back_at_once(
    clock: FakeClock,
) -> None:
    breakers, limits = LocalBreakerRegistry(clock), BreakerConfig(1, 10, 600)
    breakers.leave("x", limits, "failed", trial=False)
    await clock.advance(600)
    assert breakers.enter("x", limits) is True
    waits = []
    for _ in range(20):
        with pytest.raises(BreakerOpen) as open:
            breakers.enter("x", limits)
        waits.append(open.value.left_s)
    assert TRIAL_RETRY_MAX_S <= min(waits) < max(waits) <= 1.5 * TRIAL_RETRY_MAX_S
    await clock.advance(590)
    with pytest.raises(BreakerOpen) as open:
        breakers.enter("x", limits)
    assert 10 <= open.value.left_s <= 15


def test_a_breaker_that_makes_no_sense_is_refused() -> None:
    for wrong in ({"threshold": 0}, {"window_s": 0}, {"cooldown_s": -1}):
        with pytest.raises(ValueError, match="a breaker has"):
            BreakerConfig(**wrong)


async def test_a_trial_that_never_comes_back_is_given_up(clock: FakeClock) -> None:
    breakers, limits = LocalBreakerRegistry(clock), BreakerConfig(1, 10, 60)
    assert breakers.enter("x", limits) is False
    assert breakers.leave("x", limits, "failed", trial=False) is not None
    await clock.advance(60)
    assert breakers.enter("x", limits) is True
    with pytest.raises(BreakerOpen):
        breakers.enter("x", limits)
    await clock.advance(60)
    assert breakers.enter("x", limits) is True


def test_names_without_end_do_not_fill_the_memory(clock: FakeClock) -> None:
    breakers, limits = LocalBreakerRegistry(clock), BreakerConfig(1, 10, 60)
    breakers.enter("open", limits)
    breakers.leave("open", limits, "failed", trial=False)
    for number in range(3000):
        breakers.enter(f"host {number}", limits)
    assert len(breakers.failures()) <= 1001
    with pytest.raises(BreakerOpen):
        breakers.enter("open", limits)
