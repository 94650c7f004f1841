"""What looks from time to time looks at the same moments, never two of its looks close to each other."""

from itertools import pairwise

import pytest

from ipybatch.server.ticks import TICK_S, until_tick


@pytest.mark.parametrize("now_s", [0.0, 0.1, 2.4, 2.6, 4.9, 1e6 + 0.3])
def test_a_tick_is_the_same_for_all(now_s):
    left_s = until_tick(now_s)

    assert (now_s + left_s) % TICK_S == pytest.approx(0.0, abs=1e-6) or (now_s + left_s) % TICK_S == pytest.approx(
        TICK_S
    )
    assert TICK_S / 2 < left_s <= 1.5 * TICK_S


def test_who_begins_anywhere_soon_goes_with_the_others():
    at = [1.7]
    for _ in range(4):
        at.append(at[-1] + until_tick(at[-1]))

    assert at[1:] == [5.0, 10.0, 15.0, 20.0]
    assert all(TICK_S / 2 < later - before <= 1.5 * TICK_S for before, later in pairwise(at))
