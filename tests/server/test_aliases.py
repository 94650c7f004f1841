"""The routes of two other systems, with their names, from a request to its results; each session in this process."""

import csv
import io

import pytest

pytest.importorskip("google.genai")
pytest.importorskip("sklearn")
from ipybatch.gemini import CreditAccount
from ipybatch.server import upload_store
from ipybatch.server.run import work
from ipybatch.server.templates import generation
from ipybatch.server.uploads import sweep
from ipybatch.simulators import serve
from ipybatch.simulators.demand import demand


@pytest.fixture(scope="module")
def gemini():
    server = serve("gemini", latency_s=0.001, batch_delay_s=0.02)
    yield server
    server.close()


@pytest.fixture
def server(served, gemini, monkeypatch, patience):
    """The server, with a simulator in place of Gemini, and credits."""

    async def at_once(work, *arguments):
        return work(*arguments)

    monkeypatch.setattr(upload_store, "apart", at_once)
    monkeypatch.setattr(upload_store, "run_apart", lambda work, *arguments: work(*arguments))
    monkeypatch.setattr(generation, "SIMULATOR_POLL_S", 0.02)
    monkeypatch.setenv("GEMINI_BASE_URL", gemini.url)
    CreditAccount().grant(30)
    return served


PROMPTS = [{"prompt": f"A fox, pose {number}"} for number in range(5)]


def create(server, type_="character", requests=PROMPTS, headers=None, **more):
    answer = server.post("/ipybatch/batch/create", json={"type": type_, "requests": requests, **more}, headers=headers)
    assert answer.status_code == 202, answer.text
    return answer.json()


WRONG = [
    ({"type": "text", "requests": PROMPTS}, 422, "type"),
    ({"type": "food", "requests": []}, 422, "requests"),
    ({"type": "food", "requests": PROMPTS * 5}, 422, "requests"),
    ({"type": "food", "requests": [{"prompt": "a", "imageBase64": "/etc/passwd"}]}, 422, "requests[0].imageBase64"),
    ({"type": "food", "requests": [{}]}, 422, "requests[0].prompt"),
    ({"type": "food", "requests": PROMPTS, "display_name": "a"}, 422, "body"),
    ({"type": "food"}, 422, "body"),
    ({"type": "food", "requests": PROMPTS, "displayName": "a\nb"}, 422, "name"),
]


class TestImages:
    def test_a_job_from_its_request_to_its_images(self, server):
        made = create(server, displayName="Foxes")
        job = made["id"]
        assert made == {
            "id": job,
            "status": "pending",
            "type": "batch-character",
            "requestCount": 5,
            "creditCost": 10.0,
            "message": "Batch of 5 requests submitted",
        }
        told = server.get(f"/ipybatch/batch/status/{job}").json()
        created = told.pop("createdAt")
        assert told == {
            "id": job,
            "status": "pending",
            "type": "batch-character",
            "results": [],
            "errors": [],
            "successCount": 0,
            "failCount": 0,
            "requestCount": 5,
        }
        work(job)
        told = server.get(f"/ipybatch/batch/status/{job}").json()
        assert (told["status"], told["successCount"], told["failCount"]) == ("completed", 5, 0)
        assert len(set(told["results"])) == 5
        for url in told["results"]:
            image = server.request("GET", url)
            assert (image.status_code, image.headers["Content-Type"]) == (200, "image/png")
            assert image.content.startswith(b"\x89PNG")
        assert server.get("/ipybatch/batch/history").json() == [
            {
                "id": job,
                "status": "completed",
                "type": "batch-character",
                "createdAt": created,
                "requestCount": 5,
                "successCount": 5,
                "creditCost": 10.0,
            }
        ]
        assert CreditAccount().balance == 20

    def test_a_display_name_is_of_many_jobs(self, server):
        ids = {create(server, displayName="Foxes")["id"] for _ in range(2)}
        assert len(ids) == 2
        names = {one["name"] for one in server.get("/submissions").json()["items"]}
        assert len(names) == 2
        assert all(name.startswith("Foxes ") for name in names)

    def test_a_key_makes_one_job(self, server):
        ids = {create(server, displayName="Foxes", headers={"Idempotency-Key": "k"})["id"] for _ in range(2)}
        assert len(ids) == 1

    @pytest.mark.parametrize(("type_", "cost"), [("character", 10), ("food", 10), ("product", 12.5)])
    def test_the_kinds_and_what_they_cost(self, server, type_, cost):
        made = create(server, type_)
        assert (made["type"], made["creditCost"]) == (f"batch-{type_}", cost)

    def test_too_few_credits_are_told_with_the_balance(self, server, gemini):
        before = gemini.stats()
        body = {"type": "product", "requests": [{"prompt": f"Lamp {number}"} for number in range(20)]}
        answer = server.post("/ipybatch/batch/create", json=body)
        assert answer.status_code == 402
        assert "balance of 30" in answer.json()["detail"]
        assert server.get("/ipybatch/batch/history").json() == []
        assert gemini.stats() == before

    @pytest.mark.parametrize(("body", "status", "field"), WRONG)
    def test_what_is_wrong_is_named(self, server, body, status, field):
        answer = server.post("/ipybatch/batch/create", json=body)
        assert (answer.status_code, answer.json()["field"]) == (status, field), answer.text


TABLE = demand(120, 4)
CSV = TABLE.to_csv(index=False).encode()
QUICK = {"horizon": "3", "models": '["naive"]'}


def submit(server, data=CSV, headers=None, **fields):
    """Submit a table in a form."""
    answer = server.post(
        "/ipybatch/api/batch/submit",
        files={"file": ("demand.csv", data, "text/csv")},
        data={**QUICK, **fields},
        headers=headers,
    )
    assert answer.status_code == 202, answer.text
    return answer.json()


class TestForecasts:
    def test_who_asks_and_what_it_is_called_may_be_in_the_query(self, server):
        """A token is one of Jupyter's ways to ask; the form's fields count before the query's."""
        data = demand(60, 2).to_csv(index=False)
        headers = {"Authorization": "", "Content-Type": "text/csv"}
        query = "token=t0ken&_xsrf=a&display_name=Spare+parts&horizon=7"
        answer = server.post(f"/ipybatch/api/batch/submit?{query}", content=data, headers=headers)
        assert answer.status_code == 202, answer.text
        told = server.get(f"/submissions/{answer.json()['batch_id']}").json()
        assert told["name"].startswith("Spare parts ")

    def test_a_table_from_its_upload_to_one_csv(self, server):
        made = submit(server, partition_strategy="site", max_execution_time="60", max_partitions="20")
        batch = made["batch_id"]
        assert made == {"batch_id": batch, "status": "PENDING", "progress": 0.0, "partitions": [], "error": ""}
        work(batch)
        told = server.get(f"/ipybatch/api/batch/status/{batch}").json()
        assert (told["status"], told["progress"], told["error"]) == ("COMPLETED", 100.0, "")
        assert [part["partition"] for part in told["partitions"]] == [1, 2, 3, 4]
        assert {part["status"] for part in told["partitions"]} == {"COMPLETED"}
        assert sum(part["rows"] for part in told["partitions"]) == 120
        assert all(part["sites"] == 1 and part["parts"] and part["time"] > 0 for part in told["partitions"])
        (listed,) = server.get("/ipybatch/api/batch/history").json()
        assert listed == {**told, "partitions": []}
        answer = server.get(f"/ipybatch/api/batch/download/{batch}")
        assert answer.headers["Content-Type"].startswith("text/csv")
        rows = list(csv.DictReader(io.StringIO(answer.text)))
        series = TABLE[["site", "part"]].drop_duplicates()
        assert len(rows) == 3 * len(series)
        assert {"site", "part", "date", "forecast"} <= set(rows[0])

    def test_a_table_goes_once_it_is_forecast(self, server, monkeypatch):
        batch = submit(server)["batch_id"]
        sweep()
        (upload,) = {path.stem for path in upload_store.folder_of().iterdir()}
        work(batch)
        assert server.get(f"/uploads/{upload}").status_code == 200
        again = submit(server)["batch_id"]
        monkeypatch.setattr(upload_store, "DONE_S", 0.0)
        sweep()
        assert server.get(f"/uploads/{upload}").status_code == 200, "the second one needs it"
        work(again)
        sweep()
        assert server.get(f"/uploads/{upload}").status_code == 404

    def test_a_table_as_the_body_with_a_query(self, server):
        path = "/ipybatch/api/batch/submit?partition_strategy=auto&max_rows_per_partition=60&horizon=3"
        answer = server.post(path, content=CSV, headers={"Content-Type": "text/csv"})
        assert answer.status_code == 202, answer.text
        (item,) = server.get("/submissions").json()["items"]
        assert item["request_count"] == 2

    def test_a_bad_row_rolls_back_and_is_told_as_they_tell_it(self, server):
        frame = TABLE.astype({"date": str})
        last = frame[frame["site"] == frame["site"].iloc[-1]].index[0]
        frame.loc[last, "date"] = "31/13/2025"
        batch = submit(server, frame.to_csv(index=False).encode())["batch_id"]
        work(batch)
        told = server.get(f"/ipybatch/api/batch/status/{batch}").json()
        assert told["status"] == "ROLLED_BACK"
        (failed,) = [part for part in told["partitions"] if part["status"] == "FAILED"]
        assert failed["error"].startswith(f"Partition {failed['partition']} error: Invalid date format '31/13/2025'")
        assert {part["status"] for part in told["partitions"]} == {"FAILED", "ROLLED_BACK"}
        assert told["error"].startswith(f"Partition {failed['partition']} error: Invalid date format")

    def test_a_cancelled_one_is_submitted_again(self, server):
        batch = submit(server)["batch_id"]
        answer = server.post(f"/ipybatch/api/batch/cancel/{batch}")
        assert answer.headers["Location"] == f"/ipybatch/api/batch/status/{batch}"
        told = answer.json()
        assert (told["batch_id"], told["status"]) == (batch, "CANCELLED")
        assert server.post(f"/ipybatch/api/batch/cancel/{batch}").status_code == 409
        again = submit(server)["batch_id"]
        assert again != batch
        work(again)
        assert server.get(f"/ipybatch/api/batch/status/{again}").json()["status"] == "COMPLETED"

    def test_a_key_makes_one_forecast(self, server):
        ids = {submit(server, headers={"Idempotency-Key": "k"})["batch_id"] for _ in range(2)}
        assert len(ids) == 1

    @pytest.mark.parametrize(
        ("query", "field"),
        [
            ("partition_strategy=random", "params.partition_strategy"),
            ("max_partitions=many", "params.max_partitions"),
            ("max_execution_time=0", "params.max_execution_time"),
            ("output=/tmp/x.csv", "params.output"),
        ],
    )
    def test_what_is_wrong_is_named(self, server, query, field):
        answer = server.post(f"/ipybatch/api/batch/submit?{query}", content=CSV, headers={"Content-Type": "text/csv"})
        assert (answer.status_code, answer.json()["field"]) == (422, field), answer.text
        assert server.get("/ipybatch/api/batch/history").json() == []


def test_each_finds_its_own_alone(server):
    job, batch = create(server)["id"], submit(server)["batch_id"]
    answers = [
        server.get(f"/ipybatch/batch/status/{batch}"),
        server.get("/ipybatch/batch/status/nowhere"),
        server.get(f"/ipybatch/api/batch/status/{job}"),
        server.get(f"/ipybatch/api/batch/download/{job}"),
        server.get(f"/ipybatch/api/batch/download/{batch}"),  # there is nothing yet
        server.post(f"/ipybatch/api/batch/cancel/{job}"),
    ]
    assert [answer.status_code for answer in answers] == [404, 404, 404, 404, 409, 404]
    assert [one["id"] for one in server.get("/ipybatch/batch/history").json()] == [job]
    assert [one["batch_id"] for one in server.get("/ipybatch/api/batch/history").json()] == [batch]
