"""Several answers of each prompt."""

import pandas as pd
import pytest

pytest.importorskip("google.genai")

from ipybatch import InputError
from tests.gemini.conftest import names
from tests.gemini.nights import SOON, night
from tests.gemini.nights import night_service as gemini


def test_each_sample_is_a_row(desk):
    session = desk.run(names(2), samples=3)
    one, two = names(2)
    assert session.results()["key"].tolist() == [one, f"{one}#2", f"{one}#3", two, f"{two}#2", f"{two}#3"]
    assert list(desk.asked.values()) == [3, 3]
    frame = session.results(with_items=True)
    assert frame["prompt"].tolist() == [one] * 3 + [two] * 3
    assert frame["sample"].tolist() == [1, 2, 3] * 2


@pytest.mark.parametrize("name", [None, "stars"])
def test_more_samples_pay_for_no_more_than_these(desk, name):
    """Fewer pay for none, and lose none: they are there when more are asked for again."""
    desk.run(names(2), name=name)
    for samples, sent in ((3, 6), (1, 6), (2, 6), (4, 8)):
        session = desk.run(names(2), name=name, samples=samples)
        assert (session.counts.completed, desk.sent) == (2 * samples, sent)


def test_the_columns_of_a_frame_stand_beside_every_sample(desk):
    frame = pd.DataFrame({"id": [7, 8], "prompt": names(2), "shelf": ["x", "y"]}, index=["a", "b"])
    results = desk.run(frame, samples=2).results(with_items=True)
    assert results.index.tolist() == ["a", "a", "b", "b"]
    assert results["key"].tolist() == [7, "7#2", 8, "8#2"]
    assert results["shelf"].tolist() == ["x", "x", "y", "y"]
    assert results["sample"].tolist() == [1, 2, 1, 2]


def test_a_column_of_that_name_is_left_as_it_is(desk):
    frame = pd.DataFrame({"prompt": names(1), "sample": ["blood"]})
    assert desk.run(frame, samples=2).results(with_items=True)["sample"].tolist() == ["blood", "blood"]


def test_in_a_batch_each_sample_is_a_request(journal, clock):
    with gemini(batch_delay_s=SOON) as service:
        session = night(service, journal, 2, clock=clock, samples=3)
        clock.run(session)
        assert session.counts.completed == 6
        assert service.truth()["billed"]["batch"]["generations"] == 6
        assert [group.items for group in session.snapshot.groups.values()] == [6]


@pytest.mark.parametrize(
    ("prompts", "samples", "said"),
    [
        (["a"], 0, "samples must be a whole number >= 1"),
        (["a"], True, "samples must be a whole number"),
        (["a"], 1.5, "samples must be a whole number"),
        (["a", "a"], 2, 'items 0 and 1 share the key "a"'),
        (["a", {"id": "a#2", "prompt": "b"}], 2, 'items 1 and 2 share the key "a#2"'),
    ],
)
def test_what_would_mix_answers_up_is_refused(desk, prompts, samples, said):
    with pytest.raises(InputError, match=said):
        desk.session(prompts, samples=samples)
