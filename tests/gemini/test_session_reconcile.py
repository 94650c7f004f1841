"""Jobs whose results come late, in part, without keys, or not at all: nothing is paid for twice, nothing is lost."""

import json
import math
from dataclasses import replace
from datetime import datetime

import pytest

from ipybatch.simulators.gemini.batches import BatchEndpoints
from tests.gemini.killed import PRICES
from tests.gemini.nights import SOON, check_billed_once, groups, night, stars
from tests.gemini.nights import night_service as gemini

# google-genai 3.4.0 has a session class of its own, which aiohttp discourages.
pytestmark = pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning")

KEY_LOST = "an answer of its job came without its key"


def check_nothing_wrong(session):
    """Whatever stands beside a prompt was said of it; and what was paid is on record."""
    results = session.results()
    for key, status, text in zip(results.key, results.status, results.get("text", [None] * len(results)), strict=True):
        if status == "completed":
            assert text.startswith(f"On {key}: ")
        else:
            assert not isinstance(text, str)
    return results


def check_statement(session, service):
    """The statement of a session agrees with what the service knows."""
    rows = [row for row in service.simulator.ledger() if row["finish_reason"] != "ERROR"]
    statement = session.statement()
    assert statement.billed.sum() == sum(row["billed"] for row in rows)
    assert (statement.billed == statement.kept + statement.waiting + statement.lost).all()
    return statement


@pytest.mark.parametrize(
    "fault",
    ["late", "late_file", "cut", "torn", "shuffled", "inline", "error_body", "error_file", "unseen", "late+shuffled"],
)
@pytest.mark.parametrize("prompts", [1, 7])
def test_what_comes_late_or_otherwise_is_waited_for_and_matched(journal, clock, fault, prompts):
    with gemini(batch_delay_s=SOON, job_faults=[fault], job_looks=2) as service:
        session = night(service, journal, prompts, clock=clock)
        assert clock.run(session).counts.completed == prompts
        check_nothing_wrong(session)
        assert service.jobs == 1
        assert check_billed_once(service)["billed"]["batch"]["generations"] == prompts
        assert check_statement(session, service).lost.sum() == 0


@pytest.mark.parametrize("fault", ["late", "late_file", "cut", "torn", "error_file"])
def test_what_does_not_come_is_held_and_nothing_is_sent_again(journal, clock, fault):
    with gemini(batch_delay_s=SOON, job_faults=[fault], job_looks=math.inf) as service:
        for _ in range(2):
            session = night(service, journal, 6, clock=clock)
            summary = clock.run(session)
            assert summary.state == "completed"
            assert summary.counts.skipped > 0
            assert summary.counts.completed + summary.counts.skipped == 6
            results = check_nothing_wrong(session)
            held = results[results.status == "skipped"]
            assert held.error.str.startswith("job 1: results incomplete" if fault == "late_file" else "job 1 ").all()
            assert held.error.str.endswith("and sends it again only after session.resend()").all()
            assert service.jobs == 1
        row = check_statement(session, service).iloc[0]
        assert row.waiting == 6 - row.kept > 0
        assert row.expires.timestamp() - clock.unix_s() == pytest.approx(48 * 3600, rel=0.1)
        service.heal()
        session = night(service, journal, 6, clock=clock)
        assert clock.run(session).counts.completed == 6
        check_billed_once(service)
        assert check_statement(session, service).waiting.sum() == 0


@pytest.mark.parametrize("fault", ["keyless", "keyless+shuffled", "inline+keyless"])
def test_answers_without_keys_are_kept_under_no_prompt(journal, clock, fault):
    with gemini(batch_delay_s=SOON, job_faults=[fault]) as service:
        session = night(service, journal, 6, clock=clock)
        assert clock.run(session).counts.failed == 6
        results = check_nothing_wrong(session)
        assert results.error.str.startswith(KEY_LOST).all()
        answers = {row["prompt"] for row in service.simulator.ledger()}
        assert {text.split(":")[0].removeprefix("On ") for text in results.unmatched} == answers == set(stars(6))
        assert (results.usd > 0).all()
        again = night(service, journal, 6, clock=clock)
        assert clock.run(again).counts.failed == 6
        assert service.jobs == 1
        assert list(check_statement(session, service).kept) == [6]


def test_errors_without_keys_are_held_for_nothing(journal, clock):
    """All of the job's rows have come, so nothing more will."""
    with gemini(batch_delay_s=SOON, job_faults=["keyless"], item_failure_rate=0.4) as service:
        session = night(service, journal, 8, clock=clock)
        assert clock.run(session).counts.failed == 8
        answers = service.truth()["billed"]["batch"]["generations"]
        assert 0 < answers < 8
        errors = session.results().error
        assert errors.str.startswith(KEY_LOST).sum() == answers
        assert errors.str.startswith("an error of its job came without its key").sum() == 8 - answers
        assert service.files == []


def test_the_only_answer_of_a_job_needs_no_key(journal, clock):
    with gemini(batch_delay_s=SOON, job_faults=["inline+keyless"]) as service:
        session = night(service, journal, 1, clock=clock)
        assert clock.run(session).counts.completed == 1
        check_nothing_wrong(session)


@pytest.mark.parametrize("end", ["expire", "fail"])
@pytest.mark.parametrize("output", ["", "+partial", "+billed", "+partial+late", "+partial+cut"])
def test_a_job_that_ends_badly_is_read_and_the_rest_goes_once_into_another(journal, clock, end, output):
    with gemini(batch_delay_s=SOON, job_faults=[end + output], job_looks=2, partial_share=0.5) as service:
        session = night(service, journal, 8, clock=clock)
        assert clock.run(session).counts.completed == 8
        check_nothing_wrong(session)
        assert service.jobs == 2
        statement = check_statement(session, service)
        billed = 4 if output else 0
        assert list(statement.sent) == [8, 4 if "partial" in output else 8]
        assert statement.kept[0] == (4 if "partial" in output else 0)
        assert service.truth()["billed"]["batch"]["generations"] == billed + statement.sent[1]


@pytest.mark.parametrize("ends", [["expire", "expire"], ["fail", "expire"], ["expire", "fail+billed"]])
def test_nothing_goes_into_a_third_job_unasked(journal, clock, ends):
    with gemini(batch_delay_s=SOON, job_faults=ends) as service:
        for _ in range(2):
            session = night(service, journal, 4, clock=clock)
            summary = clock.run(session)
            assert (summary.state, summary.counts.skipped) == ("completed", 4)
            assert service.jobs == 2
        assert session.results().error.str.endswith("and sends it again only after session.resend()").all()
        assert session.resend() == 1
        assert clock.run(session).counts.completed == 4
        check_nothing_wrong(session)
        assert service.jobs == 3


def test_a_job_cancelled_elsewhere_gives_what_it_has(journal, clock):
    with gemini(batch_delay_s=SOON, job_faults=["cancel+partial"], partial_share=0.5) as service:
        session = night(service, journal, 6, clock=clock)
        counts = clock.run(session).counts
        assert (counts.completed, counts.failed) == (3, 3)
        check_nothing_wrong(session)
        assert service.jobs == 1


def test_what_is_asked_for_again_is_looked_for_first(journal, clock):
    """A resend pays only for what has not come by then."""
    with gemini(batch_delay_s=SOON, job_faults=["cut"], job_looks=math.inf) as service:
        session = night(service, journal, 6, clock=clock)
        kept = clock.run(session).counts.completed
        assert 0 < kept < 6
        assert session.resend(1) == 1
        assert clock.run(session).counts.completed == 6
        check_nothing_wrong(session)
        assert service.jobs == 2
        assert service.truth()["billed"]["batch"]["generations"] == 6 + 6 - kept
        assert list(session.statement().sent) == [6, 6 - kept]


def test_only_what_is_held_can_be_asked_for_again(journal, clock):
    with gemini(batch_delay_s=SOON) as service:
        session = night(service, journal, 2, clock=clock)
        clock.run(session)
        assert session.resend() == 0
        with pytest.raises(ValueError, match="jobs must be numbers of held jobs, and there is none, got 1"):
            session.resend(1)


def test_the_last_failed_look_stands_in_the_row_of_its_job(journal, clock):
    with gemini(batch_delay_s=0.1, job_faults=["error_body"], job_looks=math.inf) as service:
        session = night(service, journal, 2, clock=clock, wait_s=300)
        clock.run(session)
        (group,) = session.snapshot.groups.values()
        assert "(the last look failed: 503" in group.error
        assert session.statement().reason[0].startswith("503")


def test_a_failed_look_is_told_until_the_next_one(journal, clock):
    states = []
    with gemini(batch_delay_s=0.1, job_faults=["error_body"], job_looks=2) as service:
        session = night(service, journal, 2, clock=clock)
        session.on(lambda event: states.append(getattr(event, "extra", {}).get("State", "")))
        clock.run(session)
    assert any(", last look failed: 503" in state for state in states)
    assert groups(session) == [("completed", "succeeded")]
    assert session.snapshot.groups[1].error == ""


@pytest.mark.parametrize("status", [403, 404])
def test_another_key_is_told_whose_job_it_is(journal, clock, status):
    keys = ["KEY-OF-THE-DAY", "KEY-OF-THE-NIGHT"]
    with gemini(batch_delay_s=0.1, keys=keys, key=None, foreign_status=status) as service:
        assert clock.run(night(service, journal, 6, clock=clock, wait_s=1, api_key=keys[0])).state == "failed"
        other = night(service, journal, 6, clock=clock, wait_s=1e6, api_key=keys[1])
        summary = clock.run(other)
        assert (summary.state, summary.counts.skipped) == ("failed", 6)
        assert summary.reason.startswith("job 1 belongs to another key")
        assert service.jobs == 1
        assert groups(other)[0][1] == "unknown"
        own = night(service, journal, 6, clock=clock, wait_s=1e6, api_key=keys[0])
        assert clock.run(own).counts.completed == 6
        assert service.jobs == 1
        check_billed_once(service)


def test_a_job_that_nobody_finds_is_sent_again_on_request(journal, clock):
    with gemini(batch_delay_s=SOON, create_faults=["drop_before"]) as service:
        session = night(service, journal, 3, clock=clock)
        assert clock.run(session).counts.skipped == 3
        assert list(session.statement().unknown) == [3]
        assert session.resend() == 1
        assert clock.run(session).counts.completed == 3
        assert service.jobs == 1


def test_the_row_of_a_job_tells_until_when_its_results_are_kept(journal, clock):
    """Counted from its end; once all of them are recorded nothing expires any more."""
    page = journal.with_suffix(".html")
    with gemini(batch_delay_s=SOON, job_faults=["cut"], job_looks=math.inf) as service:
        session = night(service, journal, 6, clock=clock)
        clock.run(session)
        session.export_html(page)
        (group,) = session.snapshot.groups.values()
        until = datetime.strptime(group.extra["Expires in"], "%Y-%m-%dT%H:%M:%S%z")
        (expires,) = session.statement().expires
        assert abs(until.timestamp() - expires.timestamp()) < 1
        assert f"{expires:%Y-%m-%d %H:%M} UTC" in page.read_text()
        service.heal()
        session = night(service, journal, 6, clock=clock)
        clock.run(session)
        assert [group.extra["Expires in"] for group in session.snapshot.groups.values()] == [""]
        assert session.statement().expires.isna().all()


def test_what_is_paid_already_is_fetched_though_the_budget_is_used_up(journal, clock):
    """The next call has no room for another prompt, and collects the job that an earlier one left running."""
    options = {"max_requests_per_job": 4, "clock": clock, "config": {"max_output_tokens": 100}, "prices": PRICES}
    with gemini(batch_delay_s=0.2) as service:
        session = night(service, journal, 4, wait_s=1, budget_usd=0.0025, **options)
        assert clock.run(session).counts.skipped == 4
        session = night(service, journal, 12, wait_s=1e6, budget_usd=0.0025, **options)
        summary = clock.run(session)
        assert summary.state == "failed"
        assert summary.reason.startswith("budget_usd is 0.0025")
        assert summary.counts.completed >= 4
        assert list(session.results().status[:4]) == ["completed"] * 4
        assert service.truth()["billed"]["batch"]["generations"] == summary.counts.completed


def key_of(line):
    return json.loads(line)["key"]


def line_of(**fields):
    return json.dumps(fields).encode() + b"\n"


ODD = {  # what comes in place of the lines of a job of four, what becomes of the last prompt, and what may be billed
    "a mark of the byte order": (lambda lines: [b"\xef\xbb\xbf" + lines[0], *lines[1:]], "completed", 0),
    "empty lines": (lambda lines: [b"\n", *lines, b" \n"], "completed", 0),
    "a foreign line": (lambda lines: [*lines, line_of(key="9-00000000", response={})], "completed", 0),
    "one line twice": (lambda lines: [lines[0], *lines[:-1]], "skipped", 0),
    "no JSON": (lambda lines: [*lines[:-1], lines[-1].replace(b"a", b"\0", 1)], "skipped", 0),
    "no answer": (lambda lines: [*lines[:-1], line_of(key=key_of(lines[-1]))], "failed", 1),
    "an empty answer": (lambda lines: [*lines[:-1], line_of(key=key_of(lines[-1]), response=None)], "failed", 1),
    "a strange answer": (
        lambda lines: [*lines[:-1], line_of(key=key_of(lines[-1]), response={"candidates": 5})],
        "failed",
        1,
    ),
}


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("is_left", [False, True])
def test_odd_lines_are_read_held_or_counted_and_the_others_are_answers(journal, clock, monkeypatch, odd, is_left):
    change, status, unanswered = ODD[odd]
    download = BatchEndpoints.download

    def changed(self, *arguments):
        reply = download(self, *arguments)
        return replace(reply, body=b"".join(change(reply.body.splitlines(keepends=True))))

    monkeypatch.setattr(BatchEndpoints, "download", changed)
    given = {"clock": clock, "prices": PRICES, "config": {"max_output_tokens": 100}}
    with gemini(batch_delay_s=0.1 if is_left else SOON) as service:
        if is_left:
            clock.run(night(service, journal, 4, wait_s=1, **given))
        session = night(service, journal, 4, wait_s=1e6, **given)
        clock.run(session)
        results = check_nothing_wrong(session)
        assert list(results.status) == ["completed"] * 3 + [status]
        assert session.usage().unanswered.sum() == unanswered
        billed_usd = sum(row["tokens_in"] + 10 * row["tokens_out"] for row in service.simulator.ledger()) * 0.5e-6
        if status != "skipped":
            assert session.usage().usd.sum() >= billed_usd - 1e-12
            assert service.files == []
        else:
            assert session.resend() == 1
        assert service.jobs == 1


@pytest.mark.parametrize(
    "stats", [{}, {"requestCount": "many"}, {"requestCount": "99", "successfulRequestCount": "99"}]
)
@pytest.mark.parametrize("fault", [None, "cut", "cancel", "cancel+billed", "cancel+partial"])
def test_what_no_number_tells_is_unknown_and_never_more_than_was_sent(journal, clock, monkeypatch, fault, stats):
    """A cancelled job may be billed without a word of it; one of 6 prompts has no 99 answers."""
    whole = BatchEndpoints._metadata
    monkeypatch.setattr(BatchEndpoints, "_metadata", lambda *about: whole(*about) | {"batchStats": stats})
    with gemini(batch_delay_s=SOON, job_faults=[fault], job_looks=math.inf) as service:
        session = night(service, journal, 6, clock=clock)
        clock.run(session)
        check_nothing_wrong(session)
        (row,) = session.statement().to_dict("records")
        billed = sum(row["billed"] for row in service.simulator.ledger())
        assert row["billed"] <= billed <= row["billed"] + row["unknown"] <= row["sent"] == 6
        check_billed_once(service)
