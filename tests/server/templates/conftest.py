"""What the tests of templates share: an environment without keys, a journal and a library of their own."""

from pathlib import Path

import pytest

from ipybatch.engine.store import journal as journals
from ipybatch.server.options import Options
from ipybatch.server.templates import find_template
from ipybatch.server.wire import SubmissionRequest

OPTIONS = Options()
UNSET = ("GEMINI_API_KEY", "GOOGLE_API_KEY", "GEMINI_BASE_URL", "GOOGLE_GEMINI_BASE_URL", "IPYBATCH_STEAM_BASE_URL")
UNSET += ("BNET_CLIENT_ID", "BNET_CLIENT_SECRET", "BNET_BASE_URL")


class Desk:
    """Where requests are checked, quoted and run: in this process."""

    def __init__(self, journal: Path):
        self.journal = journal

    def request(self, template, requests=None, *, upload=None, name="", **params):
        return SubmissionRequest(template=template, requests=requests, upload=upload, name=name, params=params)

    def check(self, template, requests=None, **given):
        return find_template(template).check(self.request(template, requests, **given), OPTIONS)

    def quote(self, template, requests=None, **given):
        return find_template(template).quote(self.request(template, requests, **given), OPTIONS)

    def session(self, template, requests=None, *, name="night", **given):
        request = self.request(template, requests, name=name, **given)
        return find_template(template).session(request, name=name, journal=self.journal, options=OPTIONS)

    def refused(self, template, requests=None, **given):
        """What is said of a request that is refused."""
        with pytest.raises(Exception) as refused:  # noqa: PT011  # the test says which
            self.check(template, requests, **given)
        return refused.value


@pytest.fixture
def desk(tmp_path, monkeypatch, patience):
    journal = tmp_path / "data" / "journal.sqlite3"
    journal.parent.mkdir()
    monkeypatch.setenv(journals.PATH_VARIABLE, str(journal))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.setenv("IPYBATCH_LIBRARY", str(tmp_path / "data" / "library.sqlite3"))
    for name in UNSET:
        monkeypatch.delenv(name, raising=False)
    return Desk(journal)
