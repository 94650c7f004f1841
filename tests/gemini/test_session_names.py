"""Names: what goes on under one, what begins another session, and that no paid answer is overwritten unasked."""

import pandas as pd
import pytest

pytest.importorskip("google.genai")
from pydantic import BaseModel

from ipybatch import BatchSession, InputError
from ipybatch.engine.store.journal import open_journal
from tests.gemini.conftest import names

TOWNS = pd.DataFrame({"town": ["Oslo", "Lima"]})
RIVERS = pd.DataFrame({"town": ["Nile", "Rhine"]})
SCHEMA = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}


class Star(BaseModel):
    name: str


OTHERS = {
    "frame": (RIVERS, {}),
    "index": (TOWNS.set_axis(["o", "l"]), {}),
    "fewer": (TOWNS[:1], {}),
    "template": (TOWNS, {"template": "Praise {town}"}),
    "model": (TOWNS, {"model": "gemini-2.5-pro"}),
    "system": (TOWNS, {"system": "Be brief."}),
    "config": (TOWNS, {"config": {"temperature": 0.5}}),
    "schema": (TOWNS, {"schema": SCHEMA}),
    "modalities": (TOWNS, {"modalities": ["TEXT"]}),
}


def of_town(desk, frame=TOWNS, **arguments):
    return desk.run(frame, **{"template": "Describe {town} in a word", "name": None, **arguments})


def test_the_default_name_goes_on_when_the_cell_runs_again(desk):
    """Nothing is paid twice, by another lane neither: the name says the work, not how it is done."""
    first = of_town(desk)
    again = [of_town(desk), of_town(desk, TOWNS.copy(), lane="flex"), of_town(desk, project="atlas", operation="food")]
    assert {session.name for session in again} == {first.name}
    assert [session.counts.completed for session in again] == [2, 2, 2]
    assert desk.sent == 2


@pytest.mark.parametrize("other", OTHERS)
def test_other_work_has_another_default_name(desk, other):
    """So that the answers of the first are still there, and are not paid again."""
    frame, arguments = OTHERS[other]
    first, second = of_town(desk), of_town(desk, frame, **arguments)
    assert first.name != second.name
    sent = desk.sent
    assert of_town(desk).counts.completed == 2
    assert desk.sent == sent
    assert BatchSession.open(first.name, journal=desk.journal).results()["text"].notna().all()


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"template": "Describe {town:>9} in a word"}, "describe-in-a"),
        ({"template": "{town}!", "schema": Star}, "star"),
        ({"schema": Star}, "star"),
        ({"schema": {"title": "Bright star", **SCHEMA}}, "bright-star"),
        ({"schema": SCHEMA}, "oslo"),
        ({"template": "{town}?"}, "oslo"),
        ({}, "oslo"),
    ],
)
def test_a_default_name_says_what_the_work_is_about(desk, arguments, word):
    frame = TOWNS if "template" in arguments else TOWNS.rename(columns={"town": "prompt"})
    name = desk.session(frame, name=None, **arguments).name
    assert name.startswith(f"gemini {word} ")
    assert len(name) == len(f"gemini {word} ") + 8


def test_what_began_under_the_default_name_of_before_goes_on_there(desk):
    """Where the work is the same: another one has a name of its own, and leaves that as it is."""
    of_town(desk, name="gemini online")
    assert of_town(desk).name == "gemini online"
    assert desk.sent == 2
    assert of_town(desk, RIVERS).name != "gemini online"
    assert BatchSession.open("gemini online", journal=desk.journal).counts.completed == 2


def test_a_session_with_a_default_name_is_opened_and_goes_on(desk):
    name = of_town(desk).name
    reached = {"base_url": desk.server.url, "api_key": "SIMULATED-k3y/+x"}
    opened = BatchSession.open(name, journal=desk.journal, prompts=TOWNS, **reached)
    assert (opened.name, opened.counts.completed) == (name, 2)
    opened.run()
    assert desk.sent == 2


CHANGES = {
    "system": {"system": "Be brief."},
    "config": {"config": {"temperature": 0.5}},
    "model": {"model": "gemini-2.5-pro"},
    "modalities": {"modalities": ["TEXT"]},
    "schema": {"schema": SCHEMA},
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_sent_otherwise_is_paid_again_on_request_only(desk, change):
    before = desk.run(names(4)).results()
    with pytest.raises(InputError, match="4 of 4 items of 'stars' have paid answers on record"):
        desk.run(names(4), **CHANGES[change])
    pd.testing.assert_frame_equal(desk.run(names(4)).results(), before)
    assert desk.sent == 4
    assert desk.run(names(4), replace=True, **CHANGES[change]).counts.completed == 4
    assert desk.run(names(4), **CHANGES[change]).counts.completed == 4
    assert desk.sent == 8


def listed(prompts):
    return [{"id": number, "prompt": prompt} for number, prompt in enumerate(prompts)]


def test_a_changed_prompt_is_paid_again_alone_and_on_request(desk):
    desk.run(listed(names(5)))
    with pytest.raises(InputError) as refused:
        desk.run(listed([*names(4), "Other"]))
    assert str(refused.value) == (
        "1 of 5 items of 'stars' have paid answers on record, and they or what is sent with them changed since: 4."
        " Pass fresh=True for a new run, replace=True to pay again for these, or another name= to keep both"
    )
    session = desk.run(listed([*names(4), "Other"]), replace=True)
    assert session.results()["key"].tolist() == [0, 1, 2, 3, 4]
    assert (desk.sent, desk.asked["Other"]) == (6, 1)


def test_the_first_five_are_named(desk):
    desk.run(listed(names(9)))
    with pytest.raises(InputError, match=r"8 of 9 items .* since: 1, 2, 3, 4, 5 and 3 more"):
        desk.session(listed(["Name star 0", *(f"Name moon {number}" for number in range(8))]))


def test_a_generator_of_prompts_is_refused_like_a_list(desk):
    desk.run(iter(listed(names(3))))
    with pytest.raises(InputError, match="1 of 3 items"):
        desk.session(iter(listed(["Other", "Name star 1", "Name star 2"])))
    assert desk.sent == 3


def test_more_prompts_join_under_the_same_name(desk):
    desk.run(names(3))
    assert desk.run(names(5)).counts.completed == 5
    assert desk.run(names(2)).counts.completed == 2
    assert desk.sent == 5


def test_a_new_run_takes_any_input(desk):
    desk.run(listed(names(2)))
    assert desk.run(listed(["Other", "Another"]), fresh=True).counts.completed == 2
    assert desk.sent == 4


def test_what_failed_unpaid_runs_again_with_another_input(desk):
    desk.run(listed(["[[invalid]] star", "Name star 1"]))
    session = desk.run(listed(["Name star 0", "Name star 1"]))
    assert session.counts.completed == 2


@pytest.mark.parametrize("prompt", ["[[max_tokens]] star", "[[safety]] star"], ids=["cut", "blocked"])
def test_what_failed_and_was_paid_is_kept_like_an_answer(desk, prompt):
    """Its text and tokens stand in its row."""
    desk.run(listed([prompt, "Name star 1"]))
    with pytest.raises(InputError, match=r"1 of 2 items .* since: 0\."):
        desk.session(listed(["Name star 0", "Name star 1"]))
    assert desk.run(listed(["Name star 0", "Name star 1"]), replace=True).counts.completed == 2
    assert desk.sent == 3


def test_what_is_paid_between_the_making_and_the_start_is_kept_too(desk):
    """By another kernel, for example."""
    late = desk.session(listed(["Other", "Name star 1"]))
    desk.run(listed(names(2)))
    with pytest.raises(InputError, match="1 of 2 items"):
        late.run()
    with open_journal(desk.journal).reader() as database:
        assert database.execute("SELECT count(*) FROM run WHERE owner IS NOT NULL").fetchone() == (0,)
    assert desk.run(listed(names(2))).counts.completed == 2
    assert desk.sent == 2


def test_a_replacement_of_some_goes_on_as_one(desk):
    """What is left of the old answers is still kept; what has the new one is not paid again."""
    old, new = listed(names(3)), listed([f"Name moon {number}" for number in range(3)])
    desk.run(old)
    desk.run([new[0], *old[1:]], replace=True)
    with pytest.raises(InputError, match="2 of 3 items"):
        desk.session(new)
    assert desk.run(new, replace=True).counts.completed == 3
    assert desk.sent == 6


async def of_item(item):
    return item["text"]


def test_other_sessions_keep_the_rule_of_the_same_name(journal):
    """There a changed input runs again."""
    BatchSession("plain", of_item, [{"id": 1, "text": "a"}], journal=journal).run()
    again = BatchSession("plain", of_item, [{"id": 1, "text": "b"}], journal=journal)
    again.run()
    assert again.results()["result"].tolist() == ["b"]
