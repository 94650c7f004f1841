"""What was paid for is kept: images, answers that cannot be used, and what comes beside a text."""

from pathlib import Path

import pytest

pytest.importorskip("google.genai")

from ipybatch import InputError
from ipybatch.engine.store.journal import open_journal
from ipybatch.gemini.images import ImageStore, file_name
from tests.gemini.conftest import names
from tests.gemini.nights import SOON, night
from tests.gemini.nights import night_service as gemini

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


BESIDE = "grounding, citations, thoughts, function calls, executed code"


def test_what_comes_beside_an_answer_is_named_where_it_is_dropped(desk):
    """Of one that failed too; a row without it says nothing."""
    cut = {"prompt": "[[extras]] b", "config": {"max_output_tokens": 5}}
    frame = desk.run(["[[extras]] a", cut, *names(1)]).results()
    assert frame["status"].tolist() == ["completed", "failed", "completed"]
    assert frame["dropped"].fillna("").tolist() == [BESIDE, BESIDE, ""]
    assert frame["file"].notna().tolist() == [True, True, False]


@pytest.mark.parametrize("is_failed", [False, True])
def test_the_whole_reply_is_kept_where_asked(desk, is_failed):
    """With the names of files in the place of images."""
    more = {"config": {"max_output_tokens": 5}} if is_failed else {}
    session = desk.run(["[[extras]] a"], keep="reply", **more)
    row = session.results().iloc[0]
    assert row["status"] == ("failed" if is_failed else "completed")
    assert "dropped" not in row
    (candidate,) = row["reply"]["candidates"]
    parts = candidate["content"]["parts"]
    assert candidate["groundingMetadata"]["groundingChunks"][0]["web"]["title"] == "Stars"
    assert parts[1]["functionCall"]["name"] == "measure"
    assert parts[-1]["inlineData"] == {"mimeType": "image/png", "file": row["file"]}
    assert row["reply"]["usageMetadata"]["promptTokenCount"] == row["tokens_in"]


def test_images_that_are_thrown_away_are_named(desk):
    session = desk.run(["[[extras]] a"], images_to=False)
    assert session.results()["dropped"].tolist() == [f"{BESIDE}, images"]
    session = desk.run(["[[extras]] b"], images_to=False, keep="reply", name="other")
    assert session.results()["dropped"].tolist() == ["images"]


def test_a_batch_keeps_replies_as_well(journal, clock):
    with gemini(batch_delay_s=SOON) as service:
        session = night(service, journal, ["[[extras]] a", "b"], clock=clock, keep="reply")
        clock.run(session)
        replies = session.results()["reply"].tolist()
        assert [reply["modelVersion"] for reply in replies] == ["gemini-2.5-flash"] * 2


def test_no_other_word_is_taken(desk):
    with pytest.raises(InputError, match="keep must be 'reply' or None, got 'all'"):
        desk.session(names(1), keep="all")


@pytest.mark.parametrize(
    ("mark", "status", "verdict", "finish", "kept"),
    [
        ("", "completed", "ok", "STOP", "data"),
        ("fenced", "completed", "ok", "STOP", "data"),
        ("trailing", "failed", "invalid", "STOP", "text"),
        ("doubled", "failed", "invalid", "STOP", "text"),
        ("bad_json", "failed", "invalid", "STOP", "text"),
        ("cut_stop", "failed", "invalid", "STOP", "text"),
        ("cut", "failed", "cut", "MAX_TOKENS", "text"),
        ("max_tokens", "failed", "cut", "MAX_TOKENS", ""),
        ("malformed_call", "failed", "empty", "MALFORMED_FUNCTION_CALL", ""),
        ("no_parts", "failed", "empty", "STOP", ""),
        ("empty", "failed", "empty", "STOP", ""),
        ("recitation", "failed", "blocked", "RECITATION", ""),
        ("safety", "failed", "blocked", "SAFETY", ""),
        ("blocked", "failed", "blocked", "", ""),
    ],
)
@pytest.mark.parametrize("lane", ["online", "batch"])
def test_structured_answers_are_whole_or_kept_as_they_came(journal, clock, lane, mark, status, verdict, finish, kept):  # noqa: PLR0917
    """Whole JSON and nothing after it is data; all else fails with its text, tokens, cost and finish reason."""
    with gemini(batch_delay_s=SOON) as service:
        schema = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
        session = night(service, journal, [f"[[{mark}]] a"], lane=lane, clock=clock, schema=schema)
        clock.run(session)
        row = session.results().iloc[0]
        with open_journal(journal).reader() as database:
            calls = database.execute("SELECT status, tokens_in, usd FROM usage").fetchall()
        billed = service.truth()["billed"][lane]
        assert (row["status"], calls[0][0], len(calls)) == (status, verdict, 1)
        assert (row["tokens_in"], row["tokens_out"]) == (billed["prompt"], billed["out"])
        assert row["usd"] == pytest.approx(calls[0][2])
        assert (row["finish_reason"], bool(row.get("text")), bool(row.get("data"))) == (
            finish,
            kept == "text",
            kept == "data",
        )
