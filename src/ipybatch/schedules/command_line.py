"""Command line: ``python -m ipybatch schedule list|add|remove|pause|resume|run-now|answer|next|run-due``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import msgspec

from ipybatch.engine.data.masking import mask, printable
from ipybatch.errors import InputError
from ipybatch.schedules import schedule as schedules
from ipybatch.schedules.schedule import Schedule

_VERBS = {
    "list": "list the schedules",
    "add": "make a schedule, or change one with --replace",
    "next": "show the next times of a schedule",
    "pause": "submit nothing until it is resumed",
    "resume": "go on after a pause",
    "run-now": "submit it once now; its times stay as they are",
    "answer": "say what to do about times that were missed",
    "remove": "remove a schedule; what it has submitted stays",
    "run-due": "submit what is due and run it here, until nothing is left: for cron, where no Jupyter server runs",
}
_COLUMNS = ("name", "state", "when", "zone", "next", "last", "last_state")
_TIME = "%a %Y-%m-%d %H:%M"


def add_parser(verbs: Any) -> None:
    """Add the command to others.

    Args:
        verbs: As `argparse` makes them for commands.
    """
    told = "work that is submitted again and again"
    made = verbs.add_parser("schedule", help=told, description=f"{told[0].upper()}{told[1:]}.")
    actions = made.add_subparsers(dest="action", required=True, metavar="ACTION")
    for action, help_ in _VERBS.items():
        one = actions.add_parser(action, help=help_, description=f"{help_[0].upper()}{help_[1:]}.")
        if action not in ("list", "run-due"):
            one.add_argument("schedule", metavar="NAME", help="of the schedule")
        if action == "answer":
            one.add_argument("answer", choices=("run", "skip"), help="run once now for all of them, or skip them")
        if action == "add":
            _add_arguments(one)
        if action in ("list", "next", "run-due"):
            one.add_argument("--json", action="store_true")
        one.add_argument("--journal", type=Path, metavar="PATH", help="in place of the default one")


def _add_arguments(one: argparse.ArgumentParser) -> None:
    one.add_argument("--template", required=True, metavar="NAME", help="what is submitted, such as refresh")
    one.add_argument("--requests", metavar="JSON", help="a list as JSON, or @FILE")
    one.add_argument("--params", metavar="JSON", help="arguments of the template as JSON, or @FILE")
    one.add_argument("--upload", metavar="ID", help="of a table that a server keeps")
    one.add_argument("--priority", choices=("high", "medium", "low"))
    one.add_argument(
        "--notify", metavar="CHANNEL", action="append", help="is told how each run ends, and of times without a run"
    )
    one.add_argument("--every", metavar="SPAN", help="30m, 6h, 1d, 1w")
    one.add_argument("--at", metavar="HH:MM", help="with whole days: the time of the clock")
    one.add_argument("--cron", metavar="RULE", help="minute hour day month weekday, in place of --every")
    one.add_argument("--zone", help="whose clocks count, such as Europe/Berlin; default: this machine's")
    one.add_argument("--start-at", metavar="TIME", help="not before then: HH:MM or ISO 8601")
    one.add_argument("--until", metavar="TIME", help="not after then: ISO 8601")
    told = "what to do about times that passed while nothing was there to submit; default: run, once"
    one.add_argument("--misfire", choices=("run", "skip", "ask"), default="run", help=told)
    one.add_argument("--grace", metavar="SPAN", default="15m", help="how late a time is not missed yet; default: 15m")
    one.add_argument("--paused", action="store_true", help="submit nothing until it is resumed")
    one.add_argument("--replace", action="store_true", help="change the one of this name")


def execute(given: argparse.Namespace) -> Iterator[str]:
    """Do what was asked, and yield what is to be written.

    Raises:
        BatchError: It is not possible, or what was run did not complete; says why.
    """
    journal = given.journal
    if given.action == "run-due":
        yield from _run_due(journal, as_json=given.json)
    elif given.action == "list":
        yield from _list(journal, as_json=given.json)
    elif given.action == "next":
        times = schedules.next_times(given.schedule, journal=journal)
        yield from [_json([at.isoformat() for at in times])] if given.json else [at.strftime(_TIME) for at in times]
    elif given.action == "remove":
        schedules.remove(given.schedule, journal=journal)
        yield f"{printable(given.schedule)}: removed"
    elif given.action == "add":
        yield _said(_add(given, journal))
    elif given.action == "answer":
        yield _said(schedules.answer(given.schedule, given.answer, journal=journal))
    else:
        command = {"pause": schedules.pause, "resume": schedules.resume, "run-now": schedules.run_now}[given.action]
        yield _said(command(given.schedule, journal=journal))


def _add(given: argparse.Namespace, journal: Path | None) -> Schedule:
    return schedules.add(
        given.schedule,
        given.template,
        requests=_read(given.requests, "--requests"),
        params=_read(given.params, "--params"),
        upload=given.upload,
        priority=given.priority,
        notify=given.notify,
        every=given.every,
        at=given.at,
        cron=given.cron,
        zone=given.zone,
        start_at=given.start_at,
        until=given.until,
        misfire=given.misfire,
        grace=given.grace,
        paused=given.paused,
        replace=given.replace,
        journal=journal,
    )


def _read(text: str | None, field: str) -> Any:
    """Return JSON, of a file where it says so.

    Raises:
        InputError: It is none.
    """
    if text is None:
        return None
    try:
        return msgspec.json.decode(Path(text[1:]).read_bytes() if text.startswith("@") else text)
    except (msgspec.DecodeError, UnicodeError) as error:
        msg = f"{field} must be JSON, or @FILE with JSON in it: {error}"
        raise InputError(msg) from None


def _list(journal: Path | None, *, as_json: bool) -> Iterator[str]:
    found = schedules.list(journal)
    if as_json:
        rows = found.astype(object).where(found.notna(), None).to_dict("records")
        yield _json([{**row, "next": row["next"] and row["next"].isoformat()} for row in rows])
        return
    if found.empty:
        yield "no schedules"
        return
    table = [_COLUMNS, *(tuple(_cell(row[column]) for column in _COLUMNS) for _, row in found.iterrows())]
    yield from _lines(table)
    for _, row in found.iterrows():
        if said := row["question"] or row["note"]:
            yield mask(printable(f"{row['name']}: {said}"))


def _cell(value: Any) -> str:
    if isinstance(value, str):
        return value
    return "" if value is None or value != value else value.strftime(_TIME)  # noqa: PLR0124  # NaT


def _lines(table: Sequence[tuple[str, ...]]) -> Iterator[str]:
    shown = [[mask(printable(cell)) for cell in row] for row in table]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    for row in shown:
        yield "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()


def _run_due(journal: Path | None, *, as_json: bool) -> Iterator[str]:
    with redirect_stdout(sys.stderr if as_json else sys.stdout):  # lines of progress
        ended = schedules.run_due(journal)
    if as_json:
        yield _json(ended.to_dict("records"))
    left = ended[ended["state"] != "COMPLETED"]
    if not left.empty:
        why = "; ".join(f"{row['name']}: {row['state']} {row['reason']}".rstrip() for _, row in left.iterrows())
        msg = f"{len(left):,} of {len(ended):,} runs did not complete: {why}"
        raise InputError(msg)


def _said(told: Schedule) -> str:
    if told.state == "waiting" and told.next_times:
        said = f"next {told.next_times[0].strftime(_TIME)} ({told.zone})"
    else:
        said = told.question or told.state
    last = f"; {told.last}: {told.last_state}" if told.last_state in ("PENDING", "RUNNING") else ""
    return mask(printable(f"{told.name}: {said}{last}"))


def _json(told: Any) -> str:
    return msgspec.json.format(msgspec.json.encode(told), indent=2).decode()
