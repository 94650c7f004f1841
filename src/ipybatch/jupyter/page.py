"""Page: a session as one HTML file that needs nothing else: no script, no outside address."""

from __future__ import annotations

from html import escape
from pathlib import Path

from ipybatch.engine.masking import mask
from ipybatch.jupyter import still
from ipybatch.jupyter.viewed import Viewed


def write(session: Viewed, path: Path) -> Path:
    """Write the page and return its path."""
    body = still.html(session.snapshot, session.summary, session.policy.opening.group_word)
    title = escape(mask(session.snapshot.name))
    path.write_text(
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        '<meta name="color-scheme" content="light dark"><meta name="viewport" content="width=device-width">'
        f'<body style="margin:24px">{body}</body></html>\n',
        encoding="utf-8",
    )
    return path
