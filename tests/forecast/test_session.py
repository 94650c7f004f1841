"""Sessions that forecast: isolated partitions, all or nothing."""

import asyncio
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.dummy import DummyRegressor

from ipybatch import BatchSession, InputError, JournalError, Limits, Permanent
from ipybatch.backends import Killed, OutOfMemory, Overrun, Processes
from ipybatch.engine.store.resources import LIMITS_FILE
from ipybatch.forecast import ForecastSession, forecast
from ipybatch.forecast.data.partitions import ADVICE
from ipybatch.forecast.forecast_files import COLUMNS
from tests.works import Elsewhere

ROOT = Path(__file__).parents[2]


def demand(sites=("Ambon", "Palu", "Sofifi"), days=40, parts=4):
    chance = np.random.default_rng(7)
    rows = [
        (site, f"P{part}", day, int(chance.poisson(2)))
        for site in sites
        for part in range(parts)
        for day in pd.date_range("2025-07-01", periods=days)
    ]
    return pd.DataFrame(rows, columns=["site", "part", "date", "quantity"])


class Endless(RegressorMixin, BaseEstimator):
    """A model that is never done."""

    def fit(self, features, target):
        while True:
            pass

    def predict(self, features):
        raise AssertionError


class Inline:
    """A backend that calls at once: what is told of partitions is the same wherever they run."""

    def __init__(self, fails=()):
        errors = fails if isinstance(fails, dict) else {site: MemoryError(f"{site} is too large") for site in fails}
        self.fails, self.ran = errors, []

    async def open(self, slots):
        pass

    async def run(self, work, arguments):
        (site,) = set(arguments[0]["site"])
        self.ran.append(site)
        if site in self.fails:
            raise self.fails[site]
        return work(*arguments)

    async def close(self):
        pass


@pytest.fixture
def session(journal, tmp_path):
    def make(table=None, *, backend=None, **arguments):
        arguments = {"horizon": 5, "models": ["naive", "ses"], "journal": journal, **arguments}
        return forecast(demand() if table is None else table, backend=backend or Inline(), **arguments)

    return make


def left_behind(journal):
    ours = journal.name, LIMITS_FILE
    return [path.name for path in journal.parent.rglob("*") if not path.name.startswith(ours)]


def test_every_series_gets_its_forecast(session):
    made = session()
    assert str(made.run()) == "forecast completed: 3/3 successful, 0 failed, 0 skipped"
    frame = made.results()
    assert tuple(frame.columns) == COLUMNS
    assert len(frame) == 3 * 4 * 5
    assert frame.groupby(["site", "part"]).size().eq(5).all()
    assert frame["date"].min() == pd.Timestamp("2025-08-10")
    assert (frame["lo"] <= frame["forecast"]).all()
    assert (frame["forecast"] <= frame["hi"]).all()


def test_partitions_run_in_processes_of_their_own(session, monkeypatch):
    """The real backend: nothing of it stays when the session has ended."""
    made = session(backend=Processes(2, preload=("ipybatch.forecast.models.model_selection",)))
    assert made.run().counts.completed == 3
    assert len(made.results()) == 60


@pytest.mark.parametrize(
    ("own_s", "said"), [(None, "Exceeded 0.5s"), (0.25, "Exceeded 0.25s")], ids=["the forecast's", "the backend's"]
)
def test_limits_hold_in_a_backend_that_has_none_of_its_own(session, own_s, said):
    backend = Processes(1, timeout_s=own_s)
    made = session(demand(["Ambon"]), models=[Endless()], backend=backend, timeout_s=0.5)
    made.run()
    assert made.reason == f"Partition 1 (Ambon) timeout: {said}"


def test_partitions_are_rows_of_the_table(session):
    made = session()
    made.run()
    groups = made.snapshot.groups
    assert [group.name for group in groups.values()] == [
        f"Partition {n} ({s})" for n, s in zip((1, 2, 3), ("Ambon", "Palu", "Sofifi"), strict=True)
    ]
    assert {group.status for group in groups.values()} == {"completed"}
    assert groups[1].extra == {"Parts": 4, "Rows": 160}


def test_partitions_tell_their_sites_where_one_has_several(session):
    made = session(by="size", max_rows=300)
    made.run()
    assert {"Sites", "Parts", "Rows"} == set(made.snapshot.groups[1].extra)


def test_rollback_leaves_nothing(session, journal, tmp_path):
    """One partition fails: no forecast, no file, one line that says why."""
    made = session(backend=Inline(["Sofifi"]), output=tmp_path / "out.csv", limits=Limits(concurrency=1))
    summary = made.run()
    assert (summary.state, summary.reason) == (
        "rolled_back",
        "Partition 3 (Sofifi) failed: MemoryError: Sofifi is too large",
    )
    assert len(made.results()) == 0
    assert tuple(made.results().columns) == COLUMNS
    assert left_behind(journal) == []


def statuses(made):
    return [group.status for group in made.snapshot.groups.values()]


@pytest.mark.parametrize(("split_series", "count"), [(False, 3), (True, 6)])
def test_a_series_is_cut_only_when_asked(session, split_series, count):
    made = session(demand(parts=1), by="size", max_rows=20, split_series=split_series)
    assert made.run().counts.completed == count


@pytest.mark.parametrize(
    ("on_failure", "left"),
    [
        ("rollback", ["cancelled", "failed", "cancelled"]),
        ("stop", ["completed", "failed", "skipped"]),
        ("continue", ["completed", "failed", "completed"]),
    ],
)
def test_the_table_says_what_became_of_each_partition(session, on_failure, left):
    """What was discarded is not called completed, and nothing waits any more."""
    made = session(backend=Inline(["Palu"]), on_failure=on_failure, limits=Limits(concurrency=1))
    made.run()
    assert statuses(made) == left


def test_a_partition_has_no_time_before_it_runs(session):
    made = session(backend=Inline(["Ambon"]), limits=Limits(concurrency=1))
    made.run()
    assert [group.started_s > 0 for group in made.snapshot.groups.values()] == [True, False, False]


def test_what_helps_is_said_beside_the_error(session):
    table = demand().astype({"date": str})
    table.loc[5, "date"] = "31/13/2025"
    made = session(table)
    made.run()
    assert f"Invalid date format '31/13/2025': {ADVICE['bad_row']}" in made.notes


class Puzzled(Permanent):
    """An error of a user's model that says what helps."""

    advice = "give it another alpha"


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (Overrun("Exceeded 300s"), ADVICE["timeout"]),
        (TimeoutError("no answer"), ADVICE["timeout"]),
        (OutOfMemory(), ADVICE["out_of_memory"]),
        (Killed("Killed by SIGKILL"), ADVICE["killed"]),
        (ValueError("Invalid alpha"), ""),
        (Permanent("Missing alpha: Out of memory, Killed by a timeout"), ""),
        (Puzzled("Invalid alpha"), "give it another alpha"),
    ],
)
def test_advice_follows_the_kind_of_an_error_and_not_its_words(session, error, advice):
    """A user's model may say "Invalid", too: its rows are not to be corrected for that."""
    made = session(backend=Inline({"Palu": error}), on_failure="continue")
    made.run()
    assert made.partitions().set_index("key")["advice"].to_dict() == {"Ambon": "", "Palu": advice, "Sofifi": ""}
    assert [note for note in made.snapshot.notes if "Palu" not in note and not note.startswith("read site")] == (
        [f"{made.partitions().set_index('key')['error']['Palu']}: {advice}"] if advice else []
    )


def test_advice_outlives_the_process(session):
    """It is found by what is recorded."""
    session(backend=Inline({"Palu": OutOfMemory()}), on_failure="continue").run()
    assert session(on_failure="continue").partitions()["advice"].tolist() == ["", ADVICE["out_of_memory"], ""]


def test_a_bad_row_has_its_advice_beside_its_partition(session):
    table = demand().astype({"date": str})
    table.loc[5, "date"] = "31/13/2025"
    made = session(table, on_failure="continue")
    made.run()
    row = made.partitions().set_index("key").loc["Ambon"]
    assert (row["error"], row["advice"]) == ("Invalid date format '31/13/2025' in row 5", ADVICE["bad_row"])


def test_the_same_call_runs_again_after_a_rollback(session):
    session(backend=Inline(["Sofifi"])).run()
    backend = Inline()
    made = session(backend=backend)
    assert made.run().counts.completed == 3
    assert sorted(backend.ran) == ["Ambon", "Palu", "Sofifi"]
    assert len(made.results()) == 60


def test_stop_keeps_what_is_finished_and_the_same_call_does_the_rest(session):
    stopped = session(backend=Inline(["Palu"]), on_failure="stop", limits=Limits(concurrency=1))
    summary = stopped.run()
    assert (summary.state, summary.reason) == ("failed", "Partition 2 (Palu) failed: MemoryError: Palu is too large")
    assert set(stopped.results()["site"]) == {"Ambon"}
    backend = Inline()
    again = session(backend=backend, on_failure="stop")
    again.retry_failed()
    assert again.run().counts.completed == 3
    assert sorted(backend.ran) == ["Palu", "Sofifi"]
    assert set(again.results()["site"]) == {"Ambon", "Palu", "Sofifi"}


def test_continue_delivers_what_worked_and_names_what_did_not(session, tmp_path):
    made = session(backend=Inline(["Palu"]), on_failure="continue", output=tmp_path / "out.csv")
    assert made.run().counts.failed == 1
    assert set(pd.read_csv(tmp_path / "out.csv")["site"]) == {"Ambon", "Sofifi"}
    assert made.partitions().set_index("key")["error"]["Palu"] == "MemoryError: Palu is too large"


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl"])
def test_the_whole_forecast_is_written_when_it_is_whole(session, tmp_path, suffix):
    made = session(output=tmp_path / f"out{suffix}")
    made.run()
    read = {".csv": pd.read_csv, ".parquet": pd.read_parquet, ".jsonl": lambda path: pd.read_json(path, lines=True)}[
        suffix
    ]
    assert len(read(tmp_path / f"out{suffix}")) == 60
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".out")] == []


def test_a_bad_row_fails_its_partition_by_name(session):
    table = demand().astype({"date": str})
    table.loc[130, "date"] = "31/13/2025"
    summary = session(table).run()
    assert summary.state == "rolled_back"
    assert summary.reason == "Partition 3 (Ambon) failed: Invalid date format '31/13/2025' in row 130"


def test_what_is_finished_is_trained_again_only_when_it_changed(session):
    session().run()
    table = demand()
    table.loc[table["site"] == "Palu", "quantity"] += 1
    backend = Inline()
    assert session(table, backend=backend).run().counts.completed == 3
    assert backend.ran == ["Palu"]
    backend = Inline()
    session(table, backend=backend, horizon=6).run()
    assert sorted(backend.ran) == ["Ambon", "Palu", "Sofifi"]


def test_the_output_may_be_a_spreadsheet(session, tmp_path):
    made = session(output=tmp_path / "out.xlsx")
    made.run()
    rows = pd.read_excel(tmp_path / "out.xlsx", engine="calamine")
    expected = made.results().astype(rows.dtypes)
    pd.testing.assert_frame_equal(rows, expected, check_exact=False)
    assert made.save(tmp_path / "again.xlsx").stat().st_size > 0


def test_an_output_that_cannot_be_written_fails_the_session(session, tmp_path):
    """All that was asked for is there, or the session says that it is not."""
    folder = tmp_path / "gone"
    folder.mkdir()
    made = session(output=folder / "out.csv")
    folder.rmdir()
    summary = made.run()
    assert summary.state == "rolled_back"
    assert "could not be opened or closed" in summary.reason


@pytest.mark.parametrize("lose", [Path.unlink, lambda file: file.write_bytes(file.read_bytes()[:-9]), Path.touch])
def test_what_was_completed_is_trained_again_where_its_forecasts_are_gone(session, journal, lose):
    made = session()
    made.run()
    whole, (name, file) = made.results(), made.partitions().loc[1, ["key", "file"]]
    (path,) = journal.parent.rglob(file)
    lose(path)
    if is_lost := lose is not Path.touch:
        for read in (made.results, BatchSession.open(made.name, journal=journal).results):
            with pytest.raises(JournalError, match=rf"1 of 3 partitions \({name}\) are gone .* run the same forecast"):
                read()
    backend = Inline()
    again = session(backend=backend)
    again.run()
    assert len(backend.ran) == is_lost
    pd.testing.assert_frame_equal(again.results(), whole)


@pytest.mark.parametrize("model", ["ses", DummyRegressor()])
def test_one_model_needs_no_list(session, model):
    made = session(models=model)
    assert made.run().state == "completed"
    assert {*made.results()["model_used"]} == {model if isinstance(model, str) else "DummyRegressor"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"horizon": 0}, "horizon must be"),
        ({"workers": 0}, "workers must be"),
        ({"output": "x.xls"}, "output must end in"),
        ({"output": "/nowhere/x.csv"}, "output must lie in a folder that is there"),
        ({"models": ["best"]}, "models must be one of"),
        ({"by": "region"}, "region"),
    ],
)
def test_what_makes_no_sense_is_refused(session, arguments, words):
    with pytest.raises(InputError, match=words):
        session(**arguments)


def kept(journal):
    """The names of all files of forecasts."""
    return {path.name for path in journal.parent.rglob("*.arrow")}


def changed(table=None):
    """A table of which the rows of Palu are others."""
    table = demand() if table is None else table
    table.loc[table["site"] == "Palu", "quantity"] += 1
    return table


def test_forget_clears_the_forecasts_away(session, journal):
    session().run()
    made = session(changed())
    made.run()
    made.forget()
    assert left_behind(journal) == []
    assert len(made.results()) == 0


def test_a_forgotten_forecast_is_shown_as_trained_when_it_runs_again(session):
    """The table and the log say of its partitions what they said the first time."""
    made = session()
    made.run()
    first = statuses(made), len(made.log())
    made.forget()
    assert made.run().counts.completed == 3
    assert (statuses(made), len(made.log())) == first
    assert statuses(made) == ["completed"] * 3
    assert not (made.log() == "skipped").any(axis=None)


def test_no_file_of_a_former_forecast_stays(session, journal):
    """After a run over changed rows there are the files that its partitions refer to, and no other."""
    session().run()
    before = kept(journal)
    made = session(changed())
    made.run()
    assert kept(journal) == set(made.partitions()["file"]) != before
    assert len(kept(journal)) == 3
    assert len(made.results()) == 60


def test_the_file_of_a_partition_that_is_recorded_stays(session, journal):
    """A site that is left out is not trained again when it comes back: its forecast must be there."""
    session().run()
    session(demand(["Ambon", "Palu"])).run()
    backend = Inline()
    made = session(backend=backend)
    made.run()
    assert backend.ran == []
    assert len(made.results()) == 60


def test_a_rollback_clears_the_former_forecast_away_too(session, journal):
    """It discards what is recorded under the name; no file outlives its record."""
    session().run()
    assert session(changed(), backend=Inline(["Palu"])).run().state == "rolled_back"
    assert left_behind(journal) == []


def test_a_file_without_a_record_goes_when_a_run_ends(session, journal):
    """A process that was killed between the file and its record leaves one."""
    session().run()
    names = kept(journal)
    (folder,) = {path.parent for path in journal.parent.rglob("*.arrow")}
    (folder / "sofifi-000000-0123456789ab.arrow").write_bytes(b"")
    stopped = session(changed(), backend=Inline(["Palu"]), on_failure="stop")
    assert stopped.run().state == "failed"
    assert kept(journal) == {name for name in names if not name.startswith("palu")}


LIGHT = ("ipybatch.forecast.worker",)  # without scikit-learn, which takes a second to import


class Weighing(Processes):
    """Processes that say how many bytes are sent to each of them."""

    def __init__(self):
        super().__init__(1, preload=LIGHT)
        self.sent = []

    def within(self, **_):
        return self

    async def exchange(self, parts):
        self.sent.append(sum(memoryview(part).nbytes for part in parts))
        answer, ended = await super().exchange(parts)
        self.sent.append(sum(map(len, answer)))
        return answer, ended


def test_a_process_reads_its_own_rows_and_writes_its_own_forecasts(session, journal):
    """Neither travels between the processes: what does is small, however many rows a partition has."""
    backend = Weighing()
    made = session(demand(["Ambon"], days=200, parts=40), backend=backend, horizon=100)
    assert made.run().counts.completed == 1
    assert len(made.results()) == 4000
    assert max(backend.sent) < 4000
    assert kept(journal) == set(made.partitions()["file"])


def test_no_rows_stay_of_a_partition_that_fails(session, journal):
    made = session(demand(["Ambon"]), models=[Endless()], backend=Processes(1, preload=LIGHT), timeout_s=0.5)
    assert made.run().state == "rolled_back"
    assert left_behind(journal) == []


def test_no_rows_stay_of_a_partition_that_is_cancelled(session, journal):
    made = session(demand(["Ambon"]), models=[Endless()], backend=Processes(1, preload=LIGHT), on_failure="stop")

    async def cell():
        made.start()
        await appeared(journal)
        made.cancel()
        await made

    asyncio.run(cell())
    assert left_behind(journal) == []


async def appeared(journal):
    """Wait for the rows of a partition, and return their file."""
    async with asyncio.timeout(30):
        while not (found := list(journal.parent.rglob("*.rows.arrow"))):  # noqa: ASYNC110  # another process's
            await asyncio.sleep(0.01)
    return found[0]


KILLED = """
import sys
from tests.forecast.test_session import LIGHT, Endless, Processes, demand, forecast
backend = Processes(1, preload=LIGHT)
forecast(demand(["Ambon"]), horizon=5, models=[Endless()], backend=backend, journal=sys.argv[1]).run()
"""


def test_rows_that_a_killed_session_left_are_deleted_by_the_next(session, journal):
    with subprocess.Popen([sys.executable, "-c", KILLED, str(journal)], cwd=ROOT) as killed:
        left = asyncio.run(appeared(journal))
        killed.kill()
    assert left.exists()
    again = session(demand(["Ambon"]))
    assert again.run().state == "completed"
    assert not left.exists()


# Rows that cannot be used


def spoilt():
    """A table of which 37 rows of Ambon are returns, and one of Palu has no date."""
    table = demand().astype({"date": str})
    table.loc[:36, "quantity"] = -3
    table.loc[200, "date"] = "soon"
    return table


def test_all_bad_rows_are_told_before_training_and_where_they_fail(session):
    made = session(spoilt(), on_failure="continue")
    (note,) = [note for note in made.notes if "cannot be used" in note]
    told = "Negative quantity in 37 rows of site Ambon: row 0 (-3), row 1 (-3), row 2 (-3) and 34 more"
    assert f"38 rows cannot be used: {told}; Invalid date format 'soon' in row 200" in note
    made.run()
    errors = made.partitions().set_index("key")["error"]
    assert errors.to_dict() == {"Ambon": told, "Palu": "Invalid date format 'soon' in row 200", "Sofifi": ""}
    assert f"Negative quantity: {ADVICE['bad_row']}" in made.notes


@pytest.mark.parametrize(
    ("repair", "told"),
    [
        ({"drop_bad_rows"}, ["38 rows dropped: "]),
        (["drop_bad_rows", "net_returns"], ["1 row dropped: ", "37 returns were netted", "37 returns were left out"]),
    ],
)
def test_a_table_that_is_repaired_is_forecast_and_told(session, repair, told):
    made = session(spoilt(), repair=repair)
    assert made.run().counts.completed == 3
    assert all(any(note.startswith(words) for note in made.notes) for words in told)


def test_a_repair_is_recorded(session, journal):
    """Who opens the session with its table need not name it again."""
    session(spoilt(), repair={"drop_bad_rows"}).run()
    backend = Inline()
    again = BatchSession.open("forecast", journal=journal, demand=spoilt(), backend=backend)
    assert again.run().counts.completed == 3
    assert backend.ran == []


def test_names_of_any_kind_have_forecasts_of_their_own(session):
    names = ["x" * 300, "x" * 299, "a/b", "a b", '"', "🔧", "🔨", "B and C", "B", "C", "None"]
    made = session(demand(names, parts=1))
    assert made.run().state == "completed"
    assert set(made.results()["site"]) == set(names)
    assert made.partitions()["file"].is_unique


# Opened again


def test_a_forecast_that_is_opened_again_is_the_forecast(session, journal):
    """By name alone: its rows, not its partitions; with its table it goes on, and trains nothing again."""
    made = session(backend=Inline())
    made.run()
    opened = BatchSession.open(made.name, journal=journal)
    assert isinstance(opened, ForecastSession)
    pd.testing.assert_frame_equal(opened.results(), made.results())
    pd.testing.assert_frame_equal(opened.partitions(), made.partitions())
    with pytest.raises(InputError, match="was opened for reading: pass demand= to go on"):
        opened.retry_failed()
    backend = Inline()
    again = BatchSession.open(made.name, journal=journal, demand=demand(), backend=backend)
    assert again.run().counts.completed == 3
    assert backend.ran == []
    pd.testing.assert_frame_equal(again.results(), made.results())


def test_a_forecast_that_another_process_runs_is_followed(session, journal):
    """With its table it may go on later; the files that the other process writes are not its to delete."""
    session().run()
    held = Elsewhere(journal)
    opened = BatchSession.open("forecast", journal=journal, demand=demand(), backend=Inline())
    assert isinstance(opened, ForecastSession)
    assert (opened.state, opened.elsewhere.where) == ("running", Elsewhere.WHERE)
    held.journal.write(lambda db: db.execute("DELETE FROM item").rowcount)  # written, and not recorded yet
    held.write(owner=None, state="failed")
    before = left_behind(journal)
    while opened.state == "running":
        opened.ask(opened._follower.look)
    assert (opened.state, left_behind(journal)) == ("failed", before)
    held.write(owner=Elsewhere.OWNER, beat_s=0.0, state="running")
    assert BatchSession.open("forecast", journal=journal, demand=demand(), backend=Inline()).state == "interrupted"
    assert left_behind(journal) == before


def test_what_was_rolled_back_is_empty_when_it_is_opened_again(session, journal):
    made = session(backend=Inline(fails=["Palu"]))
    made.run()
    opened = BatchSession.open(made.name, journal=journal)
    assert (opened.state, len(opened.results())) == ("rolled_back", 0)


def test_a_cut_that_cannot_be_recorded_is_asked_for(session, journal):
    """A function of the frame: another cut in its place would train everything anew."""
    made = session(backend=Inline(), by=lambda frame: frame["site"])
    made.run()
    with pytest.raises(InputError, match="was made with by=, backend=, which the journal cannot hold"):
        BatchSession.open(made.name, journal=journal, demand=demand())
