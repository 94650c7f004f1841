"""What was paid for is kept: images, answers that cannot be used, and what comes beside a text."""

from pathlib import Path

import pytest

pytest.importorskip("google.genai")

from ipybatch import InputError
from ipybatch.gemini.images import ImageStore, file_name
from tests.gemini.conftest import names

IMAGE = "gemini-2.5-flash-image"
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize(
    ("prompts", "arguments", "why"),
    [
        (["Draw"], {"modalities": ["IMAGE"]}, "prompt 0 asks for an image"),
        (["Draw"], {"config": {"response_modalities": ["TEXT", "IMAGE"]}}, "prompt 0 asks for an image"),
        (
            ["Name", {"prompt": "Draw", "config": {"response_modalities": ["IMAGE"]}}],
            {},
            "prompt 1 asks for an image",
        ),
        (["Draw"], {"model": IMAGE}, f"{IMAGE} answers with images"),
        (["Draw"], {"models": ["gemini-2.5-flash", IMAGE], "lane": "batch"}, f"{IMAGE} answers with images"),
    ],
    ids=["modalities", "config", "prompt", "model", "one of the models"],
)
def test_an_image_without_a_place_to_go_is_refused_before_it_is_paid(desk, prompts, arguments, why):
    with pytest.raises(InputError, match=f"images_to must say where images go, as {why}: pass a folder"):
        desk.session(prompts, **arguments)
    assert desk.sent == 0


@pytest.mark.parametrize(
    ("prompts", "arguments"),
    [
        ([], {"modalities": ["IMAGE"]}),
        (["Name"], {"model": IMAGE, "modalities": ["TEXT"]}),
        ([{"prompt": "Name", "config": {"response_modalities": ["TEXT"]}}], {"model": IMAGE}),
        (["Draw"], {"model": IMAGE, "images_to": False}),
    ],
    ids=["no prompt", "a model told to write", "a prompt told to write", "thrown away"],
)
def test_where_no_image_can_be_lost_unasked_none_needs_a_place(desk, prompts, arguments):
    desk.session(prompts, **arguments)


def test_an_image_that_nobody_asked_for_is_saved_beside_the_journal(desk):
    """Of an answer that cannot be used too: it is paid for all the same."""
    session = desk.run(["[[extras]] a star", *names(1)], config={"max_output_tokens": 5})
    frame = session.results()
    assert frame["status"].tolist() == ["failed", "failed"]
    path = Path(frame["file"][0])
    assert path.read_bytes().startswith(PNG)
    assert path.parent == Path(desk.journal).with_name("images") / "stars"
    assert frame["file"].isna().tolist() == [False, True]


def test_without_such_an_image_there_is_no_folder(desk):
    desk.run(names(1))
    assert not Path(desk.journal).with_name("images").exists()


def test_an_image_that_cannot_be_saved_leaves_the_rest_of_its_answer(desk, monkeypatch):
    Path(desk.journal).with_name("images").write_text("a file in the place of the folder")
    session = desk.run(["[[extras]] a star"])
    row = session.results().iloc[0]
    assert "image of '[[extras]] a star' was received but could not be saved" in row["error"]
    assert row["text"].startswith("On [[extras]] a star:")
    assert row["usd"] > 0


def test_the_folder_of_unasked_images_is_a_plain_one(tmp_path):
    """Also of sessions whose names no file system takes."""
    paths = ImageStore.unasked(tmp_path / "j.sqlite", "../ a b").save("x", [("image/png", PNG)])
    assert Path(paths[0]).parent.parent == tmp_path / "images"
    assert Path(paths[0]).name == file_name("x", 1, "png")
