"""Storage: a folder that all machines see, of this machine or of any place that fsspec knows."""

import errno
import os
import pickle
from contextlib import suppress

import pandas as pd
import pytest

from ipybatch import BatchSession, InputError, JournalError
from ipybatch.backends import Dask, Processes
from ipybatch.forecast import forecast
from ipybatch.forecast.storage import Folder, check_storage, probe, read_probe, storage_of
from tests.forecast.test_session import Inline, demand

distributed = pytest.importorskip("distributed")


@pytest.fixture(params=["", "local://", "memory://"], ids=["a path", "fsspec's disk", "fsspec's memory"])
def address(request, tmp_path):
    return f"{request.param}{tmp_path / 'shared'}"


@pytest.fixture
def folder(address):
    return pickle.loads(pickle.dumps(storage_of(address))).below("run")


def test_what_is_written_is_read_and_named(folder):
    for name in ("a", "b"):
        with folder.writing(name) as file:
            file.write(f"of {name}".encode())
    with folder.reading("a") as file:
        assert file.read() == b"of a"
    assert sorted(folder.names()) == ["a", "b"]
    assert folder.ends("b", 2) == (b"of", b" b")
    folder.delete(["a", "a"])
    assert folder.names() == ["b"]
    folder.clear()
    assert folder.names() == []


def test_a_file_is_whole_or_not_there(folder):
    with folder.writing("kept") as file:
        file.write(b"old")
    with suppress(KeyboardInterrupt), folder.writing("kept") as file:
        file.write(b"new")
        raise KeyboardInterrupt
    assert (folder.names(), folder.ends("kept", 3)[0]) == (["kept"], b"old")


def test_a_full_disk_is_named(tmp_path):
    with pytest.raises(OSError, match=r"No space left on device: '.*here'"), Folder(tmp_path / "here").writing("a"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert list((tmp_path / "here").iterdir()) == []


def test_a_port_is_no_password():
    assert storage_of("memory://host:22/run@home").address == "memory://host:22/run@home"


def test_what_is_too_short_or_not_there_has_no_ends(folder):
    with folder.writing("short") as file:
        file.write(b"abc")
    for name in ("short", "none"):
        with pytest.raises(OSError, match=r"Invalid|No such|short|none"):
            folder.ends(name, 6)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (7, "storage must be a folder's path or its address"),
        ("  ", "storage must be a folder's path or its address"),
        ("nowhere://bucket/run", "storage must be an address that fsspec .* opens, got 'nowhere://bucket/run'"),
        ("memory://user:hunter2@host/run", r"without a password, got 'memory://\*\*\*@host/run'"),
        ("s3://key:sec/hunter2@bucket/run", r"without a password, got 's3://\*\*\*@bucket/run'"),
        ("memory://run?api_key=hunter22", r"without a password, got 'memory://run\?api_key=\*\*\*'"),
        ("s3://", "storage must name a folder of its place"),
        ("~no-such-user/run", "storage must be a folder's path or its address, got '~no-such-user/run'"),
        ("/dev/null/run", "storage must be a folder that can be written, got '/dev/null/run': NotADirectoryError"),
    ],
)
def test_a_storage_that_cannot_be_used_is_refused_before_anything_is_spent(given, said):
    with pytest.raises(InputError, match=said):
        forecast(demand(), horizon=5, storage=given)


def test_a_probe_that_is_not_seen_is_told(address, tmp_path):
    with probe(check_storage(address)) as name, pytest.raises(InputError, match="read by the workers too, got"):
        read_probe(storage_of(tmp_path / "another"), name)
    assert storage_of(address).names() == []


@pytest.fixture
def session(journal):
    def make(table=None, **arguments):
        arguments = {"horizon": 5, "models": ["naive", "ses"], "journal": journal, "workers": 2, **arguments}
        return forecast(demand() if table is None else table, **arguments)

    return make


class Here(Inline):
    """A backend that calls at once, in this process: it sees fsspec's memory too."""

    async def run(self, work, arguments):
        self.ran.append(work.__name__)
        return work(*arguments)


@pytest.fixture
def beside(session):
    """The forecast whose files lie beside the journal."""
    made = session(name="beside")
    made.run()
    return made.results()


def test_the_forecast_is_the_one_from_beside_the_journal(session, address, beside, tmp_path, journal):
    made = session(storage=address, backend=Here(), output=tmp_path / "out.csv")
    assert made.run().state == "completed"
    pd.testing.assert_frame_equal(made.results(), beside)
    pd.testing.assert_frame_equal(BatchSession.open("forecast", journal=journal).results(), beside)
    written = pd.read_csv(tmp_path / "out.csv")
    pd.testing.assert_series_equal(written["forecast"], beside["forecast"])
    again = Here()
    assert session(storage=address, backend=again).run().state == "completed"
    assert "train" not in again.ran
    made.forget()
    assert [storage_of(address).below(name).names() for name in storage_of(address).names()] == []


def test_what_is_gone_from_the_storage_is_told_and_trained_again(session, address, beside):
    made = session(storage=address, backend=Here())
    made.run()
    (within,) = storage_of(address).names()
    storage_of(address).below(within).delete(made.partitions()["file"].head(1))
    with pytest.raises(JournalError, match=f"1 of 3 partitions .* are gone from {address}"):
        made.results()
    again = Here()
    made = session(storage=address, backend=again)
    made.run()
    assert again.ran.count("train") == 1
    pd.testing.assert_frame_equal(made.results(), beside)


def test_rollback_leaves_nothing(session, tmp_path):
    class Fails(Here):
        async def run(self, work, arguments):
            if "sofifi" in str(arguments):
                raise MemoryError
            return await super().run(work, arguments)

    made = session(storage=tmp_path / "shared", backend=Fails())
    assert made.run().state == "rolled_back"
    assert list((tmp_path / "shared").rglob("*")) == []


def test_workers_that_do_not_see_the_storage_are_told_before_anything_is_trained(session, address):
    """Of fsspec's memory each process has its own."""
    made = session(storage=address, backend=Processes(1))
    summary = made.run()
    if address.startswith("memory"):
        assert "storage must be a folder that can be read by the workers too, got 'memory://" in summary.reason
        assert (summary.state, summary.counts.failed) == ("rolled_back", 0)
    else:
        assert summary.state == "completed"


@pytest.mark.usefixtures("patience")
def test_workers_of_a_cluster_read_and_write_it_themselves(session, cluster, beside, tmp_path):
    with distributed.Client(cluster, set_as_default=False) as client:
        for address in (str(tmp_path / "mounted"), f"local://{tmp_path / 'over fsspec'}"):
            made = session(name=address[:5], storage=address, backend=Dask(client))
            assert made.run().state == "completed", made.reason
            pd.testing.assert_frame_equal(made.results(), beside)


@pytest.mark.usefixtures("patience")
def test_workers_of_a_cluster_read_the_files_of_a_table(session, cluster, beside, tmp_path):
    table = demand()
    (tmp_path / "in").mkdir()
    for at in range(3):
        table.iloc[at::3].to_parquet(tmp_path / "in" / f"{at}.parquet", index=False)
    with distributed.Client(cluster, set_as_default=False) as client:
        made = session(tmp_path / "in", storage=tmp_path / "shared", backend=Dask(client))
        assert "3 files were read by workers, in 3 pieces; each counts its own rows" in made.table_notes
        assert made.run().state == "completed", made.reason
        pd.testing.assert_frame_equal(made.results(), beside)


def test_files_are_not_read_by_workers_that_do_not_see_the_storage(session, tmp_path):
    demand().to_parquet(tmp_path / "table.parquet", index=False)
    with pytest.raises(InputError, match="read by the workers too, got 'memory://"):
        session(tmp_path / "table.parquet", storage=f"memory://{tmp_path}", backend=Processes(1))
