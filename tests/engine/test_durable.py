"""What must survive a power cut."""

import os

from ipybatch.engine import durable
from ipybatch.engine.journal import open_journal


def test_the_write_ahead_log_is_on_disk_when_it_returns(journal, monkeypatch):
    book = open_journal(journal)
    book.write(lambda database: database.execute("INSERT INTO resource VALUES ('a', 1.0)"))
    synced = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_ino))
    durable.to_disk(journal)
    assert synced == [journal.with_name(f"{journal.name}-wal").stat().st_ino]


def test_a_journal_without_one_is_on_disk_already(tmp_path):
    durable.to_disk(tmp_path / "journal.db")
