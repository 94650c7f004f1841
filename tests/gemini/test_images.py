"""Images of prompts are identified by content and refused early; images of answers get safe names of their own."""

from __future__ import annotations

import base64
import hashlib
import io
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import fsspec
import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ipybatch import InputError, Permanent
from ipybatch.gemini import images
from ipybatch.gemini.images import Image, ImageStore, file_name

PNG = b"\x89PNG\r\n\x1a\n" + bytes(100)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "star.png"
    path.write_bytes(PNG)
    return path


@pytest.fixture
def address():
    url = "memory://images/star.png"
    with fsspec.open(url, "wb") as opened:
        opened.write(PNG)
    yield url
    fsspec.filesystem("memory").rm("/images", recursive=True)


def test_an_image_comes_from_anywhere(file, address):
    """The same image is the same input, however it is given."""
    text = base64.b64encode(PNG).decode()
    given = [PNG, bytearray(PNG), file, str(file), address, text, f"data:image/png;base64,{text}"]
    made = [Image.of(each) for each in given]
    assert len(set(map(msgspec.json.encode, made))) == 1
    assert {each.read() for each in made} == {PNG}
    assert (made[0].sha256, made[0].size) == (hashlib.sha256(PNG).hexdigest(), len(PNG))


def test_an_image_stays_an_image():
    image = Image.of(PNG)
    assert Image.of(image) is image


@pytest.mark.parametrize(
    ("head", "mime_type"),
    [
        (b"\x89PNG\r\n\x1a\n", "image/png"),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF", "image/jpeg"),
        (b"RIFF\x00\x00\x00\x00WEBPVP8 ", "image/webp"),
        (b"GIF89a", "image/gif"),
        (b"\x00\x00\x00\x18ftypheic", "image/heic"),
        (b"\x00\x00\x00\x18ftypmif1", "image/heif"),
    ],
)
def test_the_type_is_told_from_the_first_bytes(head, mime_type):
    assert Image.of(head + bytes(40)).mime_type == mime_type


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (b"", "must be a PNG, .*, got 0 bytes: it is empty"),
        (b"%PDF-1.7", "must be a PNG, .*: it begins with b'%PDF-1.7'"),
        (b"RIFF\x00\x00\x00\x00WAVEfmt ", "must be a PNG"),
        (b"\x00\x00\x00\x18ftypmp42", "must be a PNG"),
        ("no such.png", "must be an image, got 'no such.png': there is no such file, and it is no base64"),
        ("data:image/png;base64,###", "must be an image"),
        (base64.b64encode(b"hello, it is text").decode(), "must be a PNG"),
        ("memory://images/none.png", "must be an image that can be read, got 'memory://images/none.png'"),
        ("nowhere://x", "must be an image that can be read, got 'nowhere://x': Protocol not known"),
        (Path("none.png"), "must be an image that can be read, got 'none.png'"),
        ("", "must be bytes, a path, an address or base64, got ''"),
        (None, "must be bytes, .*, got None"),
        (7, "must be bytes, .*, got 7"),
    ],
)
def test_what_is_no_image_is_refused(value, says):
    with pytest.raises(InputError, match=f"^photo {says}"):
        Image.of(value, "photo")


def test_a_folder_is_no_image(tmp_path):
    with pytest.raises(InputError, match=r"photo must be an image that can be read"):
        Image.of(tmp_path, "photo")


def test_an_image_that_fits_no_request_is_refused(monkeypatch):
    monkeypatch.setattr(images, "MAX_BYTES", 100)
    with pytest.raises(InputError, match=r"photo must be at most 100 bytes, got 108 bytes of 108: make it smaller"):
        Image.of(PNG, "photo")


def test_a_password_in_an_address_is_not_repeated():
    with pytest.raises(InputError) as caught:
        Image.of("nowhere://me:geheim77@host/x.png")
    assert "geheim77" not in str(caught.value)


def test_a_path_stays_a_path(file):
    """Ten thousand images are not held in memory: the path is, and the hash."""
    image = Image.of(file)
    assert not any(isinstance(value, bytes) for value in vars(image).values())
    assert image.label == str(file)


def test_a_large_file_is_hashed_block_by_block(monkeypatch):
    """However large the file is, one block of it is held."""
    read = []

    class Spy(io.BytesIO):
        def read(self, size=-1):
            read.append(size)
            return super().read(size)

    content = PNG + bytes(3 << 20)
    assert images._digest(Spy(content)) == (content[:32], hashlib.sha256(content).hexdigest(), len(content))
    assert set(read) == {1 << 20}


@pytest.mark.parametrize("change", ["other content", "grown", "gone"])
def test_an_image_that_was_changed_is_not_sent(file, change):
    """What is sent is what the digest stands for."""
    image = Image.of(file)
    if change == "gone":
        file.unlink()
    else:
        file.write_bytes(PNG + b"x" if change == "grown" else PNG[:-1] + b"x")
    with pytest.raises(Permanent, match=r"image .*star.png is gone or was changed .*: make the session again"):
        image.read()


def test_its_repr_holds_no_bytes():
    assert len(repr(Image.of(PNG + bytes(10_000)))) < 200


JPEG = b"\xff\xd8\xff\xe0" + bytes(100)
KEYS = st.text() | st.integers() | st.sampled_from(["7", "a", "A", "a ", "con", "../a", "a.2", "ä", "é", "e\u0301"])


@pytest.mark.parametrize(
    ("key", "number", "name"),
    [
        (7, 1, "7.png"),
        (7, 2, "7.2.png"),
        ("cat", 1, "cat.png"),
        ("a_cat-2", 3, "a_cat-2.3.png"),
    ],
)
def test_a_plain_key_is_its_name(key, number, name):
    assert file_name(key, number, "png") == name


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("A cat", "a-cat-"),
        ("../../etc/passwd", "etc-passwd-"),
        ("/root/x", "root-x-"),
        ("C:\\x", "c-x-"),
        ("con", "con-"),
        ("COM1", "com1-"),
        ("Écrin", "ecrin-"),
        ("日本", "image-"),
        ("...", "image-"),
        ("", "image-"),
        ("7", "7-"),
        (-7, "7-"),
        ("a\x00b", "a-b-"),
        ("x" * 500, "x" * 80 + "-"),
    ],
)
def test_a_key_that_had_to_be_changed_carries_a_hash(key, name):
    assert re.fullmatch(re.escape(name) + "[0-9a-f]{12}\\.png", file_name(key, 1, "png"))


@given(KEYS, st.integers(1, 99))
@example("con", 1)
@example("-", 1)
def test_every_name_is_safe(key, number):
    """No separators, no leading dot, no device of Windows, short: on every file system."""
    name = file_name(key, number, "png")
    assert re.fullmatch(r"[a-z0-9_][a-z0-9_-]*(\.[0-9]+)?\.png", name)
    assert not re.fullmatch(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])\..*", name)
    assert len(name) <= 110


@given(KEYS, KEYS, st.integers(1, 3), st.integers(1, 3))
@example("cat-34b75bd7c9bb", "Cat", 1, 1)
@example("a-cat-34b75bd7c9bb", "A cat", 1, 1)
@example(7, "7", 1, 1)
@example("a.2", "a", 1, 2)
def test_two_keys_never_share_a_name(one, other, first, second):
    assert (file_name(one, first, "png") == file_name(other, second, "png")) == ((one, first) == (other, second))


@pytest.fixture(params=["local", "memory"])
def folder(request, tmp_path):
    if request.param == "local":
        yield str(tmp_path / "deep" / "pictures")
    else:
        yield "memory://pictures"
        fsspec.filesystem("memory").rm("/pictures", recursive=True)


def files_in(folder):
    files, root = fsspec.url_to_fs(folder)
    return sorted(path.rpartition("/")[2] for path in files.ls(root, detail=False))


def test_images_are_where_it_says(folder):
    saved = ImageStore(folder).save("cat", [("image/png", PNG), ("image/jpeg", JPEG)])
    assert [fsspec.open(path, "rb").open().read() for path in saved] == [PNG, JPEG]
    assert files_in(folder) == ["cat.2.jpg", "cat.png"]


def test_a_key_that_runs_again_overwrites_its_own_file(folder):
    store = ImageStore(folder)
    store.save("cat", [("image/png", PNG)])
    (path,) = store.save("cat", [("image/png", PNG + b"new")])
    assert fsspec.open(path, "rb").open().read() == PNG + b"new"
    assert files_in(folder) == ["cat.png"]


@pytest.mark.parametrize(
    ("mime_type", "content", "extension"),
    [("image/png", JPEG, "jpg"), ("image/avif", b"?", "avif"), ("image/../x", b"?", "x"), ("", b"?", "bin")],
)
def test_the_extension_is_that_of_the_content(tmp_path, mime_type, content, extension):
    (path,) = ImageStore(tmp_path).save("a", [(mime_type, content)])
    assert path == str(tmp_path / f"a.{extension}")


def test_a_write_that_breaks_off_leaves_nothing(tmp_path, monkeypatch):
    """A file is there whole, as it was before, or not at all."""
    store = ImageStore(tmp_path)
    store.save("cat", [("image/png", PNG)])

    def full(path, content):
        with open(path, "wb") as file:  # noqa: PTH123 - what a disk that fills up does
            file.write(content[:5])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store._files, "pipe_file", full)
    with pytest.raises(
        Permanent, match=r"image of 'cat' was received but could not be saved as .*: .*No space left on device"
    ):
        store.save("cat", [("image/png", PNG + b"new")])
    assert [path.name for path in tmp_path.iterdir()] == ["cat.png"]
    assert (tmp_path / "cat.png").read_bytes() == PNG


def test_the_first_images_may_come_together(tmp_path, monkeypatch):
    """In several threads: none writes into a folder that another is just making."""
    store, making, go_on = ImageStore(tmp_path / "later", later=True), threading.Event(), threading.Event()
    local, make = fsspec.filesystem("file"), type(fsspec.filesystem("file")).makedirs

    def makedirs(self, *arguments, **more):
        making.set()
        go_on.wait(20)
        make(self, *arguments, **more)

    monkeypatch.setattr(type(local), "makedirs", makedirs)
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(store.save, "a", [("image/png", PNG)])
        assert making.wait(20)
        second = threads.submit(store.save, "b", [("image/png", PNG)])
        with suppress(TimeoutError):
            second.result(0.05)
        go_on.set()
        assert [Path(path).name for path in (*first.result(20), *second.result(20))] == ["a.png", "b.png"]


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    """Before anything is paid for."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InputError, match=r"folder must be one that can be written, got '.*file'"):
        ImageStore(tmp_path / "file")


@pytest.mark.parametrize("folder", [None, "", " ", 7])
def test_what_is_no_folder_is_refused(folder):
    with pytest.raises(InputError, match=r"folder must be a path or an address"):
        ImageStore(folder)


def test_a_password_in_the_folders_address_is_never_repeated():
    with pytest.raises(InputError) as caught:
        ImageStore("nowhere://me:geheim66@host/pictures")
    assert "geheim66" not in str(caught.value)
