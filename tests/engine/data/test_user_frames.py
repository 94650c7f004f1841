"""Where in the user's code: whose frame is whose, and how one reads."""

import asyncio
import json
import linecache

import pytest

from ipybatch.engine.data.user_frames import LONGEST, REMOTE, last_user_frame, user_frames


def lines_of(code, file):
    """What is told of the error that code in a file of that name raises."""
    linecache.cache[file] = (len(code), None, code.splitlines(keepends=True), file)
    try:
        exec(compile(code, file, "exec"), {})
    except BaseException as error:
        return [line for line in user_frames(error).splitlines() if "test_user_frames" not in line]
    finally:
        linecache.cache.pop(file, None)
    raise AssertionError


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("/home/me/shop.py", "shop.py"),
        ("C:\\Users\\me\\shop.py", "shop.py"),
        ("/tmp/ipykernel_4711/1234567.py", "notebook cell"),
        ("<ipython-input-3-0123456789ab>", "notebook cell"),
        ("<string>", "<string>"),
    ],
)
def test_a_file_is_called_by_its_short_name(file, name):
    assert lines_of("x = 1\nx / 0", file) == [f"{name}:2 in <module>: x / 0"]


@pytest.mark.parametrize(
    "file",
    [
        asyncio.__file__,
        json.__file__,
        pytest.__file__,
        "/venv/lib/python3.12/site-packages/httpx/_client.py",
        "C:\\venv\\Lib\\site-packages\\httpx\\_client.py",
        "/usr/lib/python3/dist-packages/requests/api.py",
        "/usr/lib/python3.11/json/decoder.py",
        "<frozen importlib._bootstrap>",
    ],
)
def test_frames_of_libraries_are_left_out(file):
    """They say how the error came about, not where to look: what was called from the user's code is counted."""
    assert [line for line in lines_of("1 / 0", file) if not line.startswith("then 1 frame of ")] == []


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/venv/lib/python3.12/site-packages/aiohttp/client.py", "then 3 frames of aiohttp"),
        ("C:\\venv\\Lib\\site-packages\\httpx\\_client.py", "then 3 frames of httpx"),
        ("/venv/lib/python3.12/site-packages/six.py", "then 3 frames of six"),
        ("/usr/lib/python3.11/json/decoder.py", "then 3 frames of json"),
        (json.__file__, "then 3 frames of json"),
        ("<frozen importlib._bootstrap>", "then 3 frames of importlib"),
    ],
)
def test_frames_of_libraries_are_folded(path, told):
    """Those that the user's code called are counted, by library; the last frame of the user's stays the last."""
    library = {}
    exec(compile("def get(n=2):\n    return get(n - 1) if n else 1 / 0", path, "exec"), library)
    with pytest.raises(ZeroDivisionError) as caught:
        exec(compile("get()", "/home/me/shop.py", "exec"), library)
    assert user_frames(caught.value).splitlines()[-2:] == ["shop.py:1 in <module>", told]
    assert last_user_frame(caught.value) == "shop.py:1 in <module>"


def test_the_last_three_are_kept():
    code = "def a(n):\n    return a(n - 1) if n else 1 / 0\na(9)"
    assert lines_of(code, "deep.py") == ["deep.py:2 in a: return a(n - 1) if n else 1 / 0"] * 3


def test_a_long_line_is_cut_and_a_source_that_is_gone_left_out():
    assert len(lines_of(f"x = 1 / 0, '{'y' * 999}'", "long.py")[0]) == LONGEST
    with pytest.raises(ZeroDivisionError) as caught:
        exec(compile("1 / 0", "/home/me/gone.py", "exec"))
    assert user_frames(caught.value).splitlines()[-1] == "gone.py:1 in <module>"


def test_of_a_group_the_frames_of_its_first_error_are_told():
    code = """
def fetch():
    raise ValueError
try:
    fetch()
except ValueError as error:
    raise ExceptionGroup("tasks", [error])
"""
    assert lines_of(code, "group.py")[-1] == "group.py:3 in fetch: raise ValueError"


def test_the_text_of_a_traceback_from_elsewhere_is_read():
    error = ValueError("bad")
    error.add_note(
        f"{REMOTE}"
        '  File "/venv/lib/python3.11/site-packages/ipybatch/backends/process/worker_main.py", line 50, in main\n'
        "    result = work()\n"
        '  File "/home/me/shop.py", line 12, in fetch\n'
        "    return float(text)\n           ^^^^^^^^^^^\n"
        '  File "<ipython-input-3>", line 3, in parse'
    )
    assert user_frames(error) == "shop.py:12 in fetch: return float(text)\nnotebook cell:3 in parse"


class Strange(Exception):
    @property
    def __notes__(self):
        raise RuntimeError("no notes")


def test_an_error_that_cannot_be_looked_at_has_none():
    assert user_frames(Strange()) == ""
    assert user_frames(ValueError()) == ""
