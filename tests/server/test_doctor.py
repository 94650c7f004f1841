"""What `python -m ipybatch doctor` finds, and what it says to do."""

import json
import os
import sqlite3
import sys
import threading
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer

import jupyter_core.paths
import pytest
from jupyter_client.kernelspec import KernelSpecManager

import ipybatch
from ipybatch.__main__ import main
from ipybatch.engine.store import journal as journals
from ipybatch.engine.store import network_copy, schema
from ipybatch.server import doctor

VERSION = ipybatch.__version__


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """A user and an environment of their own: a JupyterLab on PATH, the extension enabled, the side bar there."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.setenv("IPYBATCH_JOURNAL", str(tmp_path / "journal.db"))
    for name in ("CONFIG_DIR", "DATA_DIR", "RUNTIME_DIR"):
        monkeypatch.setenv(f"JUPYTER_{name}", str(tmp_path / name.lower()))
    for name in ("ENV_CONFIG_PATH", "ENV_JUPYTER_PATH", "SYSTEM_CONFIG_PATH", "SYSTEM_JUPYTER_PATH"):
        monkeypatch.setattr(jupyter_core.paths, name, [])
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "env"))
    monkeypatch.setattr(KernelSpecManager, "ensure_native_kernel", False)
    monkeypatch.setenv("PATH", str(script(tmp_path / "env" / "bin" / "jupyter-lab").parent))
    write(tmp_path / "config_dir" / "jupyter_server_config.d" / "ipybatch.json", enabling(True))
    write(tmp_path / "data_dir" / doctor.LAB_EXTENSION / "package.json", {"version": VERSION})
    kernel(tmp_path, "python3", sys.executable)
    return tmp_path


def enabling(enabled):
    return {"ServerApp": {"jpserver_extensions": {"ipybatch.server": enabled}}}


def write(path, told):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(told))


def script(path, text=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def kernel(place, name, python, language="python"):
    spec = {"argv": [str(python), "-m", "ipykernel_launcher"], "display_name": name, "language": language}
    write(place / "data_dir" / "kernels" / name / "kernel.json", spec)


def found(about, journal=None):
    """What is found of one thing."""
    return next(finding for finding in doctor.examine(journal) if finding.about == about)


def looked(look, about):
    """The same, without looking at the rest."""
    return next(finding for finding in look() if finding.about == about)


def test_all_is_well(capfd):
    assert [finding for finding in doctor.examine() if finding.verdict != "ok"] == []
    assert main(["doctor"]) == 0
    told, said = capfd.readouterr()
    assert said == ""
    assert {line.split()[0] for line in told.splitlines()} == {"ok"}


def test_wrong_is_one_line_and_exit_code_1(place, capfdbinary):
    write(place / "config_dir" / "jupyter_server_config.d" / "ipybatch.json", enabling(False))
    assert main(["doctor"]) == 1
    lines = capfdbinary.readouterr().out.decode().splitlines()
    (line,) = [line for line in lines if line.startswith("wrong")]
    assert "disabled" in line
    assert line.endswith("jupyter server extension enable ipybatch.server")
    assert main(["doctor", "--json"]) == 1
    (told,) = [each for each in json.loads(capfdbinary.readouterr().out) if each["verdict"] == "wrong"]
    assert told["about"] == "server extension"
    assert told["next_step"]


def test_extension_that_is_not_enabled(place):
    (place / "config_dir" / "jupyter_server_config.d" / "ipybatch.json").unlink()
    finding = looked(doctor._extension_enabled, "server extension")
    assert (finding.verdict, finding.next_step) == ("wrong", "jupyter server extension enable ipybatch.server")


@pytest.mark.parametrize(("version", "told"), [(None, "in none of"), ("0.0.1", "0.0.1 at")])
def test_side_bar(place, version, told):
    package = place / "data_dir" / doctor.LAB_EXTENSION / "package.json"
    if version is None:
        package.unlink()
    else:
        write(package, {"version": version})
    finding = looked(doctor._lab_extension, "side bar")
    assert finding.verdict == "wrong"
    assert told in finding.told
    assert "no Node" in finding.next_step


def test_jupyterlab_in_another_environment(place, monkeypatch):
    """The most frequent reason for which there is no side bar."""
    other = place / "other env"
    monkeypatch.setenv("PATH", str(script(other / "bin" / "jupyter-lab").parent))
    finding = looked(doctor._environment, "JupyterLab")
    assert finding.verdict == "wrong"
    assert str(other) in finding.told
    assert f"{other / 'bin' / 'python'} -m pip install" in finding.next_step
    write(other / doctor.ENABLING, {})
    write(other / "share" / "jupyter" / doctor.LAB_EXTENSION / "package.json", {})
    assert looked(doctor._environment, "JupyterLab").verdict == "ok"


def test_jupyterlab_of_this_python_in_a_folder_of_the_user(place, monkeypatch):
    """As `pip install --user` has it."""
    local = script(place / "local" / "bin" / "jupyter-lab")
    local.write_text(f"#!{sys.executable}\n")
    monkeypatch.setenv("PATH", str(local.parent))
    assert looked(doctor._environment, "JupyterLab").verdict == "ok"


def test_no_jupyter_at_all(place, monkeypatch):
    """In a job on a cluster nothing is wrong with that."""
    monkeypatch.setenv("PATH", str(place / "nothing"))
    jupyter = ("jupyter_server", "jupyter_client", "jupyterlab", "anywidget", "ipywidgets")
    version = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda package: None if package in jupyter else version(package))
    findings = {finding.about: finding for finding in doctor.examine()}
    assert {finding.verdict for finding in findings.values()} == {"ok", "unknown"}
    assert findings["extra jupyter"].next_step == 'to use it: pip install "ipybatch[jupyter]"'
    assert findings["JupyterLab"].verdict == findings["side bar"].verdict == "unknown"


def test_half_an_extra(monkeypatch):
    monkeypatch.setattr(doctor, "_version", {"aiohttp": "3"}.get)
    finding = looked(doctor._packages, "extra gemini")
    assert finding.verdict == "wrong"
    assert finding.next_step == 'pip install "ipybatch[gemini]"'


def test_a_server_alone_is_no_jupyterlab(place, monkeypatch):
    """What `ipybatch[jupyter]` brings into an empty environment."""
    monkeypatch.setattr(doctor.shutil, "which", lambda _: None)
    monkeypatch.setattr(doctor, "_version", {"jupyter_server": "2.21.1"}.get)
    finding = looked(doctor._environment, "JupyterLab")
    assert (finding.verdict, finding.told) == ("unknown", "not installed here, and not on PATH")
    assert finding.next_step.startswith("pip install jupyterlab")


@pytest.mark.parametrize(
    ("answer", "name", "expected", "told"),
    [
        (f"echo {VERSION}", "other", "ok", f"{VERSION} in"),
        ("echo 0.0.1", "other", "wrong", "ipybatch 0.0.1 in"),
        ("echo \"ModuleNotFoundError: No module named 'ipybatch'\" >&2; exit 1", "other", "ok", "no ipybatch in"),
        ("echo \"ModuleNotFoundError: No module named 'ipybatch'\" >&2; exit 1", "python3", "wrong", "no ipybatch in"),
        ("echo Illegal instruction >&2; exit 132", "other", "unknown", "Illegal instruction"),
    ],
)
def test_kernel(place, answer, name, expected, told):
    python = script(place / "bin" / "python", answer)
    spec = {"argv": [str(python)], "language": "python"}
    finding = doctor._kernel(name, spec, is_default=name == "python3")
    assert (finding.about, finding.verdict) == (f"kernel {name}", expected)
    assert told in finding.told


def test_kernel_that_does_not_answer(place, monkeypatch):
    monkeypatch.setattr(doctor, "PATIENCE_S", 0.2)
    python = script(place / "bin" / "python", "exec /bin/sleep 20")
    finding = doctor._kernel("slow", {"argv": [str(python)]}, is_default=True)
    assert (finding.verdict, "did not answer" in finding.told) == ("unknown", True)


@pytest.mark.parametrize("given", ["python", f"python{sys.version_info.major}"])
def test_a_kernel_of_an_environment_that_is_not_on_path(place, monkeypatch, given):
    """Jupyter starts it with its own Python; whatever else has that name on PATH is not asked."""
    monkeypatch.setenv("PATH", str(place / "bin"))
    script(place / "bin" / "python", "echo 0.0.1")
    finding = doctor._kernel("python3", {"argv": [given, "-m", "ipykernel_launcher"]}, is_default=True)
    assert (finding.verdict, sys.executable in finding.told) == ("ok", True)


def test_kernels_that_cannot_be_asked(place):
    kernel(place, "gone", place / "gone" / "python")
    kernel(place, "julia", "julia", language="julia")
    findings = {finding.about: finding for finding in doctor._kernels()}
    assert (findings["kernel gone"].verdict, findings["kernel julia"].verdict) == ("wrong", "ok")
    assert findings["kernel gone"].next_step.startswith("jupyter kernelspec remove gone")


@pytest.fixture
def server(place):
    """A running server that answers what it is told to, and what it was asked."""
    answers, asked = [], []

    class Answering(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append((self.path, self.headers["Authorization"]))
            status, body = answers.pop(0)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Answering) as listening:
        thread = threading.Thread(target=listening.serve_forever, args=(0.01,))
        thread.start()
        info = {"url": f"http://127.0.0.1:{listening.server_port}/base/", "token": "t0ken", "pid": os.getpid()}
        write(place / "runtime_dir" / "jpserver-1.json", info)
        yield answers, asked
        listening.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("answer", "verdict", "told"),
    [
        ((200, {"version": VERSION}), "ok", VERSION),
        ((200, {"version": "0.0.1"}), "wrong", "ipybatch 0.0.1"),
        ((200, []), "unknown", "has no attribute"),
        ((404, {}), "wrong", "without the extension"),
        ((403, {}), "unknown", "answers 403"),
    ],
)
def test_server(server, answer, verdict, told):
    answers, asked = server
    answers.append(answer)
    findings = doctor._asked(doctor._servers)
    assert findings[0].verdict == verdict
    assert told in findings[0].told
    assert asked == [("/base/ipybatch/api/v1/", "token t0ken")]
    assert "t0ken" not in repr(findings)


def test_server_that_does_not_answer(place):
    write(place / "runtime_dir" / "jpserver-1.json", {"url": "http://127.0.0.1:9/", "token": "", "pid": os.getpid()})
    write(place / "runtime_dir" / "jpserver-2.json", {"url": "http+unix://%2Ftmp/", "token": "", "pid": os.getpid()})
    assert [finding.verdict for finding in doctor._servers()] == ["unknown", "unknown"]


def journal_of(path, more=0):
    """A journal that has seen so many steps more than there are."""
    journals.open_journal(path)
    journals._open_journals.pop(path).close()
    with closing(sqlite3.connect(path)) as database:
        database.execute(f"PRAGMA user_version = {len(schema.STEPS) + more}")
    return path


def test_journals(place, monkeypatch):
    """The default one, those that are registered, and the limits."""
    journal_of(place / "journal.db", -1)
    later = journal_of(place / "later.db", 1)
    journal_of(place / "well.db")
    (place / "limits.sqlite3").write_text("no database at all, and long enough to be looked at as one" * 20)
    findings = doctor._asked(lambda: doctor._journals(None))
    default, damaged, registered, limits = findings
    assert (default.about, default.verdict) == ("default journal", "ok")
    assert f"schema {len(schema.STEPS) - 1} of {len(schema.STEPS)}" in default.told
    assert (damaged.about, damaged.verdict) == ("registered journal", "wrong")
    assert str(later) in damaged.told
    assert registered.told.startswith("2 opened")
    assert registered.told.endswith("1 of them well")
    assert (limits.about, limits.verdict) == ("limits", "wrong")
    monkeypatch.setattr(doctor, "PATIENCE_S", -1.0)
    assert "of which 0 were looked at" in looked(doctor._registered, "registered journals").told


def test_journal_that_cannot_be_written(place, monkeypatch):
    journal_of(place / "journal.db")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert "cannot be written" in doctor._journal("default journal", place / "journal.db").told
    finding = doctor._journal("default journal", place / "nothing" / "journal.db")
    assert (finding.verdict, "cannot be written" in finding.told) == ("wrong", True)


def test_journal_on_a_network_file_system(place, monkeypatch):
    monkeypatch.setattr(network_copy, "_file_system", lambda path: "nfs4" if "net" in path.parts else "ext4")
    finding = doctor._journal("journal", place / "net" / "journal.db")
    assert (finding.verdict, "network file system" in finding.told) == ("ok", True)
    monkeypatch.setattr(network_copy, "_file_system", lambda path: "nfs4")
    assert doctor._journal("journal", place / "net" / "journal.db").verdict == "wrong"


def test_doctor_makes_nothing(place):
    before = sorted(path for path in place.rglob("*") if path.is_file())
    doctor.examine()
    assert sorted(path for path in place.rglob("*") if path.is_file()) == before


def test_look_that_fails_keeps_no_other_from_looking(monkeypatch):
    def fails():
        yield doctor._ok("first", "seen")
        raise RuntimeError("with a reason")

    assert [finding.verdict for finding in doctor._asked(fails)] == ["ok", "unknown"]
    assert "with a reason" in doctor._asked(fails)[1].told


def test_given_journal_is_looked_at_alone(place):
    journal_of(place / "well.db")
    abouts = [finding.about for finding in doctor.examine(place / "well.db")]
    assert "journal" in abouts
    assert "default journal" not in abouts
    assert "registered journals" not in abouts
