"""Every operation of the OpenAPI file is asked what it allows, and what it does not: schemathesis.

Rule: no answer is a fault of the server, and none is undocumented: status, media type, headers, body.  The run of
`make test` is short and the same each time; that of `make chaos` takes minutes, and other examples each time.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import events

from ipybatch.server import upload_store
from ipybatch.server.openapi import FILE
from tests.server.conftest import TOKEN, write_runs

STATUSES = ["2xx", "3xx", "4xx", "501"]  # what comes later answers 501
# A server has one user; what is a table, or a template's parameter, no schema says; 403 is tested elsewhere.
NOT_HERE = {
    name: {"enabled": False}
    for name in ("object_level_authorization", "positive_data_acceptance", "missing_required_header")
}


def ask(url: str, *, examples: int, **settings: Any) -> tuple[list[str], dict[str, Counter[int]]]:
    """Ask every operation; return what went wrong, and how often each operation answered with which status."""
    document = json.loads(FILE.read_text(encoding="utf-8"))
    config = SchemathesisConfig.from_dict(
        {
            "base-url": url,
            "headers": {"Authorization": f"token {TOKEN}"},
            "request-timeout": 20,
            "continue-on-failure": True,
            "suppress-health-check": ["all"],
            "checks": {
                "not_a_server_error": {"expected-statuses": STATUSES},
                "ignored_auth": {"enabled": True},
                **NOT_HERE,
            },
            "operations": [{"include-path": "/ipybatch/api/v1/events", "enabled": False}],  # a stream
            **settings,
            "generation": {
                "max-examples": examples,
                "database": "none",
                "no-shrink": True,
                **settings.pop("generation", {}),
            },
        }
    )
    schema = schemathesis.openapi.from_dict({**document, "servers": [{"url": "/"}]}, config=config)
    wrong: list[str] = []
    asked: dict[str, Counter[int]] = {}
    for event in schemathesis.engine.from_schema(schema).execute():
        if isinstance(event, events.NonFatalError | events.FatalError):
            wrong.append(str(event))
        elif isinstance(event, events.ScenarioFinished):
            answers = [each.response for each in event.recorder.interactions.values() if each.response is not None]
            asked.setdefault(event.recorder.label, Counter()).update(answer.status_code for answer in answers)
            wrong += failures(event.recorder)
    return wrong, asked


def failures(recorder: Any) -> list[str]:
    """What went wrong, with what was asked and answered."""
    found = []
    for case, checks in recorder.checks.items():
        for check in checks:
            if check.failure_info is not None:
                asked = recorder.interactions[case]
                body = (asked.response.content or b"")[:200] if asked.response else b""
                failure = f"{check.name}: {check.failure_info.failure.message}"
                found.append(f"{asked.request.method} {asked.request.uri} -> {body!r}: {failure}")
    return found


async def here(call: Callable[..., Any], *arguments: Any) -> Any:
    return call(*arguments)


def test_every_operation_answers_as_documented(served: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload_store, "apart", here)  # a process for each table is slow
    (run,) = write_runs(tmp_path / "journal.sqlite3", [{"name": "night", "total": 3, "completed": 2, "failed": 1}])
    session = served.services.catalogue.id_of(tmp_path / "journal.sqlite3", run)
    monkeypatch.setenv("IPYBATCH_LIBRARY", str(tmp_path / "library.sqlite3"))
    nightly = {"submission": {"template": "refresh", "requests": [440]}, "every": "1d", "misfire": "ask"}
    assert served.request("PUT", "/schedules/night", json=nightly).status_code == 201
    wrong, asked = ask(
        served.url,
        examples=2,
        parameters={"path.session": session, "path.id": session, "path.schedule": "night"},
        seed=16,
        generation={"deterministic": True},
        phases={"stateful": {"enabled": False}},
    )
    assert wrong == []
    paths = json.loads(FILE.read_text(encoding="utf-8"))["paths"]
    verbs = [(verb, path) for path, told in paths.items() for verb in told if verb != "parameters"]
    for path in ("", "/items", "/results.{suffix}"):
        assert asked[f"GET /ipybatch/api/v1/sessions/{{session}}{path}"][200], "a session that is there"
    assert asked["GET /ipybatch/api/v1/schedules/{schedule}"][200], "a schedule that is there"
    assert {f"{verb.upper()} {path}" for verb, path in verbs if not path.endswith("/events")} <= set(asked)


def test_a_fault_is_found(served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run sees what it is there to see."""
    from ipybatch.server import root
    from ipybatch.server.handler import Handler

    monkeypatch.setattr(Handler, "log_exception", lambda *_: None)
    monkeypatch.setattr(root, "_version", lambda: 1 / 0)
    wrong, _ = ask(
        served.url,
        examples=1,
        phases={"stateful": {"enabled": False}, "coverage": {"enabled": False}},
        operations=[{"exclude-path": "/ipybatch/api/v1", "enabled": False}],
    )
    assert any("GET" in each and "/ipybatch/api/v1 " in each for each in wrong)


@pytest.mark.chaos
def test_every_operation_answers_as_documented_for_minutes(served: Any) -> None:
    wrong, asked = ask(served.url, examples=100, **{"max-time": 300})
    print(*sorted(asked.items()), sep="\n")
    assert wrong == []
