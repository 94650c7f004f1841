"""Look at sessions and command them, whichever process runs them: ``python -m ipybatch list``."""

from __future__ import annotations

import argparse
import datetime as dt
import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import msgspec

from ipybatch.engine.data.masking import mask, printable
from ipybatch.engine.store import history
from ipybatch.engine.store.history import RecordedRun
from ipybatch.engine.store.journal import open_journal
from ipybatch.errors import BatchError, InputError
from ipybatch.session import follower
from ipybatch.session.session import BatchSession

DONE, REFUSED, ASKED, INTERRUPTED, PIPE_CLOSED = 0, 1, 3, 130, 141  # 2 is argparse's

_EPILOG = """exit codes:
  0    done
  1    not possible: no such session, it has ended, its journal cannot be read; one line on standard error says why.
       Of `doctor`: something is wrong. Of `run`: it runs elsewhere, has ended, or did not complete
  2    the command line is wrong
  3    asked, and not taken within a second: whoever runs the session takes it as soon as it can
  130  interrupted
  141  whoever read the output has gone

Nothing makes a journal that is not there. `list` and `show` find the journals that this user's processes have opened
since the machine started, and the default one (IPYBATCH_JOURNAL, else in the user's data folder)."""

_SUFFIXES = (".csv", ".parquet", ".jsonl")
_COMMANDS = {
    "pause": ("let what runs finish, and start nothing more", "paused"),
    "resume": ("go on after a pause", "running"),
    "cancel": ("end what runs, and start nothing more", "cancelled"),
}
_LIVE = ("running", "paused")


def main(arguments: Sequence[str] | None = None) -> int:
    """Execute a command line and return its exit code."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal that does not know a letter of a name
    try:
        given = _parser().parse_args(arguments)
        if sys.stdout is None:  # closed by whoever started it
            if given.verb not in (*_COMMANDS, "run", "schedule"):
                return _refuse("standard output is closed")
            sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115  # until the end
        code = _execute(given)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python says so once more as it ends
        return PIPE_CLOSED
    except KeyboardInterrupt:
        return INTERRUPTED
    except BatchError as error:
        return _refuse(str(error))
    except OSError as error:
        return _refuse(f"{error.filename or 'standard output'}: {error.strerror}")
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ipybatch",
        description=(__doc__ or "").partition(":")[0] + ".",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="COMMAND")

    def add(verb: str, told: str, *, named: bool = True) -> argparse.ArgumentParser:
        made = verbs.add_parser(verb, help=told, description=f"{told[0].upper()}{told[1:]}.")
        if named:
            made.add_argument("name", metavar="NAME", help="of the session")
        made.add_argument("--journal", type=Path, metavar="PATH", help="only this journal")
        return made

    add("list", "list the sessions, oldest first, then the submissions that wait", named=False).add_argument(
        "--json", action="store_true"
    )
    add("show", "show one session, and why its items failed").add_argument("--json", action="store_true")
    for verb, (told, _) in _COMMANDS.items():
        add(verb, told)
    look = "look at what is installed and where, and say what is wrong"
    add("doctor", look, named=False).add_argument("--json", action="store_true")
    told = "run a submission here, and wait for its end: for cron and Slurm, where no Jupyter server does"
    run = add("run", told, named=False)
    run.add_argument("submission", metavar="ID", help="of the submission")
    submit = add(
        "submit",
        "submit work by a template, print the submission's id, and leave it to `run` or to a server",
        named=False,
    )
    submit.add_argument("template", metavar="TEMPLATE", help="one of yours, or one that ships: `template list`")
    submit.add_argument("-r", "--requests", metavar="FILE", help="a JSON list, or a text a line; - for standard input")
    submit.add_argument("--params", type=_object, default={}, metavar="JSON", help="in the place of the template's")
    submit.add_argument("--name", dest="session", default="", metavar="NAME", help="of the session")
    templates = add("template", "list, print or delete templates", named=False)
    templates.add_argument("what", choices=("list", "show", "delete"), metavar="list|show|delete")
    templates.add_argument("template", nargs="?", metavar="NAME", help="of the template, to show or delete")
    templates.add_argument("--json", action="store_true")
    from ipybatch.schedules import command_line as schedule_lines

    schedule_lines.add_parser(verbs)
    from ipybatch.notify import command_line as notify_lines

    notify_lines.add_parser(verbs)
    results = add("results", "print the results as CSV, or write them to a file")
    results.add_argument("-o", "--output", type=_writable, metavar="FILE", help=" ".join(_SUFFIXES))
    return parser


def _writable(text: str) -> Path:
    if (path := Path(text)).suffix in _SUFFIXES:
        return path
    msg = f"must end in {', '.join(_SUFFIXES)}, got {text!r}"
    raise argparse.ArgumentTypeError(msg)


def _execute(given: argparse.Namespace) -> int:
    if (of_no_session := _OF_NO_SESSION.get(given.verb)) is not None:
        return of_no_session(given)
    path, run = _find(given.name, given.journal, is_running=given.verb in _COMMANDS)
    if given.verb == "show":
        return _show(path, run, as_json=given.json)
    if given.verb == "results":
        return _results(BatchSession.open(run.name, journal=path), given.output)
    return _command(given.verb, path, run)


def _runs(journal: Path | None, name: str = "") -> dict[Path, list[RecordedRun]]:
    """Return the runs of each journal, oldest first."""
    return history.everywhere(name=name) if journal is None else {journal: history.look_for_runs(journal, name)}


def _find(name: str, journal: Path | None, *, is_running: bool) -> tuple[Path, RecordedRun]:
    """Return the latest run of a name, and its journal.

    Args:
        is_running: Of several journals, those count in which it is running, if there are any.

    Raises:
        InputError: It is in no journal, or in several.
    """
    latest = {path: runs[-1] for path, runs in _runs(journal, name).items() if runs}
    if is_running:
        latest = {path: run for path, run in latest.items() if run.state in _LIVE} or latest
    if not latest:
        where = f" in {journal}" if journal else ""
        msg = f"no session is called {name!r}{where}: python -m ipybatch list shows those there are"
        raise InputError(msg)
    if len(latest) > 1:
        paths = " or ".join(f"--journal {shlex.quote(str(path))}" for path in latest)
        msg = f"session {name!r} is in {len(latest)} journals: say which by {paths}"
        raise InputError(msg)
    return next(iter(latest.items()))


def _list(journals: dict[Path, list[RecordedRun]], *, as_json: bool) -> int:
    found = [(path, run) for path, runs in journals.items() for run in runs]
    found.sort(key=lambda entry: entry[1].started_s)
    waiting = _waiting(journals)
    if as_json:
        return _write_json([*(_told(path, run) for path, run in found), *waiting])
    if not found and not waiting:
        return _write("no sessions")
    rows = [("name", "state", "done", "failed", "started", "took", "usd", "journal", "reason")]
    rows += [
        (
            run.name,
            run.state,
            f"{_done(run):,} of {'?' if run.total is None else f'{run.total:,}'}",
            f"{run.failed + run.timeout:,}",
            _local(run.started_s, "%Y-%m-%d %H:%M"),
            _duration(run.seconds),
            "" if run.usd is None else f"{run.usd:.2f}",
            str(path),
            run.reason,
        )
        for path, run in found
    ]
    rows += [
        (one["name"], one["state"], f"0 of {one['total']:,}", "", "", "", "", one["journal"], one["reason"])
        for one in waiting
    ]
    return _write_table(rows, right=("done", "failed", "took", "usd"))


def _waiting(journals: Iterable[Path]) -> list[dict[str, Any]]:
    """Return the submissions that wait for `run` or for a server, each as `_told` returns a run."""
    from ipybatch.server import submission_rows

    told: list[dict[str, Any]] = []
    for path in journals:
        rows: list[submission_rows.Row] = submission_rows.ask(path, submission_rows.waiting, [])
        for row in rows:
            after = "" if row.start_at_s is None else f", not before {_local(row.start_at_s, '%Y-%m-%d %H:%M')}"
            why = f"submission {row.id}{after}"
            run = RecordedRun(row.name, 0.0, 0.0, row.requests, 0, 0, 0, 0, 0, "planned", why, None)
            told.append({**_told(path, run), "started": None, "state": "waiting", "submission": row.id})
    return told


def _write_table(rows: Sequence[tuple[str, ...]], right: Sequence[str] = ()) -> int:
    """Print rows under their headings, without columns that are empty."""
    wanted = [at for at in range(len(rows[0])) if any(row[at] for row in rows[1:])]
    table = [[mask(printable(row[at])) for at in wanted] for row in rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    to_the_right = {at for at, column in enumerate(wanted) if rows[0][column] in right}
    limit = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for row in table:
        cells = [f"{cell:{'>' if at in to_the_right else '<'}{widths[at]}}" for at, cell in enumerate(row)]
        _write("  ".join(cells).rstrip()[:limit])
    return DONE


def _show(path: Path, run: RecordedRun, *, as_json: bool) -> int:
    errors: Sequence[Mapping[Any, Any]] = ()
    if run.failed + run.timeout:
        frame = BatchSession.open(run.name, journal=path).errors()
        errors = frame[["message", "count", "status", "scope", "key"]].to_dict("records")
    if as_json:
        return _write_json({**_told(path, run), "errors": errors})
    counts = {word: getattr(run, word) for word in ("completed", "failed", "timeout", "cancelled", "skipped")}
    said = ", ".join(f"{count:,} {word}" for word, count in counts.items() if count) or "none ended"
    told = {
        "state": f"{run.state} {run.where}".rstrip(),
        "reason": _how_to_go_on(path, run) if run.state == "interrupted" else run.reason,
        "started": _local(run.started_s, "%Y-%m-%d %H:%M:%S"),
        "took": _duration(run.seconds),
        "items": f"{'?' if run.total is None else f'{run.total:,}'}: {said}",
        "cost": "" if run.usd is None else f"{run.usd:.4f} USD",
        "journal": str(path),
    }
    _write(run.name)
    for word, text in told.items():
        if text:
            _write(f"  {word:8} {mask(printable(text))}")
    for error in errors:
        first = printable(str(error["key"]))
        _write(f"  {error['count']:,} x {error['status']}: {printable(error['message'])} (first: {first})")
    return DONE


def _results(session: BatchSession, output: Path | None) -> int:
    if output is not None:
        return _write(f"written to {session.save(output)}")
    with tempfile.TemporaryDirectory(prefix="ipybatch-") as folder:  # a file, as that is how they are written
        path = session.save(Path(folder, "results.csv"))
        with path.open("rb") as file:
            sys.stdout.flush()
            shutil.copyfileobj(file, sys.stdout.buffer)
    return DONE


def _notify(given: argparse.Namespace) -> int:
    from ipybatch.notify import command_line

    for line in command_line.execute(given):
        _write(line)
    return DONE


def _object(text: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeEncodeError) as error:
        msg = f"it must be a JSON object: {error}"
        raise argparse.ArgumentTypeError(msg) from None


def _submit(given: argparse.Namespace) -> int:
    from ipybatch.server.submission_order import to_order, without_server
    from ipybatch.server.submission_store import Submissions
    from ipybatch.server.wire import SubmissionRequest

    request = SubmissionRequest(
        template=given.template,
        name=given.session,
        requests=None if given.requests is None else _requests(given.requests),
        params=given.params,
    )
    order = to_order(request, without_server(request))
    return _write(Submissions(given.journal).create(order).id)


def _requests(file: str) -> list[Any]:
    """Return the requests of a file.

    Raises:
        InputError: It is no JSON, though it begins as such.
    """
    text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8-sig")
    if not text.lstrip().startswith("["):
        return [line for line in map(str.strip, text.splitlines()) if line]
    try:
        return msgspec.json.decode(text, type=list[Any])
    except msgspec.DecodeError as error:
        msg = f"requests must be a JSON list, or a text a line: {error}"
        raise InputError(msg) from None


def _run(submission: str, journal: Path | None) -> int:
    from ipybatch.server.run import work

    row = work(submission, journal=journal)
    if row.state == "COMPLETED":
        return DONE
    return _refuse(f"submission {row.id} did not complete: {row.state}{f' ({row.reason})' if row.reason else ''}")


def _template(what: str, name: str | None, *, as_json: bool) -> int:
    from ipybatch.templates import shipped, toml_file

    if what == "list":
        found = [*((one, shipped.SHIPPED[one]) for one in shipped.SHIPPED), *toml_file.read_all()]
        if as_json:
            return _write_json([{"name": one, **msgspec.to_builtins(template)} for one, template in found])
        rows = [("name", "based on", "description")]
        rows += [(one, template.based_on, template.description) for one, template in found]
        return _write_table(rows)
    if name is None:
        msg = f"NAME must be given: python -m ipybatch template {what} NAME"
        raise InputError(msg)
    if what == "delete":
        toml_file.delete(name)
        return _write(f"{name}: deleted")
    template = shipped.SHIPPED[name] if name in shipped.SHIPPED else toml_file.read(name)
    return _write_json(template) if as_json else _write(mask(toml_file.encode(name, template)).rstrip())


def _schedule(given: argparse.Namespace) -> int:
    from ipybatch.schedules import command_line

    for line in command_line.execute(given):
        _write(line)
    return DONE


def _command(verb: str, path: Path, run: RecordedRun) -> int:
    _, done = _COMMANDS[verb]
    if run.state == "interrupted":
        return _refuse(f"session {run.name!r} was interrupted: {_how_to_go_on(path, run)}")
    if run.state not in _LIVE:
        has_ended = "has not begun" if run.state == "planned" else f"has ended: {run.state}"
        return _refuse(f"session {run.name!r} {has_ended}; there is nothing to {verb}")
    if follower.command(open_journal(path), run.name, verb) == "done":
        return _write(f"{run.name}: {done}")
    _write(f"{run.name}: asked to {verb}; what runs it {run.where} has not done so yet")
    return ASKED


def _doctor(journal: Path | None, *, as_json: bool) -> int:
    from ipybatch.server import doctor

    findings = doctor.examine(journal)
    if as_json:
        _write_json(findings)
    else:
        width = max(len(finding.about) for finding in findings)
        for finding in findings:
            told = f"{finding.verdict:8} {finding.about:{width}}  {finding.told}"
            _write(mask(printable(f"{told}; {finding.next_step}" if finding.next_step else told)))
    return REFUSED if any(finding.verdict == "wrong" for finding in findings) else DONE


def _how_to_go_on(path: Path, run: RecordedRun) -> str:
    reason = BatchSession.open(run.name, journal=path).reason
    return reason if run.total is None else f"{reason}; {max(0, run.total - _done(run)):,} items are left"


def _done(run: RecordedRun) -> int:
    return run.completed + run.failed + run.timeout + run.cancelled + run.skipped


def _told(path: Path, run: RecordedRun) -> dict[str, Any]:
    started = dt.datetime.fromtimestamp(run.started_s, dt.UTC).isoformat()
    fields = msgspec.to_builtins(run)
    del fields["started_s"]
    return {"name": run.name, "started": started, **fields, "reason": mask(run.reason), "journal": str(path)}


def _local(unix_s: float, form: str) -> str:
    return dt.datetime.fromtimestamp(unix_s, dt.UTC).astimezone().strftime(form)


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest_s = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes:02} min" if hours else f"{minutes} min {rest_s:02} s"


def _write(line: str) -> int:
    sys.stdout.write(f"{line}\n")
    return DONE


def _write_json(told: Any) -> int:
    sys.stdout.flush()
    sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(told), indent=2) + b"\n")
    return DONE


def _refuse(why: str) -> int:
    if sys.stderr is not None:
        sys.stderr.write(f"ipybatch: {mask(printable(why))}\n")
    return REFUSED


_OF_NO_SESSION: dict[str, Callable[[argparse.Namespace], int]] = {  # verbs that name no session
    "list": lambda given: _list(_runs(given.journal), as_json=given.json),
    "doctor": lambda given: _doctor(given.journal, as_json=given.json),
    "run": lambda given: _run(given.submission, given.journal),
    "schedule": _schedule,
    "notify": _notify,
    "submit": _submit,
    "template": lambda given: _template(given.what, given.template, as_json=given.json),
}

if __name__ == "__main__":
    sys.exit(main())
