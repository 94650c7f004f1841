"""What the tests of Gemini sessions share: a simulated service on loopback, and sessions that use it."""

import json

import pytest

pytest.importorskip("google.genai")
from google.genai import types

from ipybatch.gemini import generate
from ipybatch.simulators import serve

KEY = "SIMULATED-k3y/+x"
MODEL = "gemini-2.5-flash"


class Desk:
    """A service, a journal, and sessions of one name between them; `seen` is what the server knows."""

    def __init__(self, journal):
        self.journal = journal
        self.server = None
        self._made = []

    def open(self, **options):
        """Start a service, in place of the one before."""
        self.close()
        self.server = serve("gemini", **{"key": KEY, "latency_s": 0.01, **options})

    def session(self, prompts, **arguments):
        if self.server is None:
            self.open()
        reached = {"base_url": self.server.url, "api_key": KEY} if "client" not in arguments else {}
        made = generate(prompts, **{"name": "stars", "journal": self.journal, **reached, **arguments})
        self._made.append(made)
        return made

    def run(self, prompts, **arguments):
        session = self.session(prompts, **arguments)
        session.run()
        return session

    def close(self):
        if self.server is not None:
            self.server.close()

    def end(self):
        for session in self._made:
            session.cancel()
        self.close()

    @property
    def truth(self):
        return self.server.simulator.truth(self.server.now_s())

    @property
    def stats(self):
        return self.server.stats()

    @property
    def asked(self):
        """How often each prompt was sent, whatever became of it."""
        return {prompt: seen["requests"] for prompt, seen in self.truth["prompts"].items()}

    @property
    def sent(self):
        """How many requests for content there were."""
        return sum(self.asked.values())

    @property
    def refused(self):
        return self.truth["refused"]

    def calls(self):
        """Every call in the journal, in order: (lane, model, status, operation, project)."""
        from ipybatch.engine.store.journal import open_journal

        with open_journal(self.journal).reader() as database:
            return database.execute("SELECT lane, model, status, operation, project FROM usage").fetchall()


@pytest.fixture
def desk(journal, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    made = Desk(journal)
    yield made
    made.end()


def names(count):
    """Prompts that differ."""
    return [f"Name star {number}" for number in range(count)]


def client_arguments(prompt, request_config):
    """What the client's own generate_content is given to send the same."""
    contents = [types.Content.model_validate_json(json.dumps(turn)) for turn in prompt.wire(request_config)["contents"]]
    config = {
        **request_config.generation(prompt.config),
        "systemInstruction": prompt.system or request_config.system,
        "serviceTier": "flex" if request_config.lane == "flex" else None,
        "automaticFunctionCalling": {"disable": True},
    }
    return {"contents": contents, "config": types.GenerateContentConfig.model_validate(config)}
