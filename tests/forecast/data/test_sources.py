"""Sources: which files a table is, and what some rows of them tell of all."""

import bz2
import gzip
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pandas as pd
import pytest

from ipybatch import InputError
from ipybatch.forecast.data import sources
from ipybatch.forecast.data.cells import Style
from ipybatch.forecast.data.columns import UnknownColumns
from ipybatch.forecast.data.sources import look, pieces_of
from ipybatch.forecast.data.table import read_table

ROWS = pd.DataFrame({"site": "a", "part": "b", "date": ["31/07/2025", "01/08/2025"], "quantity": ["1,5", "2"]})
TEXT = ROWS.to_csv(index=False, sep=";").encode()


@pytest.fixture
def served(tmp_path):
    """The address of a server of files."""
    (tmp_path / "1.csv").write_bytes(TEXT)
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def looked(pieces, **style):
    return look(pieces, None, Style(**style), None)


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress], ids=["plain", "gzip", "bzip2"])
def test_the_first_rows_of_text_tell_how_all_are_written(tmp_path, pack):
    (tmp_path / "1.csv").write_bytes(pack(TEXT))
    found = looked(pieces_of(tmp_path / "1.csv"))
    assert found.answers.columns == {name: name for name in ("site", "part", "date", "quantity")}
    assert (found.answers.decimal, found.sep) == (",", ";")
    assert list(found.answers.orders.values()) == ["DMY"]


def test_a_packed_file_that_is_cut_off_is_named(tmp_path):
    (tmp_path / "1.csv.gz").write_bytes(gzip.compress(TEXT)[:-12])
    with pytest.raises(InputError, match=r"a table that can be read, got '1.csv.gz': Compressed file ended"):
        looked(pieces_of(tmp_path / "1.csv.gz"))


def test_the_query_of_an_address_is_in_no_name(served):
    """It may hold a signature, and names stand in notes and errors."""
    (piece,) = pieces_of(f"{served}/1.csv?X-Amz-Signature=hunter22")
    assert (piece.name, piece.path.partition("?")[2]) == ("1.csv", "X-Amz-Signature=hunter22")
    for read in (pieces_of, read_table):
        with pytest.raises(InputError, match="got 'http") as refused:
            read(f"{served}/none.csv?X-Amz-Signature=hunter22")
        assert "hunter22" not in str(refused.value)


def test_further_files_tell_what_the_first_leave_open(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "_LOOKED_AT", 2)
    for name, days in (("0", ["01/07/2025", "02/07/2025"]), ("1", ["30/07/2025", "31/07/2025"])):
        ROWS.assign(date=days).to_csv(tmp_path / f"{name}.csv", index=False, sep=";")
    assert list(looked(pieces_of(tmp_path)).answers.orders.values()) == ["DMY"]


def test_files_have_the_names_by_which_they_differ(tmp_path):
    for place in ("2025/07", "2025/08"):
        (tmp_path / "sales" / place).mkdir(parents=True)
        (tmp_path / "sales" / place / "all.csv").write_bytes(TEXT)
    assert [piece.name for piece in pieces_of(tmp_path / "sales")] == ["07/all.csv", "08/all.csv"]
    assert [piece.name for piece in pieces_of([tmp_path / "sales" / "2025/08/all.csv"])] == ["all.csv"]


def test_a_piece_is_another_when_its_file_has_changed(tmp_path):
    path = tmp_path / "1.csv"
    path.write_bytes(TEXT)
    before = pieces_of(path)
    assert pieces_of(str(path)) == before
    path.write_bytes(TEXT + b"a;b;02/08/2025;3\n")
    assert pieces_of(path) != before


def test_files_are_cut_between_row_groups(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "_PIECE", 7)
    pd.concat([ROWS] * 10).to_parquet(tmp_path / "1.parquet", index=False, row_group_size=3)
    found = [(piece.begin, piece.groups) for piece in pieces_of(tmp_path / "1.parquet")]
    assert found == [(0, (0, 2)), (6, (2, 4)), (12, (4, 6)), (18, (6, 7))]


@pytest.mark.parametrize("given", [ROWS, [ROWS], 7, [], TEXT])
def test_what_is_no_path_has_no_pieces(given):
    assert pieces_of(given) is None


def test_files_of_two_kinds_are_refused(tmp_path):
    (tmp_path / "1.csv").write_bytes(TEXT)
    ROWS.to_parquet(tmp_path / "2.csv", index=False)
    with pytest.raises(InputError, match=r"files of one kind, got '2.csv', which is parquet, and '1.csv'"):
        pieces_of(tmp_path)


def test_files_that_are_gone_or_broken_are_named(tmp_path):
    with pytest.raises(InputError, match=r"got '.*/none.csv': No such file"):
        pieces_of(tmp_path / "none.csv")
    (tmp_path / "half.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(InputError, match=r"a table that can be read, got 'half.parquet'"):
        pieces_of(tmp_path / "half.parquet")


def test_columns_that_are_not_known_are_asked_about(tmp_path):
    ROWS.rename(columns={"site": "x"}).to_parquet(tmp_path / "1.parquet", index=False)
    with pytest.raises(UnknownColumns, match="must have a 'site' column"):
        looked(pieces_of(tmp_path / "1.parquet"))
