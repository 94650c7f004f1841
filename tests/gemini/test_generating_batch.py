"""Batch sessions against a simulated service: in virtual time the looks at a job take none."""

import pytest

from tests.gemini.nights import SOON, check_billed_once, check_matched, groups, night, stars
from tests.gemini.stories import gemini

# google-genai 3.4.0 has a session class of its own, which aiohttp discourages.
pytestmark = pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning")


def test_every_answer_reaches_its_own_prompt(journal, clock):
    with gemini(batch_delay_s=SOON) as service:
        session = night(service, journal, 25, clock=clock, max_requests_per_job=10)
        assert str(clock.run(session)) == "night completed: 25/25 successful, 0 failed, 0 skipped"
        check_matched(session, 25)
        assert [group.items for group in session.snapshot.groups.values()] == [10, 10, 5]
        assert groups(session) == [("completed", "succeeded")] * 3
        assert check_billed_once(service)["billed"]["batch"]["generations"] == 25


def test_failed_items_are_sent_again_alone(journal, clock):
    """A job with failed items succeeds all the same: only those are submitted again, in jobs of their own."""
    with gemini(batch_delay_s=SOON, item_failure_rate=0.2, seed=3) as service:
        session = night(service, journal, 50, clock=clock, max_requests_per_job=25)
        clock.run(session)
        check_matched(session, 50)
        first, second, *more = session.snapshot.groups.values()
        assert (first.items, second.items) == (25, 25)
        assert 0 < sum(group.items for group in more) < 25
        assert groups(session) == [("completed", "succeeded")] * (2 + len(more))
        assert check_billed_once(service)["billed"]["batch"]["generations"] == 50


@pytest.mark.parametrize("options", [{"echo_keys": False}, {"inline_answers": True}], ids=["keyless", "inline"])
@pytest.mark.parametrize("images", [False, True], ids=["text", "images"])
def test_answers_are_matched_however_they_come_back(journal, clock, tmp_path, options, images):
    prompts = stars(12)
    if images:
        picture = tmp_path / "star.png"
        picture.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(100)))
        prompts = [{"prompt": prompt, "image": picture, "id": prompt} for prompt in prompts]
    with gemini(batch_delay_s=SOON, **options) as service:
        session = night(service, journal, prompts, clock=clock, max_requests_per_job=5)
        clock.run(session)
        check_matched(session, 12)
        check_billed_once(service)
