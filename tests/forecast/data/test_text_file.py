"""The encoding and the separator of a text file are found by evidence, told, or asked for."""

import pytest

from ipybatch import InputError
from ipybatch.forecast.data.table import read_table
from ipybatch.forecast.data.text_file import read_text

LATIN = ("São Paulo", "Köln", "Besançon", "Málaga", "Ørsted", "Cap d\u2019Ail", "Cape\u00a0Town", "n° 5")


def text_of(*sites, sep=",", quantity="5"):
    lines = [
        sep.join((site, f"P{at}", f"2025-07-{day:02d}", quantity))
        for day in range(1, 15)
        for at, site in enumerate(sites)
    ]
    return "\n".join([sep.join(("site", "part", "date", "quantity")), *lines]) + "\n"


MARKED = {
    "utf-8": "utf-8",
    "utf-8-sig": "utf-8",
    "utf-16": "utf-16",
    "utf-16-le": "utf-16-le",
    "utf-16-be": "utf-16-be",
    "utf-32": "utf-32",
}


@pytest.mark.parametrize("encoding", MARKED)
@pytest.mark.parametrize("site", ["Köln", "東京", "Kendari"])
def test_an_encoding_that_is_sure_is_taken(encoding, site):
    grid = read_text(text_of(site).encode(encoding), "a.csv")
    assert (grid.cells.iloc[1, 0], grid.notes) == (site, ())
    assert grid.encoding == MARKED[encoding]


@pytest.mark.parametrize("sites", [LATIN, *((site,) for site in LATIN)])
@pytest.mark.parametrize("encoding", ["cp1252", "latin-1"])
def test_latin_text_is_read_and_said(sites, encoding):
    if encoding == "latin-1" and any("\u2019" in site for site in sites):
        pytest.skip("Latin-1 has no such sign")
    grid = read_text(text_of(*sites).encode(encoding), "a.csv")
    assert sorted(set(grid.cells[0][1:])) == sorted(sites)
    assert grid.encoding == "cp1252"
    assert grid.notes[0].startswith("a.csv was read as Windows-1252 text, such as ")


@pytest.mark.parametrize(
    ("encoding", "sites"),
    [
        ("cp1250", ("Łódź", "České Budějovice")),
        ("cp1251", ("Москва", "Казань", "Санкт-Петербург")),
        ("cp932", ("東京", "名古屋")),
        ("gb18030", ("北京", "上海")),
        ("cp949", ("서울", "부산")),
        ("cp874", ("กรุงเทพ", "เชียงใหม่")),
        ("cp1253", ("Αθήνα", "Θεσσαλονίκη")),
        ("cp850", ("Köln", "Málaga", "Zürich")),
    ],
)
def test_another_encoding_is_asked_for_or_said(encoding, sites):
    """Never another text without a word: the question shows what each encoding makes of it."""
    data = text_of(*sites).encode(encoding)
    try:
        told = read_text(data, "a.csv").notes[0]
    except InputError as error:
        told = str(error)
        assert f"(encoding={encoding!r})" in told
    assert max(sites, key=lambda site: len(site.encode(encoding))).replace("-", " ").split()[-1] in told
    given = read_text(data, "a.csv", encoding)
    assert sorted(set(given.cells[0][1:])) == sorted(sites)
    assert given.notes == ()


def test_utf_8_with_a_broken_byte_is_no_other_text():
    with pytest.raises(InputError, match="UTF-8 but for some bytes, the first in line 4"):
        read_text(text_of("Köln", "Málaga", "Zürich").encode().replace("Zü".encode(), b"Z\xfc", 1), "a.csv")


@pytest.mark.parametrize(
    ("encoding", "message"),
    [
        ("klingon", "must be one that Python knows, such as 'utf-8'"),
        ("base64", "must be one that Python knows"),
        ("ascii", "a byte in line 2 is no character"),
    ],
)
def test_a_wrong_encoding_is_refused(encoding, message):
    with pytest.raises(InputError, match=message):
        read_text(text_of("Köln").encode(), "a.csv", encoding)


def test_a_mark_that_does_not_hold_is_refused():
    with pytest.raises(InputError, match="begins as utf-16 and does not go on so"):
        read_text(b"\xff\xfe" + b"a" * 201, "a.csv")


def test_the_encoding_reaches_the_table():
    data = text_of("Łódź").encode("cp1250")
    assert read_table(data, encoding="cp1250").frame["site"].unique().tolist() == ["Łódź"]


@pytest.mark.parametrize("sep", [",", ";", "\t", "|"])
@pytest.mark.parametrize("other", [",", ";", "\t", "|"])
def test_the_separator_cuts_all_lines_alike(sep, other):
    """Neither the titles nor the cells' own commas mislead it."""
    site = f"Kendari{other} Sulawesi" if other != sep else "Kendari"
    text = text_of(site, "Sofifi", sep=sep).replace("site", f"site{other}s{other}name{other}", 1 if other != sep else 0)
    assert read_text(text.encode(), "a.csv").sep == sep


def test_a_decimal_comma_in_every_row_is_no_separator():
    grid = read_text(text_of("A", "B", sep=";", quantity="1,5").encode(), "a.csv")
    assert (grid.sep, grid.cells.shape[1], grid.cells.iloc[1, 3]) == (";", 4, "1,5")


def test_a_table_as_wide_as_no_table_is_refused():
    with pytest.raises(InputError, match="at most 20,000 columns, got 30,001 in row"):
        read_text(("a,b\n" * 70_000 + "1" + ",1" * 30_000 + "\n").encode(), "a.csv")


def test_a_quotation_mark_does_not_swallow_rows():
    """It opens in one row, and the next one is far below: what lies between would be one part's name."""
    lines = text_of("A", "B").splitlines()
    lines[4], lines[20] = lines[4].replace("P1", '"P1'), lines[20].replace("P1", 'P1"')
    with pytest.raises(InputError, match="one that opens in row 5 holds 16 more rows"):
        read_text("\n".join(lines).encode(), "a.csv")


def test_a_cell_of_many_lines_is_no_mistake():
    note = '"one\ntwo, three\nfour\nfive"'
    assert len(read_text(text_of("A", "B").replace("P1", note).encode(), "a.csv").cells) == 29


def test_a_cell_as_long_as_a_file_is_read():
    grid = read_text((text_of("A") + "A," + "x" * 200_000 + ",2025-07-01,1\n").encode(), "a.csv")
    assert len(grid.cells.iloc[-1, 1]) == 200_000


def test_a_name_that_was_kept_from_being_a_number_is_that_name():
    text = text_of("A", "B").replace("P1", '="007"').replace("P0", '"=""008"""')
    assert sorted(set(read_text(text.encode(), "a.csv").cells[1][1:])) == ["007", "008"]


@pytest.mark.parametrize(
    ("encoding", "sites"), [("cp1254", "Beyoğlu Şişli"), ("cp1254", "Muğla"), ("cp1252", "Ísafjörður")]
)
def test_letters_of_iceland_may_be_those_of_turkey(encoding, sites):
    text = "site,part,date,quantity\n" + f"{sites},P,2025-07-01,1\n" * 3
    with pytest.raises(InputError, match=r"'cp1254'.*'cp1252'"):
        read_text(text.encode(encoding), "x.csv")
    assert sites in set(read_text(text.encode(encoding), "x.csv", encoding).cells[0])
