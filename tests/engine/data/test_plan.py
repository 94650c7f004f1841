import dataclasses
import sys

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipybatch import InputError
from ipybatch.engine.data.plan import Keying, OrderedRow, SeenKeys, from_row, key_value, make_plan, to_row

texts = st.text(st.characters(exclude_categories=["Cs"]))
scalars = st.integers() | texts | st.booleans()
items = st.recursive(
    scalars | st.none() | st.floats(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3) | st.tuples(inner),
    max_leaves=6,
)


def task_of(item, **arguments):
    return Keying(**arguments).task(0, item)


@pytest.mark.parametrize(
    ("item", "key"),
    [
        (1, "1"),
        ("1", '"1"'),
        (1.5, "1.5"),
        (True, "true"),
        ({"id": 7, "name": "x"}, "7"),
        ({"key": "k", "name": "x"}, '"k"'),
        ({"id": None, "key": "k"}, '"k"'),
        ({"b": 1, "a": 2}, '{"a":2,"b":1}'),
        (["a", 1], '["a",1]'),
        ("ü", '"ü"'),
    ],
)
def test_a_key_is_canonical_json(item, key):
    """The item itself, or its "id" or "key" field; 1 and "1" differ, the order of fields does not matter."""
    assert task_of(item).key == key


def test_an_object_has_its_id_or_key_too():
    """A dataclass or struct is known by the field, not by where it lies in memory."""

    @dataclasses.dataclass
    class Game:
        id: int
        name: str

    assert task_of(Game(440, "TF2")).key == "440"


def test_the_users_key_function_decides():
    """``key=`` wins over every field."""
    assert task_of({"id": 1, "slug": "tf2"}, key=lambda item: item["slug"]).key == '"tf2"'


@pytest.mark.parametrize(
    ("item", "because"),
    [
        (None, "its key is None"),
        (float("nan"), "its key is nan"),
        (object(), "pass key=, a function of the item"),
        ("\ud800", "pass key=, a function of the item"),
    ],
)
def test_an_item_without_a_stable_key_is_named(item, because):
    """It is refused before the first call, with its place and what to do."""
    with pytest.raises(InputError, match=r"item 0 \(.*\) has no stable key") as refused:
        task_of(item)
    assert because in str(refused.value)


def test_an_item_that_contains_itself_is_refused():
    """Whatever it is, it has no key."""
    loop = []
    loop.append(loop)
    with pytest.raises(InputError, match="has no stable key"):
        task_of(loop)


def test_two_items_of_one_key_are_named():
    """The first two that share one, before anything starts."""
    with pytest.raises(InputError, match="items 1 and 3 share the key 2: keys must be unique; drop one, or pass key="):
        make_plan([1, 2, 3, 2, 1], Keying())


@given(value=scalars)
def test_a_key_gives_its_value_back(value):
    """What the user sees as key is what was given."""
    assert key_value(task_of(value).key) == value
    assert type(key_value(task_of(value).key)) is type(value)


def test_a_key_that_is_no_scalar_reads_as_json():
    """A table's column holds one kind of thing."""
    assert key_value('{"a":1}') == '{"a":1}'
    assert key_value("item 3") == "item 3"


@pytest.mark.parametrize(("item", "label"), [("Portal", "Portal"), (440, "440"), ("", ""), (["a"], '["a"]')])
def test_a_label_is_the_key_as_people_read_it(item, label):
    """Without the quotes of JSON."""
    assert task_of(item).label == label


@pytest.mark.parametrize(
    ("before", "after", "same"),
    [
        (({"id": 1, "x": 1}, b""), ({"id": 1, "x": 1}, b""), True),
        (({"id": 1, "x": 1}, b""), ({"x": 1, "id": 1}, b""), True),
        (({"id": 1, "x": 1}, b""), ({"id": 1, "x": 2}, b""), False),
        ((1, b""), (1, b'{"cc":"de"}'), False),
        ((1, b'{"cc":"us"}'), (1, b'{"cc":"de"}'), False),
        ((1, b'{"cc":"de"}'), (1, b'{"cc":"de"}'), True),
    ],
)
def test_a_digest_tells_whether_the_question_changed(before, after, same):
    """The item and everything sent with it; the order of fields is no change."""
    digests = [task_of(item, settings=settings).digest for item, settings in (before, after)]
    assert (digests[0] == digests[1]) is same


def test_a_plans_hash_tells_order_input_and_keys():
    """An unchanged list is recognised; any change of it is seen."""
    plans = [[1, 2, 3], [1, 3, 2], [1, 2], ["1", 2, 3], []]
    hashes = {make_plan(plan, Keying()).hash for plan in plans}
    assert len(hashes) == len(plans)
    assert make_plan([1, 2, 3], Keying()).hash == make_plan([1, 2, 3], Keying()).hash
    assert make_plan([1], Keying(settings=b"{}")).hash != make_plan([1], Keying()).hash


@given(item=items, by_key=st.booleans(), order=st.tuples(st.integers(0, 2), st.booleans()))
def test_an_item_comes_back_from_the_journal_as_it_was_or_says_so(item, by_key, order):
    """Never as something else: what JSON would change is refused, and has to be given again."""
    try:
        task = task_of(item, key=(lambda item: "k") if by_key else None)
    except InputError:
        return
    task.priority, task.added = order
    encoded = msgspec.json.encode([to_row(task)])
    back = from_row(0, msgspec.json.decode(encoded, type=list[OrderedRow])[0])
    assert (back.key, back.digest, back.rank) == (task.key, task.digest, task.rank)
    assert (back.priority, back.added) == order
    if not back.refused:
        assert back.item == task.item
        assert type(back.item) is type(task.item)


@given(chunks=st.lists(st.lists(st.text(max_size=3))))
def test_a_generators_keys_are_each_new_once(chunks):
    """`SeenKeys` answers as a set would."""
    drawn, known = SeenKeys(), set()
    for keys in chunks:
        expected = []
        for at, key in enumerate(keys):
            if key in known:
                expected.append(at)
            known.add(key)
        assert drawn.add(keys) == expected


def test_a_generators_keys_take_little_room():
    """500,000 keys: all remembered, at less than 30 bytes each."""
    drawn, keys = SeenKeys(), [str(number) for number in range(500_000)]
    assert drawn.add(keys) == []
    assert drawn.add(keys) == list(range(500_000))
    chains = drawn._chains
    assert sys.getsizeof(chains) + sum(map(sys.getsizeof, chains.values())) < 500_000 * 30


def test_labels_that_are_not_sent_make_no_item_run_again():
    class Labelled(msgspec.Struct, frozen=True):
        id: int
        text: str
        project: str

        @property
        def _ipybatch_sent_(self) -> str:
            return self.text

    keying = Keying()
    digest = keying.task(0, Labelled(1, "a", "x")).digest
    assert keying.task(0, Labelled(1, "a", "y")).digest == digest
    assert keying.task(0, Labelled(1, "b", "x")).digest != digest
