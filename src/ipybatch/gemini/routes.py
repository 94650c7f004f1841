"""Routes: which lanes a prompt takes, in which order, and until when.

online   online
flex     flex, tried a few times --> online or batch
batch    batch
auto     batch --> flex --> online, each left early enough to be done by the deadline
"""

from __future__ import annotations

import math

import msgspec

ASSUMED_LATENCY_S = 0.5  # before the first token, until one has been measured
ASSUMED_TOKENS_PER_S = 200.0
IN_A_HURRY = 50  # requests at once, when a deadline is near
SAFETY = 1.5
FLEX_LEAD = 2.5  # how much earlier than to online one leaves the batch, to try flex before
BATCH_SHARE = 0.4  # of the deadline goes to the batch at least, while the latency is a guess


class Deadline(msgspec.Struct, frozen=True):
    """When a session has to be done, and what it may wait for until then.

    Attributes:
        at_s: By the clock.
        batch_until_s: When what is not back by batch goes another way; -inf when there is no time for a batch.
        flex_until_s: When flex is tried no more.
    """

    at_s: float
    batch_until_s: float
    flex_until_s: float


def plan(now_s: float, deadline_s: float, items: int, latency_s: float, *, is_measured: bool, at_once: int) -> Deadline:
    """Return when to leave the cheaper lanes.

    Args:
        deadline_s: From now.
        latency_s: Of a request online.
        is_measured: Whether that is known; a guess never costs the batch its chance.
        at_once: How many run at the same time.
    """
    online_s = SAFETY * (math.ceil(items / at_once) + 2) * latency_s
    at_s = now_s + deadline_s
    flex_until_s = max(at_s - online_s, now_s if is_measured else now_s + BATCH_SHARE * deadline_s)
    batch_until_s = flex_until_s - (FLEX_LEAD - 1) * online_s
    if not is_measured:
        batch_until_s = max(batch_until_s, now_s + BATCH_SHARE * deadline_s)
    return Deadline(at_s, min(batch_until_s, flex_until_s), flex_until_s)


def assumed_latency_s(output_tokens: float) -> float:
    """Return how long an answer of so many tokens is likely to take."""
    return ASSUMED_LATENCY_S + output_tokens / ASSUMED_TOKENS_PER_S
