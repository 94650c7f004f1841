"""Schedule timing: what a schedule says of when, as it was read."""

import datetime as dt

from ipybatch.server.schedule_timing import read_timing
from ipybatch.server.wire import ScheduleTiming

NOON_S = dt.datetime(2026, 12, 1, 12, tzinfo=dt.UTC).timestamp()


def test_the_time_at_which_it_is_made_is_not_its_first():
    now_s = NOON_S + 7e-7  # a datetime rounds that up
    recurrence = read_timing(ScheduleTiming(every="1d", zone="UTC"), now_s).recurrence
    assert recurrence.next_s(now_s) == NOON_S + 86_400
