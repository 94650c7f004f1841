"""A form is read alike, however its body is cut."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ipybatch.errors import InputError
from ipybatch.server.multipart import MOST_FIELDS, Form

TYPE = 'multipart/form-data; boundary="b-1"'
FILE = b"a,b\r\n1,2\r\n--b-\r\n--b-2\r\n\r\n"  # nearly a mark
BODY = (
    b'preamble\r\n--b-1\r\nContent-Disposition: form-data; name="by"\r\n\r\nsite\r\n'
    b'--b-1  \r\nContent-Disposition: form-data; name="file"; filename="../d\xc3\xa9mand.csv"\r\n'
    b"Content-Type: text/csv\r\n\r\n"
    + FILE
    + b'\r\n--b-1\r\nContent-Disposition: form-data; name="empty"\r\n\r\n\r\n--b-1--\r\nepilogue\r\n--b-1\r\n'
)


def read(body, cuts=(), content_type=TYPE):
    form, found, places = Form(content_type), b"", [0, *sorted(cuts), len(body)]
    for begin, end in pairwise(places):
        found += form.feed(body[begin:end])
    return form, found


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, len(BODY)), max_size=40))
def test_a_form_is_read_however_it_is_cut(cuts):
    form, found = read(BODY, cuts)
    assert found == FILE
    assert form.fields == {"by": "site", "empty": ""}
    assert form.filename.startswith("../d")
    assert (form.file_type, form.is_whole) == ("text/csv", True)


def test_a_form_is_read_byte_by_byte():
    assert read(BODY, range(len(BODY)))[1] == FILE


def test_a_form_that_was_cut_off_is_not_whole():
    assert not read(BODY[: BODY.index(b"epi") - 6])[0].is_whole


def part(head, body=b"x"):
    return b"--b-1\r\n" + head + b"\r\n\r\n" + body + b"\r\n"


FILE_PART = part(b'Content-Disposition: form-data; name="f"; filename="a"')
BAD = [
    (part(b"Content-Type: text/csv"), "Content-Disposition"),
    (part(b"X" * 20_000), "Content-Disposition"),
    (FILE_PART * 2, "one file"),
    (part(b'Content-Disposition: form-data; name="a"', b"x" * 70_000), "65,536"),
    (part(b'Content-Disposition: form-data; name="a"', b"\xff") + b"--b-1--", "UTF-8"),
    (b"".join(part(b'Content-Disposition: form-data; name="%d"' % n) for n in range(MOST_FIELDS + 2)), "50 fields"),
]


@pytest.mark.parametrize(("body", "said"), BAD)
def test_what_is_no_form_of_one_file_is_refused(body, said):
    with pytest.raises(InputError, match=said):
        read(body)


def test_a_form_needs_a_boundary():
    with pytest.raises(InputError, match="boundary"):
        Form("multipart/form-data")
