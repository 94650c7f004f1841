"""Which pictures of docs/ a script takes, and how those of a run become one that moves."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

Image = pytest.importorskip("PIL.Image")

from tools import pictures
from tools.shot_states import STATES


def test_every_picture_of_the_pages_is_taken_by_the_script() -> None:
    """One that was taken by hand would show what the panel was once."""
    names = {f"{name}-{theme}.png" for name in (*pictures.PANELS, pictures.SIDE_BAR) for theme in pictures.THEMES}
    names |= {f"{pictures.MOVING}-{theme}.webp" for theme in pictures.THEMES}
    there = {path.name for kind in ("png", "webp", "gif", "jpg", "svg") for path in pictures.DOCS.glob(f"*.{kind}")}
    assert there == names
    assert {state for state, _ in pictures.PANELS.values()} <= STATES.keys()


@pytest.fixture
def frames(tmp_path: Path) -> list[Path]:
    """Three pictures, of which the second is higher."""
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for path, high, colour in zip(paths, (20, 30, 20), ("white", "red", "blue"), strict=True):
        Image.new("RGB", (40, high), colour).save(path)
    return paths


def test_pictures_become_one_that_moves_and_is_as_high_as_the_highest(frames: list[Path]) -> None:
    with Image.open(io.BytesIO(pictures.joined(frames))) as made:
        assert (made.n_frames, made.size) == (3, (40, 30))
        made.seek(2)
        assert made.convert("RGB").getpixel((5, 5)) == (0, 0, 255)


def test_one_that_is_too_large_for_a_page_is_refused(frames: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "MOST_BYTES", 10)
    with pytest.raises(SystemExit, match="more than 10: take fewer moments"):
        pictures.joined(frames)
