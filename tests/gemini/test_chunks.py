import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipybatch.errors import InputError
from ipybatch.gemini.chunks import INLINE_BYTES, Request, chunks, wire_key

texts = st.lists(st.text(max_size=30), max_size=40)


def requests_of(said, images=()):
    return [
        Request.of(f'"{number}"', {"contents": [{"parts": [{"text": text}]}]}, images=number in images)
        for number, text in enumerate(said)
    ]


@given(texts, st.integers(1, 9), st.integers(400, 2000), st.integers(100, 1500))
def test_nothing_is_lost_order_is_kept_and_every_chunk_is_under_every_limit(said, most, most_bytes, inline_bytes):
    requests = requests_of(said)
    cut = list(chunks(requests, max_requests=most, max_bytes=most_bytes, inline_bytes=inline_bytes))
    assert [request for chunk in cut for request in chunk.requests] == requests
    for chunk in cut:
        assert 1 <= len(chunk.requests) <= most
        assert len(b"".join(chunk.lines())) <= chunk.size <= most_bytes
        assert len(json.dumps(chunk.inlined())) - 2 <= chunk.size
        assert chunk.inline == (chunk.size <= inline_bytes)


@given(texts)
def test_lines_and_inlined_requests_say_the_same(said):
    """Text of any script arrives as it was, under the same key, whichever way it is sent."""
    for chunk in chunks(requests_of(said)):
        lines = [json.loads(line) for line in chunk.lines()]
        assert [line["key"] for line in lines] == [request["metadata"]["key"] for request in chunk.inlined()]
        assert [line["request"] for line in lines] == [request["request"] for request in chunk.inlined()]
        assert [line["request"]["contents"][0]["parts"][0]["text"] for line in lines] == said


def test_images_go_as_a_file():
    """An inline job of images could be submitted, but never fetched."""
    (chunk,) = chunks(requests_of(["a", "b"], images=[1]))
    assert not chunk.inline


def test_only_the_chunk_at_hand_is_drawn():
    drawn = []

    def draw():
        for request in requests_of("abcdef"):
            drawn.append(request.key)
            yield request

    next(chunks(draw(), max_requests=2))
    assert len(drawn) == 3


def test_wire_keys_of_other_items_differ():
    """A result file of another job is not taken for this one's."""
    assert wire_key(0, '"a"') != wire_key(0, '"b"')
    assert wire_key(0, '"a"') != wire_key(1, '"a"')


def test_a_request_that_is_too_large_alone_is_refused_by_name():
    with pytest.raises(InputError, match=r'the request of "1" must be <= 500 bytes, got \d+: send smaller images'):
        list(chunks(requests_of(["a", "b" * 500]), max_bytes=500))


@pytest.mark.parametrize("field", ["max_requests", "max_bytes"])
def test_limits_are_checked(field):
    with pytest.raises(InputError, match=f"{field} must be"):
        list(chunks([], **{field: 0}))


def test_a_body_stays_below_what_the_service_takes():
    assert INLINE_BYTES + 1_000_000 <= 20_000_000
