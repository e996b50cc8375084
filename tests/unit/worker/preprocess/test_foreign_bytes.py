"""What is sent instead of an image is named, with what to do."""

import base64
import io

import numpy as np
import pytest

from tests.unit.worker.preprocess.encoded_images import ALL, RGB, encode
from worker.arrays import U8
from worker.preprocess.foreign_bytes import describe
from worker.preprocess.image_header import format_of, read_header
from yolopool.errors import ImageNotDecodable

JPEG, PNG = ALL["jpeg"], ALL["png"]


def saved(array: U8) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


SENT = {
    "a JPEG 2000 image": encode(RGB, "JPEG2000"),
    "a JPEG XL codestream": b"\xff\x0a\xfa\x1f",
    "a Photoshop document": b"8BPS\0\1",
    "a Windows icon": encode(RGB, "ICO"),
    "an SVG drawing": b'<svg xmlns="http://www.w3.org/2000/svg"/>',
    "a video or photo of the kind 'isom'": b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41",
    "a Matroska or WebM video": b"\x1aE\xdf\xa3\x01\0\0",
    "an AVI video": b"RIFF\x24\0\0\0AVI LIST",
    "sound": b"RIFF\x24\0\0\0WAVEfmt ",
    "a PDF document": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n" + JPEG,
    "a NumPy file": saved(np.zeros((2, 2, 3), np.uint8)),
    "a Python pickle": b"\x80\x04\x95\x10\0\0\0\0\0\0\0",
    "a zip archive": b"PK\x03\x04\x14\0\0\0" + JPEG,
    "gzip": b"\x1f\x8b\x08\0",
    "a tar archive": b"a.jpg".ljust(257, b"\0") + b"ustar\0",
    "a DICOM file": bytes(128) + b"DICM\2\0",
    "a Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a",
    "a data URI": b"data:image/jpeg;base64," + base64.b64encode(JPEG),
    "a URL": b"https://example.org/street.jpg",
    "an HTTP answer with its head": b"HTTP/1.1 200 OK\r\n\r\n",
    "an HTML page": b"\n <!DOCTYPE html><html><body>Sign in</body></html>",
    "an XML document": b"\xef\xbb\xbf<?xml version='1.0'?><Error>AccessDenied</Error>",
    "a multipart message": b"--boundary\r\nno image here",
    "a MIME message": b"Content-Type: text/plain\r\n\r\nno image",
    "the base64 text of a JPEG image": base64.b64encode(JPEG),
    "the base64 text of a PNG image": b"\n" + base64.b64encode(PNG),
    "the base64 text of a WebP image": base64.b64encode(ALL["webp"]),
    "the base64 text of a GIF image": base64.b64encode(ALL["gif"]),
    "the hexadecimal text of a JPEG image": JPEG.hex().encode(),
    "a Python literal of bytes": repr(JPEG).encode(),
    "a JPEG image that was encoded as UTF-8 text": JPEG.decode("latin-1").encode(),
    "a PNG image that was encoded as UTF-8 text": PNG.decode("latin-1").encode(),
    "bytes that were read as text": JPEG.decode(errors="replace").encode(),
    "JSON": b'{"image": "..."}',
    "100 zeros": bytes(100),
    r"text ('/home/me/street.jpg')": b"/home/me/street.jpg",
    "of an unknown kind (they begin 01 02 03 04 05": bytes(range(1, 200)),
}


@pytest.mark.parametrize(("what", "data"), SENT.items(), ids=SENT.keys())
def test_names_what_was_sent(what: str, data: bytes) -> None:
    said = describe(data)
    assert f"not an image that can be read, but {what}" in said
    assert said.split(": ", 1)[1]  # what to do
    assert "begins at byte" not in said
    with pytest.raises(ImageNotDecodable, match="not an image that can be read"):
        read_header(data)


@pytest.mark.parametrize(
    "before",
    [
        b"\r\n",
        b"\0\0",
        b"Content-Type: image/jpeg\r\nContent-Length: 4711\r\n\r\n",
        b"--boundary\r\nContent-Disposition: form-data; name=image\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\n\r\n",
    ],
)
@pytest.mark.parametrize(("name", "image"), [("JPEG", JPEG), ("PNG", PNG), ("GIF", ALL["gif"])])
def test_says_where_an_image_begins(before: bytes, name: str, image: bytes) -> None:
    if name == "GIF":
        image = image.replace(b"GIF87a", b"GIF89a", 1)
    said = describe(before + image)
    assert f"a {name} image begins at byte {len(before)}: send the bytes from there on" in said


def test_what_is_read_is_known() -> None:
    known = {"jpeg": "JPEG", "png": "PNG", "webp": "WebP", "bmp": "BMP", "tiff": "TIFF"}
    known |= {"gif": "GIF", "avif": "AVIF", "heic": "HEIC"}
    for name, encoded in ALL.items():
        assert format_of(encoded) == known[name.split()[0]], name
