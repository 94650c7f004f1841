"""Remote jobs as rows of the panel's table."""

from ipybatch.engine.data.clock import SystemClock
from ipybatch.gemini.job_groups import JobGroups
from ipybatch.gemini.jobs import Job


def show(**fields):
    told = []
    made = Job(display_name="night-1", session="night", number=1, model="gemini-2.5-flash", keys=("1",), **fields)
    JobGroups(told.append, SystemClock()).show(made)
    return told[-1]


def test_a_job_tells_how_many_of_its_items_go_into_another_one():
    """They are not among its row's items any more, which would look as if it were not done."""
    assert show(state="succeeded", counts={"requests": 20, "failed": 3}).error == "3 failed, to be sent again"
    assert not show(state="succeeded", counts={"requests": 20}).error


def test_a_running_job_tells_how_far_it_is():
    running = show(state="running", remote="batches/1", counts={"requests": 20, "pending": 15})
    assert running.extra == {"Remote": "batches/1", "State": "running 5/20"}
