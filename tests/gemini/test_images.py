"""Images: from wherever they are, named by what is in them, refused early when they are none."""

from __future__ import annotations

import base64
import hashlib
import io
from pathlib import Path

import fsspec
import msgspec
import pytest

from ipybatch import InputError, Permanent
from ipybatch.gemini import images
from ipybatch.gemini.images import Image

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
