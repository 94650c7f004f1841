"""What a 429 tells."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipybatch.gemini.quotas import Refusal, midnight_pacific_s, read_refusal

MINUTE = "GenerateRequestsPerMinutePerProjectPerModel-FreeTier"
DAY = "GenerateRequestsPerDayPerProjectPerModel-FreeTier"
TOKENS = "GenerateContentInputTokensPerModelPerMinute-FreeTier"
HELP = {"@type": "type.googleapis.com/google.rpc.Help", "links": []}


def body(*violations, retry="45.837906927s", message="You exceeded your current quota."):
    details = [HELP]
    if violations:
        listed = [{"quotaId": quota, **({} if value is None else {"quotaValue": value})} for quota, value in violations]
        details.append({"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": listed})
    if retry:
        details.append({"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": retry})
    return {"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": message, "details": details}}


@pytest.mark.parametrize(
    ("reply", "refusal"),
    [
        (body((MINUTE, "10")), Refusal(45.837906927, rpm=10.0)),
        (body((TOKENS, "250000")), Refusal(45.837906927, tpm=250_000.0)),
        (body((DAY, "250"), (MINUTE, "10"), retry="7s"), Refusal(7.0, is_daily=True, rpm=10.0)),
        (body((MINUTE, None)), Refusal(45.837906927)),
        (body(retry=None), Refusal()),
        (body((MINUTE, "10"), retry=None, message="Please retry in 47.3s."), Refusal(47.3, rpm=10.0)),
        (body(retry=None, message="Please retry in 812.5ms."), Refusal(0.8125)),
        ({"error": {"code": 429, "message": "Resource has been exhausted (e.g. check quota)."}}, Refusal()),
        ([], Refusal()),
        (None, Refusal()),
    ],
)
def test_the_three_shapes_are_read(reply, refusal):
    assert read_refusal(reply) == refusal


json = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["error", "details", "violations", "quotaId", "quotaValue", "retryDelay", "message"]), inner
        )
    ),
    max_leaves=20,
)


@given(json)
def test_no_body_is_too_strange(value):
    assert isinstance(read_refusal(value), Refusal)


@pytest.mark.parametrize(
    ("now", "midnight"),
    [
        (datetime(2026, 11, 22, 10, tzinfo=UTC), datetime(2026, 11, 23, 8, tzinfo=UTC)),
        (datetime(2026, 11, 22, 7, 59, tzinfo=UTC), datetime(2026, 11, 22, 8, tzinfo=UTC)),
        (datetime(2026, 7, 1, 12, tzinfo=UTC), datetime(2026, 7, 2, 7, tzinfo=UTC)),
        (datetime(2026, 3, 8, 9, tzinfo=UTC), datetime(2026, 3, 9, 7, tzinfo=UTC)),  # the night the clocks change
    ],
)
def test_a_day_ends_at_midnight_in_california(now, midnight):
    assert midnight_pacific_s(now.timestamp()) == midnight.timestamp()
