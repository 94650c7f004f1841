"""Nights: sessions that send their prompts in batch jobs to a simulated service."""

from ipybatch.gemini import generate
from tests.gemini.stories import KEY

SOON = 0.005  # in real time: virtual looks are 2 ms apart


def stars(count, start=0):
    return [f"Name star {number}" for number in range(start, start + count)]


def night(service, journal, prompts=6, *, lane="batch", **arguments):
    """Make a session; prompts are a list or how many."""
    asked = stars(prompts) if isinstance(prompts, int) else prompts
    given = {"name": "night", "journal": journal, "api_key": KEY, "base_url": service.url, **arguments}
    return generate(asked, lane=lane, **given)


def check_matched(session, count):
    """Every answer stands beside its own prompt: the simulated answers begin with what was asked."""
    results = session.results()
    assert len(results) == count
    assert list(results.status) == ["completed"] * count, set(results.error)
    for asked, text in zip(results.key, results.text, strict=True):
        assert text.startswith(f"On {asked}: "), f"{asked!r} was answered with {text[:40]!r}"


def check_billed_once(service):
    truth = service.truth()
    assert truth["submitted_twice"] == truth["billed_twice"] == []
    return truth


def groups(session):
    """Return how the jobs stand in the table: (status, state)."""
    return [(group.status, group.extra["State"]) for group in session.snapshot.groups.values()]
