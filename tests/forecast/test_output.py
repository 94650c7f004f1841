"""Output files: what a session leaves where ``output=`` says, however it ends, and what is told of it."""

import contextlib
import os
from pathlib import Path

import pandas as pd
import pytest

from ipybatch import BatchSession, InputError, Limits
from ipybatch.backends import OutOfMemory
from ipybatch.forecast import forecast
from ipybatch.forecast.data.partitions import ADVICE
from tests.works import Elsewhere

TABLE = pd.DataFrame(
    [(site, "P", day, 2) for site in ("Ambon", "Palu", "Sofifi") for day in pd.date_range("2025-07-01", periods=20)],
    columns=["site", "part", "date", "quantity"],
)


class Inline:
    """A backend that trains at once, and fails for some sites."""

    def __init__(self, fails=(), *, opens=True, on_run=None):
        self.fails, self.opens, self.on_run = fails, opens, on_run

    async def open(self, slots):
        if not self.opens:
            msg = "no cluster"
            raise OSError(msg)

    async def run(self, work, arguments):
        (site,) = set(arguments[0]["site"])
        if self.on_run is not None:
            self.on_run()
        if site in self.fails:
            raise OutOfMemory
        return work(*arguments)

    async def close(self):
        pass


@pytest.fixture
def session(journal, tmp_path):
    def make(output="out.csv", *, table=TABLE, **arguments):
        arguments = {"backend": Inline(), "limits": Limits(concurrency=1), **arguments}
        path = None if output is None else tmp_path / output
        return forecast(table, horizon=3, models=["naive"], journal=journal, output=path, **arguments)

    return make


def end(session, how, output="out.csv"):
    """Run a session over another day's table to one of its ends, and return it."""
    table = TABLE.assign(quantity=3)
    if how == "completed":
        made = session(output, table=table)
    elif how == "cancelled":
        made = session(output, table=table, backend=Inline(on_run=lambda: made.cancel() and None))
    elif how == "not opened":
        made = session(output, table=table, backend=Inline(opens=False))
    else:
        made = session(output, table=table, backend=Inline(["Palu"]), on_failure=how)
    made.run()
    return made


def files(folder):
    """The names of the outputs in a folder."""
    return sorted(path.name for path in folder.glob("*.csv"))


STATES = {
    "completed": "completed",
    "rollback": "rolled_back",
    "stop": "failed",
    "continue": "completed",
    "cancelled": "cancelled",
    "not opened": "rolled_back",
}
DELIVERS = {"completed": {"Ambon", "Palu", "Sofifi"}, "continue": {"Ambon", "Sofifi"}}


@pytest.mark.parametrize("how", STATES)
def test_a_first_run_leaves_what_it_delivers_and_no_more(session, tmp_path, how):
    made = end(session, how)
    assert made.state == STATES[how]
    assert files(tmp_path) == (["out.csv"] if how in DELIVERS else [])
    assert not [note for note in made.notes if "out.csv" in note]


@pytest.mark.parametrize("how", STATES)
def test_after_a_second_run_no_earlier_forecast_lies_there_as_if_it_were_its_own(session, tmp_path, how):
    session().run()
    before = (tmp_path / "out.csv").read_bytes()
    made = end(session, how)
    assert made.state == STATES[how]
    if how in DELIVERS:
        assert files(tmp_path) == ["out.csv"]
        assert set(pd.read_csv(tmp_path / "out.csv")["site"]) == DELIVERS[how]
        assert (tmp_path / "out.csv").read_bytes() != before
    else:
        assert files(tmp_path) == ["out.earlier.csv"]
        assert (tmp_path / "out.earlier.csv").read_bytes() == before
        (note,) = [note for note in made.notes if "out.csv" in note]
        assert "it is out.earlier.csv now, and this run left none" in note
        assert note in BatchSession.open(made.name, journal=made.journal).notes


def test_a_run_in_which_all_fail_delivers_nothing(session, tmp_path):
    """No file of headings in the place of an earlier forecast."""
    session().run()
    made = session(table=TABLE.assign(quantity=3), backend=Inline(["Ambon", "Palu", "Sofifi"]), on_failure="continue")
    made.run()
    assert files(tmp_path) == ["out.earlier.csv"]
    figures = ["rows", "series", "coverage", "new", "dead", "intermittent", "models", "file"]
    assert made.partitions()[figures].isna().all(axis=None)


@pytest.mark.parametrize("how", sorted(STATES.keys() - DELIVERS.keys()))
def test_the_output_of_another_call_stays(session, tmp_path, how):
    """A name for each day: the files of other days are not this call's."""
    session("monday.csv").run()
    made = end(session, how, "tuesday.csv")
    assert files(tmp_path) == ["monday.csv"]
    assert not [note for note in made.notes if ".csv" in note]


@pytest.mark.parametrize("how", sorted(STATES.keys() - DELIVERS.keys()))
@pytest.mark.parametrize("whose", ["another's", "changed since"])
def test_what_this_session_did_not_write_stays_as_it_is(session, tmp_path, how, whose):
    if whose == "changed since":
        session().run()
    (tmp_path / "out.csv").write_text("mine,\n")
    made = end(session, how)
    assert files(tmp_path) == ["out.csv"]
    assert (tmp_path / "out.csv").read_text() == "mine,\n"
    assert "out.csv is not the forecast of this run" in "\n".join(made.notes)


def test_another_session_s_output_is_not_this_one_s(session, tmp_path):
    session(name="theirs").run()
    end(session, "rollback")
    assert files(tmp_path) == ["out.csv"]


def test_a_file_that_was_set_aside_goes_with_the_next_forecast(session, tmp_path):
    """So there is one, and it is yesterday's, however often a run fails."""
    session().run()
    for _ in range(2):
        end(session, "rollback")
        assert files(tmp_path) == ["out.earlier.csv"]
    session().run()
    assert files(tmp_path) == ["out.csv"]


def test_a_file_of_the_user_s_that_has_the_name_is_left_alone(session, tmp_path):
    (tmp_path / "out.earlier.csv").write_text("mine,\n")
    session().run()
    end(session, "rollback")
    assert files(tmp_path) == ["out.earlier-2.csv", "out.earlier.csv"]
    assert (tmp_path / "out.earlier.csv").read_text() == "mine,\n"


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="needs a folder that cannot be written")
def test_a_file_that_cannot_be_renamed_is_told(session, tmp_path):
    session().run()
    tmp_path.chmod(0o500)
    try:
        made = end(session, "rollback")
    finally:
        tmp_path.chmod(0o700)
    assert "out.csv holds an earlier forecast" in "\n".join(made.notes)


def test_of_a_run_whose_process_died_the_earlier_output_is_told(session, journal, tmp_path):
    """Nobody was there to set it aside; whoever opens the session hears of it, and the next run replaces it."""
    made = session()
    made.run()
    held = Elsewhere(journal)
    held.write(owner=Elsewhere.OWNER, beat_s=0.0, state="running", begun_s=made.now_s + 60)
    opened = BatchSession.open("forecast", journal=journal)
    assert opened.state == "interrupted"
    assert "out.csv holds an earlier forecast" in "\n".join(opened.notes)
    again = BatchSession.open("forecast", journal=journal, demand=TABLE.assign(quantity=4), backend=Inline())
    again.run()
    assert set(pd.read_csv(tmp_path / "out.csv")["forecast"]) == {4}


def test_a_run_elsewhere_keeps_its_output(session, journal, tmp_path):
    """Only the process that runs a session touches its files."""
    session().run()
    held = Elsewhere(journal)
    opened = BatchSession.open("forecast", journal=journal, demand=TABLE, backend=Inline(["Palu"]))
    held.write(owner=None, state="rolled_back")
    while opened.state == "running":
        opened.ask(opened._follower.look)
    assert (opened.state, files(tmp_path)) == ("rolled_back", ["out.csv"])


READ = {  # what is read, and the output that would take its place, from a folder with a demand.csv
    "its name": ("demand.csv", "demand.csv"),
    "another way there": ("sub/../demand.csv", "demand.csv"),
    "another way out": ("demand.csv", "sub/../demand.csv"),
    "a link to it": ("link.csv", "demand.csv"),
    "an output that is a link": ("demand.csv", "link.csv"),
    "a hard link": ("hard.csv", "demand.csv"),
    "a URL": ("file://{folder}/demand.csv", "demand.csv"),
    "a list": (["demand.csv"], "demand.csv"),
    "an open file": (Path.open, "demand.csv"),
    "a pattern": ("dem*.csv", "demand.csv"),
    "a pattern that it will fit": ("*and.csv", "next demand.csv"),
    "a pattern over folders": ("**/demand.csv", "sub/demand.csv"),
    "a folder": (".", "demand.csv"),
    "a folder in which it will be": (".", "sub/out.csv"),
}


@pytest.mark.parametrize("argument", ["demand", "known"])
@pytest.mark.parametrize("case", READ)
def test_a_forecast_is_not_written_over_what_it_is_made_from(journal, tmp_path, monkeypatch, argument, case):
    monkeypatch.chdir(tmp_path)
    read, output = READ[case]
    (tmp_path / "sub").mkdir()
    TABLE.to_csv("demand.csv", index=False)
    Path("link.csv").symlink_to("demand.csv")
    Path("hard.csv").hardlink_to("demand.csv")
    with contextlib.ExitStack() as opened:
        if read is Path.open:
            read = opened.enter_context(Path("demand.csv").open("rb"))
        elif isinstance(read, str):
            read = read.format(folder=tmp_path)
        with pytest.raises(InputError, match=f"output must be (another file than|no file that) {argument}"):
            forecast(**{"demand": TABLE, argument: read}, journal=journal, output=output)


APART = {
    "another file of the folder": ("demand.csv", "out.csv"),
    "a pattern that it does not fit": ("d*.csv", "out.csv"),
    "a pattern of another folder": ("*.csv", "sub/out.csv"),
    "a folder beside": ("in", "out.csv"),
    "what the folder's reader leaves out": ("in", "in/_out.csv"),
    "a kind that is no table": ("in", "in/out.jsonl"),
}


@pytest.mark.parametrize(("read", "output"), APART.values(), ids=APART.keys())
def test_an_output_beside_what_is_read_is_none_of_it(journal, tmp_path, monkeypatch, read, output):
    monkeypatch.chdir(tmp_path)
    for folder in ("sub", "in"):
        (tmp_path / folder).mkdir()
    for path in ("demand.csv", "in/demand.csv"):
        TABLE.to_csv(path, index=False)
    forecast(read, horizon=3, journal=journal, output=output)


def test_an_output_that_is_a_folder_is_refused_before_anything_is_trained(session, tmp_path):
    (tmp_path / "out.csv").mkdir()
    with pytest.raises(InputError, match="output must be a file"):
        session()


def test_a_table_that_is_refused_tells_that_the_output_is_an_earlier_one(session, tmp_path):
    """Nothing is started, so nothing is renamed."""
    session().run()
    with pytest.raises(InputError, match=r"No forecast was made: out\.csv is as it was before"):
        session(table=TABLE.assign(quantity=-1))
    with pytest.raises(InputError) as told:
        session("other.csv", table=TABLE.assign(quantity=-1))
    assert "No forecast was made" not in str(told.value)
    assert files(tmp_path) == ["out.csv"]


def test_forget_forgets_what_was_written(session, tmp_path):
    made = session()
    made.run()
    made.forget()
    end(session, "rollback")
    assert files(tmp_path) == ["out.csv"]


# What is told of the partitions


@pytest.mark.parametrize("is_opened", [False, True], ids=["here", "opened again"])
def test_after_a_rollback_each_partition_says_what_became_of_it(session, journal, is_opened):
    made = session(backend=Inline(["Palu"]))
    made.run()
    rows = (BatchSession.open("forecast", journal=journal) if is_opened else made).partitions().set_index("key")
    assert rows["status"].to_dict() == {"Ambon": "rolled_back", "Palu": "failed", "Sofifi": "rolled_back"}
    assert rows["error"]["Palu"] == str(OutOfMemory())
    others = f"rolled back: Partition 2 (Palu) failed: {OutOfMemory()}"
    assert rows["error"][["Ambon", "Sofifi"]].tolist() == [others, others]
    assert rows["advice"]["Palu"] == ADVICE["out_of_memory"]


def test_what_failed_before_a_rollback_runs_again_with_the_rest(session):
    session(backend=Inline(["Palu"])).run()
    made = session(backend=Inline(["Ambon"]))
    made.run()
    assert made.partitions()["status"].tolist() == ["failed", "rolled_back", "rolled_back"]
    assert session().run().counts.completed == 3


def test_files_that_a_killed_process_left_go_when_the_next_run_begins(session, journal):
    session().run()
    (folder,) = {path.parent for path in journal.parent.rglob("*.arrow")}
    (folder / "sofifi-000000-0123456789ab.arrow").write_bytes(b"")
    seen = []
    made = session(table=TABLE.assign(quantity=3), backend=Inline(on_run=lambda: seen.append(len([*folder.iterdir()]))))
    made.run()
    assert seen[0] == 3
