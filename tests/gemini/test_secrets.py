"""The API key appears nowhere: journal, events, log, errors, repr, files, what a notebook shows and saves.

Every way in is tried: the key is given to us, comes with a client of the user's own, or stands in the environment;
and the service tells it back in whatever it answers.
"""

import pytest

pytest.importorskip("google.genai")
from google import genai
from google.genai import types

from ipybatch import Retry
from ipybatch.engine.data.masking import mask
from ipybatch.engine.run import feedback
from ipybatch.engine.run.engine_thread import engine_thread
from ipybatch.errors import BatchError
from ipybatch.gemini import GeminiBatches
from ipybatch.jupyter.panel import Panel
from ipybatch.simulators.service import as_json, as_page

from .conftest import MODEL, names

# google-genai derives a class from aiohttp's session, which aiohttp discourages
pytestmark = pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning")
ECHOES = ["400", "403", "429", "500", "text", "page"]


@pytest.fixture
def secret(request):
    """A key that no other test has registered, with letters that JSON and addresses spell otherwise."""
    stem = f"k3y{abs(hash(request.node.name)):x}"
    return stem, f'{stem}/+ "x'


def echo(desk, key, status):
    """Let the service tell the key back."""

    def answer(request, now_s):
        if status == "page":
            return as_page(f"no {key} here", status=200)
        if status == "text":
            told = {"content": {"parts": [{"text": f"your key is {key}"}]}, "finishReason": "STOP"}
            return as_json({"candidates": [told], "usageMetadata": {"promptTokenCount": 1}, "modelVersion": key})
        details = [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": key}]
        error = {"code": int(status), "message": f"no {key} here", "status": f"BAD {key}", "details": details}
        return as_json({"error": error}, status=int(status))

    desk.server.simulator.refused = answer


@pytest.fixture
def said(capsys, caplog):
    """Return what was printed and logged."""
    return lambda: [*capsys.readouterr(), caplog.text]


@pytest.fixture(params=["given", "client", "environment"])
def way_in(request, desk, secret, monkeypatch):
    """Arguments that tell the key one way."""
    _, key = secret
    desk.open(key=key)
    if request.param == "given":
        yield {"base_url": desk.server.url, "api_key": key}
    elif request.param == "environment":
        monkeypatch.setenv("GEMINI_API_KEY", key)
        yield {"base_url": desk.server.url, "api_key": None}
    else:
        client = genai.Client(api_key=key, http_options=types.HttpOptions(base_url=desk.server.url))
        yield {"client": client}
        engine_thread().spawn(client.aio.aclose()).result()
        client.close()


def found(stem, tmp_path, *told):
    """Return where the secret stands, of all files and of what was told."""
    places = [path.name for path in tmp_path.rglob("*") if path.is_file() and stem.encode() in path.read_bytes()]
    return places + [text[:200] for text in map(str, told) if stem in text]


@pytest.mark.parametrize("status", ECHOES)
def test_a_session_tells_the_key_nowhere(desk, secret, way_in, *, tmp_path, status, said, monkeypatch):
    monkeypatch.setattr(feedback, "DENIED_S", 0.1)  # a 429 that never ends: the session does, in an hour
    stem, key = secret
    echo(desk, key, status)
    heard = []
    quick = {"retry": Retry(attempts=2, initial_s=0.01), "breaker": None}
    session = desk.session([*names(3), {"id": "mine", "prompt": f"What is {key}?"}], **quick, **way_in)
    session.on(lambda event: heard.append(repr(event)))
    session.run(verbose=True)
    session.save(tmp_path / "out.csv")
    session.save(tmp_path / "out.jsonl")
    session.export_html(tmp_path / "out.html")
    told = [repr(session), session.reason, session.summary, session.results().to_dict(), session.log().to_dict()]
    told += [session.usage().to_dict(), session.snapshot, Panel(session)._repr_mimebundle_()]
    assert len(heard) > 4
    assert found(stem, tmp_path, *told, *heard, *said()) == []


def test_the_key_would_be_found(desk, secret, tmp_path):
    """The search finds a key that nobody masks."""
    stem, key = secret
    desk.run([f"What is {key}?"])
    assert "journal.db" in " ".join(found(stem, tmp_path, "nothing"))


@pytest.mark.parametrize("status", ["400", "403"])
def test_jobs_by_hand_tell_the_key_nowhere(desk, secret, way_in, tmp_path, status):
    stem, key = secret
    echo(desk, key, status)
    with GeminiBatches(**way_in, journal=desk.journal, grace_s=0.1) as batches:
        with pytest.raises(BatchError) as raised:
            batches.create_text(names(2), model=MODEL)
        told = [raised.value, repr(batches), batches.history().to_dict()]
    assert found(stem, tmp_path, *told) == []
    assert mask(key) == "***"
