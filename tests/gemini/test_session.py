"""Sessions online, told through the real client and a simulated service on loopback."""

import pandas as pd
import pytest

pytest.importorskip("google.genai")
from pydantic import BaseModel

from ipybatch import BatchSession, InputError, Limits
from ipybatch.engine.store.journal import open_journal
from ipybatch.gemini import CreditAccount, GeminiSession, Model, usage
from tests.gemini.conftest import KEY, MODEL, names
from tests.works import Elsewhere

COLUMNS = ["text", "tokens_in", "tokens_out", "tokens_thoughts", "usd", "model", "finish_reason"]


class Star(BaseModel):
    name: str
    distance: float


def test_every_prompt_is_answered_once_in_order(desk):
    session = desk.run(names(120))
    assert str(session.summary) == "stars completed: 120/120 successful, 0 failed, 0 skipped"
    assert set(desk.asked.values()) == {1}
    frame = session.results()
    assert frame["key"].tolist() == names(120)
    answers = desk.server.simulator.answers
    assert frame["text"].tolist() == [answers.text(prompt) for prompt in names(120)]
    assert frame.columns.tolist() == ["key", "status", "attempts", "seconds", "error", *COLUMNS]
    assert set(frame["model"]) == {MODEL}
    assert set(frame["finish_reason"]) == {"STOP"}


def test_the_bill_is_the_services_own(desk):
    """Tokens as the service counted them, thoughts billed as output, cached ones in the input."""
    desk.open(thought_tokens=20, cached_share=0.5)
    session = desk.run(names(30))
    billed = desk.truth["billed"]["online"]
    (row,) = session.usage().to_dict("records")
    told = {"prompt": "tokens_in", "out": "tokens_out", "thoughts": "tokens_thoughts", "cached": "tokens_cached"}
    assert {name: row[column] for name, column in told.items()} == {name: billed[name] for name in told}
    assert (row["requests"], row["failed"]) == (billed["generations"], 0)
    assert session.results()["usd"].sum() == pytest.approx(row["usd"])
    assert session.snapshot.spent_usd == pytest.approx(row["usd"])


def test_the_same_again_costs_nothing(desk):
    first = desk.run(names(20))
    again = desk.run(names(20))
    assert again.counts.completed == 20
    assert desk.sent == 20
    columns = ["key", *COLUMNS]
    pd.testing.assert_frame_equal(first.results()[columns], again.results()[columns])


def test_another_lane_asks_nothing_anew(desk):
    """What was answered online is not bought again by flex."""
    desk.run(names(3))
    assert desk.run(names(3), lane="flex").counts.completed == 3
    assert desk.sent == 3


def test_usage_tells_operations_and_models_apart(desk):
    prompts = [{"prompt": prompt, "operation": "food" if n % 2 else "product"} for n, prompt in enumerate(names(6))]
    frame = desk.run(prompts, project="menu").usage()
    assert frame["operation"].tolist() == ["food", "product"]
    assert frame["requests"].tolist() == [3, 3]
    assert frame["credits"].map(str).tolist() == ["12", "15"]
    assert {project for *_, project in desk.calls()} == {"menu"}


def test_usage_of_the_last_hour_is_that_of_all_sessions(desk):
    first = desk.run(names(3), name="one")
    desk.run(names(5), name="two")
    assert first.usage()["requests"].sum() == 3
    assert usage(last_s=3600, journal=desk.journal)["requests"].sum() == 8
    assert usage(last_s=3600, journal=desk.journal, now_s=4e9)["requests"].sum() == 0


def test_progress_is_told_of_every_prompt(desk):
    told = []
    desk.run(names(12), on_progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (12, 12)
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_groups_hold_fifty_at_most(desk):
    groups = desk.run(names(120)).snapshot.groups
    assert [(group.name, group.items, group.status) for group in groups.values()] == [
        ("Group 1", 50, "completed"),
        ("Group 2", 50, "completed"),
        ("Group 3", 20, "completed"),
    ]


def test_by_default_three_to_ten_run_at_once(desk):
    desk.open(latency_s=0.05)
    desk.run(names(60))
    assert 3 <= desk.truth["most_in_flight"] <= 10


def test_a_session_may_have_more_at_once(desk):
    desk.open(latency_s=0.3)
    desk.run(names(50), concurrency=25)
    assert 10 < desk.truth["most_in_flight"] <= 25


def test_limits_are_the_users(desk):
    desk.open(latency_s=0.03)
    desk.run(names(12), limits=Limits(concurrency=2))
    assert desk.truth["most_in_flight"] == 2


def test_sequential_is_five_at_a_time(desk):
    """The next five start when the five before are all answered."""
    desk.open(latency_s=(0.01, 0.05))
    session = desk.run(names(23), sequential=True)
    assert session.counts.completed == 23
    assert desk.truth["most_in_flight"] <= 5
    assert [group.items for group in session.snapshot.groups.values()] == [5, 5, 5, 5, 3]


def test_a_frame_and_a_template_make_prompts(desk):
    frame = pd.DataFrame({"city": ["Oslo", "Lima"], "people": [700_000, 10_000_000]}, index=["a", "b"])
    session = desk.run(frame, template="Describe {city}")
    assert session.results()["key"].tolist() == ["a", "b"]
    assert set(desk.asked) == {"Describe Oslo", "Describe Lima"}


def test_a_schema_makes_data_of_answers(desk):
    session = desk.run([*names(3), "[[bad_json]]"], schema=Star)
    frame = session.results()
    assert frame["text"].notna().tolist() == [False] * 3 + [True], "what does not fit, as it came"
    assert all(Star.model_validate(data) for data in frame["data"][:3])
    assert frame["status"].tolist() == ["completed"] * 3 + ["failed"]


def test_answers_stand_beside_the_frames_own_columns(desk):
    """Each row keeps the frame's index and columns; an answer's fields are columns, and shadow none of them."""
    frame = pd.DataFrame(
        {"city": ["Oslo", "Lima"], "model": ["T", "S"], "text": ["x", "y"], "data.name": ["p", "q"], "n": [1, 2]},
        index=["a", "b"],
    )
    session = desk.run(frame, template="Name a star over {city} {model}", schema=Star)
    flat = session.results(with_items=True, columns="flat")
    assert flat.index.tolist() == flat["key"].tolist() == ["a", "b"]
    assert flat[list(frame.columns)].equals(frame)
    plain = session.results()
    assert plain.index.tolist() == ["a", "b"]
    assert flat["result_data.name"].tolist() == [data["name"] for data in plain["data"]]
    assert flat["data.distance"].tolist() == [data["distance"] for data in plain["data"]]
    assert flat["result_model"].tolist() == [MODEL] * 2


@pytest.mark.parametrize(
    ("prompts", "column", "first"),
    [
        (["Name star 0", "Name star 1"], "item", "Name star 0"),
        ([{"id": 7, "prompt": "Name star 0"}, "Name star 1"], "prompt", "Name star 0"),
        (pd.Series(["Name star 0", "Name star 1"], index=["x", "y"]), "item", "Name star 0"),
        (pd.DataFrame({"prompt": ["a", "b"], "day": pd.to_datetime(["2026-11-29"] * 2)}), "day", "2026-11-29T00:00:00"),
    ],
    ids=["texts", "dicts", "series", "frame"],
)
def test_the_prompts_come_back_as_they_were_given(desk, prompts, column, first):
    session = desk.run(prompts)
    assert session.results(with_items=True)[column].tolist()[0] == first
    if isinstance(prompts, pd.Series | pd.DataFrame):
        assert session.results().index.equals(prompts.index)


@pytest.mark.parametrize("is_local", [True, False], ids=["local", "memory"])
def test_images_are_saved_as_files(desk, tmp_path, is_local):
    folder = str(tmp_path / "pictures") if is_local else "memory://test_images_are_saved/pictures"
    prompts = [{"id": "A cat", "prompt": "Draw a cat"}, {"id": 7, "prompt": "Draw a star"}]
    session = desk.run(prompts, model="gemini-2.5-flash-image", modalities=["IMAGE"], images_to=folder)
    import fsspec

    files, paths = fsspec.core.url_to_fs(folder)[0], session.results()["file"].tolist()
    assert paths[0].endswith(".png")
    assert paths[1].endswith("/7.png")
    assert all(files.cat_file(files._strip_protocol(path)).startswith(b"\x89PNG") for path in paths)
    assert session.usage()["usd"][0] > 0


@pytest.mark.parametrize(
    ("prompt", "said", "status"),
    [
        ("[[blocked]] p", "prompt blocked: PROHIBITED_CONTENT", "blocked"),
        ("[[safety]] p", "answer blocked: SAFETY", "blocked"),
        ("[[recitation]] p", "answer blocked: RECITATION", "blocked"),
        ("[[max_tokens]] p", "answer cut off", "cut"),
        ("[[empty]] p", "no content received", "empty"),
        ("[[invalid]] p", "INVALID_ARGUMENT", "400"),
    ],
    ids=lambda value: value.split("]")[0].strip("[") if isinstance(value, str) else value,
)
def test_answers_that_are_none_are_errors_of_their_items(desk, prompt, said, status):
    """Told apart, billed where the service bills, final: neither now nor on a resume sent again."""
    session = desk.run([prompt, *names(2)])
    frame = session.results()
    assert frame["status"].tolist() == ["failed", "completed", "completed"]
    assert said in frame["error"][0]
    assert [call[2] for call in desk.calls()].count(status) == 1
    row = session.usage().iloc[0]
    assert (row["requests"], row["failed"], row["tokens_in"]) == (3, 1, desk.truth["billed"]["online"]["prompt"])
    assert desk.run([prompt, *names(2)]).counts.failed == 1
    assert desk.asked[prompt] == 1
    if status != "400":  # what was paid for is kept
        assert frame["usd"].iloc[0] > 0
        assert frame["tokens_in"].iloc[0] > 0
        assert frame["finish_reason"].iloc[0] == {"cut": "MAX_TOKENS"}.get(status, frame["finish_reason"].iloc[0])
        assert frame["usd"].sum() == pytest.approx(session.usage()["usd"].sum())


def test_an_answer_that_does_not_fit_the_schema_is_billed(desk):
    session = desk.run(["[[bad_json]] p"], schema=Star)
    assert session.counts.failed == 1
    assert desk.calls()[0][2] == "invalid"
    assert session.usage()["usd"][0] > 0
    assert session.results()["text"][0], "what does not fit is kept"
    desk.run(["[[bad_json]] p"], schema=Star)
    assert desk.sent == 1


def test_a_models_rpm_is_kept(desk):
    """With its quota given, a model never answers 429."""
    desk.open(rpm=1200, burst=20, network_s=0.01)
    session = desk.run(names(40), model=Model(MODEL, rpm=1200))
    assert session.counts.completed == 40
    assert desk.refused == 0


def test_other_labels_and_other_fallbacks_send_nothing_again(desk):
    """What is not sent is no reason to pay again."""
    desk.open()
    desk.run(names(3), project="spring", operation="text")
    desk.run(names(3), project="autumn", operation="titles", models=[MODEL, "gemini-2.5-pro"])
    assert desk.sent == 3


def test_a_session_that_is_opened_again_knows_what_it_used(desk):
    """By name alone: results, usage; with its prompts it goes on, and asks for nothing that it has."""
    made = desk.run(["a star", "a moon"], system="Be brief.")
    opened = BatchSession.open("stars", journal=desk.journal)
    assert isinstance(opened, GeminiSession)
    assert opened.usage().equals(made.usage())
    assert opened.results()["text"].tolist() == made.results()["text"].tolist()
    for act in (opened.start, opened.estimate):
        with pytest.raises(InputError, match="'stars' was opened for reading: pass prompts= to go on"):
            act()
    reached = {"base_url": desk.server.url, "api_key": KEY}
    again = BatchSession.open("stars", journal=desk.journal, prompts=["a star", "a moon"], **reached)
    assert (again.run().counts.completed, desk.sent) == (2, 2)


def test_a_session_that_another_process_runs_is_followed(desk):
    """What it has cost so far is shown as it is recorded; with prompts it goes on once that process is gone."""
    made = desk.run(["a star", "a moon"])
    held = Elsewhere(desk.journal)
    opened = BatchSession.open("stars", journal=desk.journal)
    assert isinstance(opened, GeminiSession)
    assert (opened.state, opened.elsewhere.where) == ("running", Elsewhere.WHERE)
    assert opened.snapshot.spent_usd == made.snapshot.spent_usd > 0
    assert opened.usage().equals(made.usage())
    held.write(owner=None)
    reached = {"base_url": desk.server.url, "api_key": KEY}
    again = BatchSession.open("stars", journal=desk.journal, prompts=["a star", "a moon"], **reached)
    assert again.state == "interrupted"
    assert (again.run().counts.completed, desk.sent) == (2, 2)


def test_what_was_spent_is_on_record_with_each_answer(desk):
    """Whoever follows the session sees it while it runs."""
    seen = []

    def look(outcomes):
        with open_journal(desk.journal).reader() as database:
            seen.append(database.execute("SELECT usd FROM run").fetchone()[0])

    session = desk.session(["a star"])
    session.on_outcomes(look)
    session.run()
    assert seen == [session.snapshot.spent_usd]


def test_no_key_is_recorded_with_a_session(desk):
    desk.run(["a star"])
    assert KEY.encode() not in desk.journal.read_bytes()


def test_a_forgotten_session_answers_again(desk):
    session = desk.run(["a star"])
    session.forget()
    assert session.run().counts.completed == 1
    assert desk.sent == 2
    assert session.usage()["requests"].sum() == 2


def test_what_was_paid_from_an_account_goes_on_with_the_account(desk):
    """An account cannot be recorded: it is asked for, instead of credits being left uncounted."""
    account = CreditAccount("studio", journal=desk.journal)
    account.grant(100)
    desk.run(["a star"], account=account)
    reached = {"base_url": desk.server.url, "api_key": KEY}
    with pytest.raises(InputError, match="was made with account=, which the journal cannot hold: pass it too"):
        BatchSession.open("stars", journal=desk.journal, prompts=["a star"], **reached)
    again = BatchSession.open("stars", journal=desk.journal, prompts=["a star"], account=account, **reached)
    assert (again.run().counts.completed, desk.sent) == (1, 1)
