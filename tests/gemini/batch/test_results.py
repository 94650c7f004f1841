import asyncio
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipybatch.engine.data.clock import SystemClock
from ipybatch.errors import ItemError, Permanent, RateLimited, Transient
from ipybatch.gemini.batch.jobs import Job
from ipybatch.gemini.batch.results import (
    NO_KEY,
    Output,
    Unanswered,
    Unmatched,
    Unreadable,
    places,
    rpc_error,
)
from ipybatch.gemini.batch.spool import wire_key
from ipybatch.gemini.service.api import Operation

KEYS = tuple(f'"k{number}"' for number in range(5))


def entry(place, *, key=True, **fields):
    metadata = {"metadata": {"key": wire_key(place, KEYS[place])}} if key else {}
    return {"response": {"is": place}, **metadata, **fields}


def output(entries, keys=KEYS, *, state="succeeded", **counts):
    told = Operation(
        name="batches/1", display_name="", model="", state=state, counts=counts, created="", reason="", output={}
    )
    job = Job(display_name="night-1", session="night", number=1, model="", keys=keys)
    return Output(job, told, entries, SystemClock())


def read(made, *, is_last=True):
    async def whole():
        return [result async for block in made.blocks(is_last=is_last) for result in block]

    return asyncio.run(whole())


def got(entries, keys=KEYS):
    return dict(read(output(entries, keys)))


def answered(entries, keys=KEYS):
    return {key: body["is"] for key, body in got(entries, keys).items() if isinstance(body, dict)}


RIGHT = {key: place for place, key in enumerate(KEYS)}


@given(st.permutations(range(5)))
def test_keys_decide_whatever_the_order(order):
    assert answered([entry(place) for place in order]) == RIGHT


@given(st.permutations(range(5)), st.sets(st.integers(0, 4)))
def test_an_answer_without_its_key_goes_under_no_prompt(order, keyless):
    """Answers have come back without keys and in another order: each is kept, beside an item that has none."""
    results = got([entry(place, key=place not in keyless) for place in order])
    assert {key for key, body in results.items() if isinstance(body, dict)} == {
        key for key, place in RIGHT.items() if place not in keyless
    }
    unmatched = [body for body in results.values() if isinstance(body, Unmatched)]
    assert sorted(error.body["is"] for error in unmatched) == sorted(keyless)
    assert sorted(results) == sorted(KEYS)


def test_the_only_answer_to_the_only_prompt_needs_no_key():
    assert answered([entry(0, key=False)], KEYS[:1]) == {KEYS[0]: 0}
    assert answered([entry(0, key=False), entry(0, key=False)], KEYS[:1]) == {}


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), max_size=8))
def test_an_answer_is_never_given_to_an_item_by_guess(said):
    """Whatever comes back, each item is told once, and only what its own key says."""
    results = read(output([entry(place, key=key) for place, key in said]))
    assert sorted(key for key, _ in results) == sorted(KEYS)
    for key, body in results:
        assert isinstance(body, ItemError) or RIGHT[key] == body["is"]


def test_an_item_of_which_there_is_nothing_may_be_answered_yet():
    made = output([entry(0), entry(2)])
    assert not made.is_whole
    results = dict(read(made))
    assert [key for key, body in results.items() if isinstance(body, Unanswered)] == [KEYS[1], KEYS[3], KEYS[4]]
    assert str(results[KEYS[1]]) == "results incomplete: 2 answers to 5 prompts"


@pytest.mark.parametrize(
    ("state", "counts", "rows", "is_whole"),
    [
        ("succeeded", {}, 5, True),
        ("succeeded", {}, 4, False),
        ("succeeded", {"successful": 4}, 4, False),
        ("expired", {}, 0, True),
        ("expired", {"successful": 2, "failed": 1}, 3, True),
        ("expired", {"successful": 2, "failed": 1}, 2, False),
        ("cancelled", {"successful": 9}, 5, True),
    ],
)
def test_an_output_is_whole_when_it_has_as_many_rows_as_the_job_tells(state, counts, rows, is_whole):
    assert output([entry(place) for place in range(rows)], state=state, **counts).is_whole is is_whole


@pytest.mark.parametrize(
    ("state", "counts", "rows", "answers"),
    [
        ("succeeded", {"requests": 99, "successful": 99}, 5, 5),
        ("succeeded", {"successful": 99}, 3, None),
        ("succeeded", {"successful": 4, "failed": 1}, 3, 4),
        ("succeeded", {}, 5, 5),
        ("succeeded", {}, 3, None),
        ("cancelled", {"requests": 5}, 0, 0),
        ("cancelled", {"requests": 5, "successful": -3}, 0, None),
        ("cancelled", {}, 0, None),
        ("cancelled", {}, 2, 2),
        ("cancelled", {"requests": 1}, 0, None),
    ],
)
def test_the_service_tells_how_many_answers_there_are_else_the_output_does_or_nobody(state, counts, rows, answers):
    """Nobody: then they may be billed all the same."""
    assert output([entry(place) for place in range(rows)], state=state, **counts).answers == answers


def test_an_output_of_which_nothing_is_told_is_looked_at_again_while_it_is_no_json(tmp_path):
    path = tmp_path / "results.jsonl"
    path.write_text("<html>\n<body>oops</body></html>\n")
    made = output(path, state="cancelled", requests=5)
    assert (made.is_whole, made.answers) == (False, None)


def test_what_cannot_be_matched_waits_for_the_last_look():
    """Its key may come with the next one."""
    made = output([entry(0), entry(1, key=False)])
    assert [type(body) for _, body in read(made, is_last=False)] == [dict, *[Unanswered] * 4]
    assert [type(body) for _, body in read(made, is_last=True)] == [dict, Unmatched, *[Unanswered] * 3]


def test_an_error_without_its_key_is_told_after_the_answers():
    """One item that has neither an answer nor an error: it was processed, and waits for nothing."""
    error = {"error": {"code": 13, "message": "Internal."}}
    results = got([error, entry(1, key=False), entry(2), entry(3), entry(4)])
    assert isinstance(results[KEYS[0]], Unmatched)
    assert type(results[KEYS[1]]) is Permanent
    assert str(results[KEYS[1]]).startswith("an error of its job came without its key")
    assert str(results[KEYS[1]]).endswith("Internal. (code 13)")


def test_two_answers_under_one_key_are_no_answer_unless_they_are_the_same():
    assert answered([entry(0), entry(0), *map(entry, range(1, 5))]) == RIGHT
    other = {**entry(0), "response": {"is": 7}}
    results = got([entry(0), other, *map(entry, range(1, 5))])
    assert isinstance(results[KEYS[0]], Unmatched)
    assert answered([entry(0), other, *map(entry, range(1, 5))]) == {
        key: at for key, at in RIGHT.items() if key != KEYS[0]
    }


def test_keys_of_another_job_are_not_taken():
    foreign = [(wire_key(place, f'"other{place}"'), b"") for place in range(5)]
    assert places(foreign, KEYS) == [NO_KEY] * 5


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (3, Permanent),
        (5, Permanent),
        (7, Permanent),
        (8, RateLimited),
        (13, Transient),
        (14, Transient),
        (4, Transient),
    ],
)
def test_item_errors_say_whether_to_try_again(code, kind):
    error = rpc_error({"code": code, "message": "said so"})
    assert type(error) is kind
    assert str(error) == f"said so (code {code})"


def test_an_item_error_reaches_its_item():
    results = got([entry(0), {**entry(1), "response": None, "error": {"code": 13}}], KEYS[:2])
    assert results[KEYS[0]] == {"is": 0}
    assert str(results[KEYS[1]]) == "no message (code 13)"


@pytest.mark.parametrize("place", [{}, {"response": None}, {"response": {"error": {"code": 13, "message": "m"}}}])
def test_an_entry_without_an_answer_is_no_answer(place):
    """It may be billed: only an error that the service tells lets its item go into another job."""
    error = got([{**entry(0), "response": None, **place}], KEYS[:1])[KEYS[0]]
    assert type(error) is (Transient if place.get("response") else Unreadable)


def test_an_error_in_place_of_the_output_is_no_row_of_it():
    """A result file has been an error 503, with status 200."""
    made = output([{"error": {"code": 503, "message": "overloaded"}}], KEYS[:1])
    assert not made.is_whole
    assert isinstance(dict(read(made))[KEYS[0]], Unanswered)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["key", "response", "error", "x"]), inner)
    ),
    max_leaves=8,
)


@given(st.lists(json_values, max_size=6))
def test_nonsense_is_an_error_of_the_item_only(entries):
    results = read(output(entries))
    assert [isinstance(body, ItemError | dict) for _, body in results] == [True] * 5


def test_half_a_line_fails_alone(tmp_path):
    """A file is read line by line; what is broken costs no other item its answer, and may be whole at the next look."""
    path = tmp_path / "results.jsonl"
    lines = [json.dumps({"key": wire_key(place, KEYS[place]), "response": {"is": place}}) for place in range(5)]
    lines[2] = lines[2][: len(lines[2]) // 2]
    lines[3] = '{"key": "\\ud800'
    path.write_bytes("\n".join(lines).encode() + b"\n\n")
    made = output(path)
    results = dict(read(made))
    assert [key for key, body in results.items() if isinstance(body, Unanswered)] == [KEYS[2], KEYS[3]]
    assert results[KEYS[4]] == {"is": 4}
    assert not made.is_whole


@pytest.mark.parametrize(
    "odd",
    [b'"\\ud83d"', b'"caf\xe9"', b"1e999", b"NaN", b"9" * 5000],
    ids=["half a surrogate pair", "no UTF-8", "too large", "no number", "too long"],
)
def test_a_line_that_strict_readers_refuse_is_an_answer(tmp_path, odd):
    """It was paid for: as no answer it would be held, or its whole job given up."""
    path = tmp_path / "results.jsonl"
    wire = [wire_key(place, KEYS[place]).encode() for place in range(5)]
    path.write_bytes(
        b"".join(b'{"key": "%b", "response": {"is": %d, "odd": %b}}\n' % (wire[n], n, odd) for n in range(5))
    )
    made = output(path)
    assert made.is_whole
    assert {key: body["is"] for key, body in read(made)} == RIGHT


def test_a_key_that_is_no_text_at_all_costs_no_other_item_its_answer(tmp_path):
    path = tmp_path / "results.jsonl"
    lines = [json.dumps({"key": wire_key(place, KEYS[place]), "response": {"is": place}}) for place in range(5)]
    path.write_bytes(b'{"key": "\xff\xfe"}\n' + "\n".join(lines).encode())
    assert {key: body["is"] for key, body in read(output(path))} == RIGHT


def test_no_more_than_a_block_is_read_at_a_time(tmp_path):
    """Images are large: one line that exceeds a block is a block of its own."""
    path = tmp_path / "results.jsonl"
    sizes = [10, 600_000, 600_000, 10, 10]
    lines = [
        json.dumps({"key": wire_key(place, KEYS[place]), "response": {"is": "x" * size}})
        for place, size in enumerate(sizes)
    ]
    path.write_text("\n".join(lines))

    async def counts():
        return [len(block) async for block in output(path).blocks(is_last=True)]

    assert asyncio.run(counts()) == [2, 1, 2]
