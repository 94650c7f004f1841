import asyncio

import pandas as pd
import pytest

from ipybatch.engine.store.journal import open_journal
from ipybatch.errors import InputError, Refused
from ipybatch.gemini import credits_of, usage
from ipybatch.gemini.batch.jobs import JobStore
from ipybatch.gemini.batch.manual import GeminiBatches
from tests.gemini.stories import KEY, MODEL, Session, chunk_of, create_elsewhere, gemini

# google-genai 3.4.0 has a session class of its own, which aiohttp discourages.
pytestmark = pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning")

PROMPTS = [f"Name star {number}" for number in range(5)]


@pytest.fixture
def batches(journal):
    made = []

    def make(service, **options):
        made.append(GeminiBatches(KEY, service.url, journal=journal, **{"grace_s": 0.5, **options}))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_prompts_become_a_frame_of_results(batches):
    with gemini() as service:
        at = batches(service)
        name = at.create_text(PROMPTS, model=MODEL, max_requests_per_job=2, temperature=0.1)
        ended = at.wait(name, poll_s=0.02)
        assert list(ended.state) == ["succeeded"] * 3
        assert list(ended.requests) == [2, 2, 1]
        frame = at.results(name)
        assert list(frame.key) == PROMPTS
        assert set(frame.status) == {"completed"}
        assert frame.text.str.len().min() > 0
        assert frame.tokens_in.min() > 0
        assert at.history().collected.all()


def test_the_same_call_again_submits_nothing(batches):
    """A cell that is run again, in this kernel or the next, finds what it submitted."""
    with gemini() as service:
        name = batches(service).create_text(PROMPTS, model=MODEL)
        assert batches(service).create_text(PROMPTS, model=MODEL) == name
        assert service.jobs == 1
        assert batches(service).create_text(PROMPTS, model=MODEL, temperature=1.0) != name
        assert service.jobs == 2


def test_a_name_holds_one_set_of_prompts(batches):
    with gemini() as service:
        at = batches(service)
        assert at.create_text(PROMPTS, model=MODEL, name="stars") == "stars"
        at.create_text(PROMPTS, model=MODEL, name="stars")
        with pytest.raises(InputError, match=r"got 'stars', which has jobs already: choose another name="):
            at.create_text(PROMPTS, model=MODEL, name="stars", temperature=0.3)
        assert service.jobs == 1


def test_what_an_earlier_call_left_is_finished(batches, journal):
    """Refused at the second job: the same call submits the rest, and the first stays as it is."""
    with gemini(create_faults=[None, "429_before"]) as service:
        at = batches(service)
        with pytest.raises(Exception, match="429"):
            at.create_text(PROMPTS, model=MODEL, name="stars", max_requests_per_job=2)
        assert service.jobs == 1
        at.create_text(PROMPTS, model=MODEL, name="stars", max_requests_per_job=2)
        assert service.jobs == 3
        assert service.submitted_twice == []
        assert [job.number for job in JobStore(open_journal(journal)).of_session("stars")] == [0, 1, 2]


def test_an_unknown_batch_is_sent_again_only_when_it_is_given_up(batches):
    with gemini(create_faults=["drop_before"]) as service:
        at = batches(service, grace_s=0)
        name = at.create_text(PROMPTS, model=MODEL)
        assert list(at.status(name).state) == ["unknown"]
        assert at.create_text(PROMPTS, model=MODEL) == name
        assert service.jobs == 0
        at.forget(name)
        assert at.create_text(PROMPTS, model=MODEL) == name
        assert service.jobs == 1


def test_an_unknown_batch_that_turns_up_is_not_given_up(batches, journal):
    with gemini(create_faults=["drop_before"]) as service:
        at = batches(service, grace_s=0)
        name = at.create_text(PROMPTS, model=MODEL)
        (job,) = JobStore(open_journal(journal)).of_session(name)
        Session(service.url, journal).tell(lambda other: create_elsewhere(other, job.display_name, chunk_of()))
        at.forget(name)
        assert at.status(name).remote[0].startswith("batches/")


def test_failed_items_say_why_and_the_others_are_there(batches):
    with gemini(item_failure_rate=0.4) as service:
        at = batches(service)
        name = at.create_text([f"prompt {number}" for number in range(40)], model=MODEL)
        at.wait(name, poll_s=0.02)
        frame = at.results(name)
        failed = frame[frame.status == "failed"]
        assert 5 < len(failed) < 35
        assert failed.error.str.contains(r"\(code (?:8|13|14)\)").all()
        assert frame[frame.status == "completed"].text.notna().all()


def test_what_was_received_of_a_failed_prompt_stands_in_its_row(batches):
    """As in the results of a session; and one reply that is none fails alone."""
    marks = ["cut", "safety", "blocked", "empty", "error_body", "extras"]
    prompts = ["Name a star", *(f"[[{mark}]] Name a star" for mark in marks)]
    with gemini() as service:
        at = batches(service)
        name = at.create_text(prompts, model=MODEL)
        at.wait(name, poll_s=0.02)
        frame = at.results(name).set_index("key")
        frame.index = ["", *marks]
        assert frame.status.to_dict() == {"": "completed", **dict.fromkeys(marks, "failed"), "extras": "completed"}
        assert frame.text["cut"].startswith("On [[cut]]")
        assert frame.finish_reason[["cut", "safety"]].tolist() == ["MAX_TOKENS", "SAFETY"]
        billed = frame.drop("error_body")
        assert billed.tokens_in.min() > 0
        assert billed.usd.sum() == pytest.approx(usage(journal=at._journal.path).usd.sum())
        assert "images" in frame.dropped["extras"]


@pytest.mark.parametrize("schema", [int, None])
def test_a_text_that_does_not_fit_the_schema_is_not_lost(batches, schema):
    with gemini() as service:
        at = batches(service)
        name = at.create_text(PROMPTS[:1], model=MODEL)
        at.wait(name, poll_s=0.02)
        row = at.results(name, schema=schema).iloc[0]
        assert row.status == ("completed" if schema is None else "failed")
        assert row.text.startswith("On ")


def test_data_is_read_by_its_schema(batches):
    schema = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
    with gemini() as service:
        at = batches(service)
        name = at.create_text(PROMPTS, model=MODEL, schema=schema)
        at.wait(name, poll_s=0.02)
        assert all(isinstance(data["name"], str) for data in at.results(name, schema=schema).data)


def test_images_are_saved(batches, tmp_path):
    with gemini() as service:
        at = batches(service)
        name = at.create_image(PROMPTS[:2], model="gemini-2.5-flash-image")
        at.wait(name, poll_s=0.02)
        frame = at.results(name, folder=tmp_path / "images")
        assert set(frame.status) == {"completed"}
        assert len(list((tmp_path / "images").iterdir())) == 2


def test_results_of_a_running_batch_are_pending(batches):
    with gemini(batch_delay_s=None) as service:
        at = batches(service)
        name = at.create_text(PROMPTS, model=MODEL)
        assert list(at.results(name).status) == ["pending"] * 5
        assert at.wait(name, poll_s=0.02, wait_s=0).state[0] in ("pending", "running")


def test_a_failed_batch_gives_its_reason_for_each_prompt(batches):
    with gemini(job_faults=["fail"]) as service:
        at = batches(service)
        name = at.create_text(PROMPTS, model=MODEL)
        at.wait(name, poll_s=0.02)
        frame = at.results(name)
        assert set(frame.status) == {"failed"}
        assert frame.error.str.contains("internal error while reading the requests").all()


def test_deleting_a_running_batch_is_refused_since_it_would_run_on(batches):
    with gemini(batch_delay_s=None) as service:
        at = batches(service)
        name = at.create_text(PROMPTS, model=MODEL)
        with pytest.raises(InputError, match=r"deleting does not cancel it: it would run on and be billed; cancel"):
            at.delete(name)
        at.delete(name, force=True)
        assert len(at.list()) == 0
        (states,) = service.truth()["jobs"].values()
        assert states in (["CANCELLED"], ["RUNNING"], ["PENDING"])
        with pytest.raises(InputError, match="see history"):
            at.status(name)


def test_a_cancelled_batch_ends(batches):
    with gemini(batch_delay_s=None, cancel_s=0.0) as service:
        at = batches(service)
        name = at.create_text(PROMPTS, model=MODEL)
        assert list(at.cancel(name).state) == ["cancelled"]
        at.delete(name)


def test_the_list_tells_ours_from_others(batches, journal):
    with gemini() as service:
        at = batches(service)
        at.create_text(PROMPTS, model=MODEL)
        Session(service.url, journal).tell(lambda other: create_elsewhere(other, "somebody's", chunk_of(2)))
        frame = at.list().set_index("ours")
        assert frame.loc[False, "display_name"] == "somebody's"
        assert frame.loc[False, "requests"] == 2
        assert frame.loc[True, "requests"] == 5
        assert str(frame.created.dtype).startswith("datetime64[ns, UTC")
        assert list(at.history().display_name) == [frame.loc[True, "display_name"]]


def test_it_works_in_a_cell_whose_loop_runs(batches):
    """A notebook's loop is running while a cell calls; ours is another."""
    with gemini() as service:
        at = batches(service)

        async def cell():
            return at.create_text(PROMPTS, model=MODEL)

        assert asyncio.run(cell()).startswith("text-")


def test_bad_input_is_refused_before_the_first_call(batches):
    with gemini() as service:
        at = batches(service)
        with pytest.raises(InputError, match="prompts must hold at least one prompt"):
            at.create_text([], model=MODEL)
        with pytest.raises(InputError, match="prompts 0 and 2 have the same key 'a'"):
            at.create_text(["a", "b", "a"], model=MODEL)
        with pytest.raises(InputError, match="max_requests_per_job must be"):
            at.create_text(["a"], model=MODEL, max_requests_per_job=0)
        with pytest.raises(InputError, match=r"poll_s must be"):
            at.wait("any", poll_s=0)
        with pytest.raises(InputError, match=r"got 'nothing': see history\(\)"):
            at.results("nothing")
        assert service.jobs == 0


def test_the_key_is_nowhere(batches, journal):
    """Not in the journal, the frames, the repr or an error."""
    secret = "AIza-secret-of-this-test"
    with gemini(key=secret) as service:
        at = GeminiBatches(secret, service.url, journal=journal)
        name = at.create_text([f"{prompt} {secret}" for prompt in PROMPTS[:2]], model=MODEL)
        at.wait(name, poll_s=0.02)
        shown = repr(at) + at.history().to_csv() + at.list().to_csv()
        at.close()
        wrong = GeminiBatches("AIza-secret-but-wrong", service.url, journal=journal)
        with pytest.raises(Refused) as caught:
            wrong.create_text(["x"], model=MODEL)
        wrong.close()
        shown += str(caught.value)
        assert secret not in shown
        assert "secret-but-wrong" not in shown
        for path in journal.parent.glob("journal.db*"):
            assert secret.encode() not in path.read_bytes()


def test_what_answers_cost_is_recorded_once(batches, journal):
    """However often they are read; and blocked answers are billed too."""
    with gemini(item_failure_rate=0.3, answer_faults={"blocked": 0.3}) as service:
        at = batches(service)
        name = at.create_text([f"prompt {number}" for number in range(30)], model=MODEL)
        at.wait(name, poll_s=0.02)
        frames = [at.results(name) for _ in range(2)]
        billed = service.truth()["billed"]["batch"]
        (row,) = usage(journal=journal).to_dict("records")
        assert (row["operation"], row["lane"], row["requests"]) == ("text", "batch", billed["generations"])
        assert 0 < row["failed"] < row["requests"] < 30
        assert (row["tokens_in"], row["tokens_out"]) == (billed["prompt"], billed["out"])
        assert 0 < row["usd"] == pytest.approx(at.history().usd[0])
        assert frames[0].usd.sum() == pytest.approx(frames[1].usd.sum())
        assert frames[0].usd.sum() == pytest.approx(row["usd"])


def test_history_tells_successes_failures_and_cost_of_each_job(batches):
    with gemini(job_faults=[None, "fail"]) as service:
        at = batches(service)
        prompts = [{"id": number, "prompt": f"Pose {number}", "operation": "character"} for number in range(3)]
        one = at.create_text([*prompts, "Name it [[invalid]]"], model=MODEL, name="one")
        other = at.create_text(PROMPTS, model=MODEL, name="other")
        before = at.history()
        assert before[["successful", "failed", "usd", "credits"]].isna().all(axis=None)
        for name in (one, other):
            at.wait(name, poll_s=0.02)
            at.results(name)
        first, second = at.history().to_dict("records")
        assert (first["name"], first["requests"], first["successful"], first["failed"]) == ("one", 4, 3, 1)
        assert first["credits"] == 3 * credits_of("character", lane="batch")
        assert first["usd"] > 0
        assert (second["name"], second["state"], second["requests"]) == ("other", "failed", 5)
        assert pd.isna(second["usd"])


def test_prices_of_the_users_own_hold(batches):
    with gemini(output_tokens=100) as service:
        at = batches(service, prices={MODEL: {"in": 0.0, "out": 2000.0}})
        name = at.create_text(PROMPTS, model=MODEL)
        at.wait(name, poll_s=0.02)
        frame = at.results(name)
        assert frame.usd.tolist() == pytest.approx([tokens * 0.001 for tokens in frame.tokens_out])


def test_the_file_of_a_collected_batch_is_deleted(batches):
    with gemini() as service:
        at = batches(service)
        name = at.create_text(PROMPTS, model=MODEL)
        at.wait(name, poll_s=0.02)
        assert len(service.files) == 1
        at.results(name)
        assert service.files == []
        assert len(at.results(name)) == 5
