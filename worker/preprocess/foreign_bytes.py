"""Says what bytes are that are not an image in a format that is read, and what to send. Pure."""

FORMATS = "JPEG, PNG, WebP, BMP, TIFF, GIF, AVIF or HEIC"

_SAVE = "save the image as JPEG or PNG"
_DEVELOP = "develop it, and send that as JPEG or PNG"
_FRAME = "send single frames as JPEG or PNG"
_FIRST = "take the image out of it and send the image's own bytes"
_FETCH = "fetch the image and send its bytes"
_BASE64 = "decode it and send the bytes: base64.b64decode(...)"
_AGAIN = "read the file in binary mode and send its bytes as they are"

# What bytes begin with, what that is, and what to do. Longer beginnings come before shorter ones.
_BEGINNINGS: tuple[tuple[bytes, str, str], ...] = (
    (b"\0\0\0\x0cjP  ", "a JPEG 2000 image", _SAVE),
    (b"\xffO\xffQ", "a JPEG 2000 codestream", _SAVE),
    (b"\0\0\0\x0cJXL ", "a JPEG XL image", _SAVE),
    (b"\xff\x0a", "a JPEG XL codestream", _SAVE),
    (b"8BPS", "a Photoshop document", _SAVE),
    (b"\0\0\1\0", "a Windows icon", _SAVE),
    (b"v/1\1", "an OpenEXR image", _SAVE),
    (b"#?RADIANCE", "a Radiance HDR image", _SAVE),
    (b"DDS ", "a DirectDraw texture", _SAVE),
    (b"SIMPLE  =", "a FITS file", _SAVE),
    (b"FUJIFILM", "a raw photo of a camera", _DEVELOP),
    (b"IIU\0", "a raw photo of a camera", _DEVELOP),
    (b"IIRO", "a raw photo of a camera", _DEVELOP),
    (b"\0\0\0\x18ftypcrx ", "a raw photo of a camera", _DEVELOP),
    (b"<svg", "an SVG drawing", "draw it at the size you want, and save that as PNG"),
    (b"\x1aE\xdf\xa3", "a Matroska or WebM video", _FRAME),
    (b"FLV\1", "a Flash video", _FRAME),
    (b"\0\0\1\xba", "an MPEG video", _FRAME),
    (b"%PDF", "a PDF document", "draw its page, and send that as PNG"),
    (b"\x93NUMPY", "a NumPy file", "load it by numpy.load and give the client the array"),
    (b"\x80\4\x95", "a Python pickle", "give the client the array itself"),
    (b"\x89HDF\r\n", "an HDF5 file", _FIRST),
    (b"PK\3\4", "a zip archive", _FIRST),
    (b"\x1f\x8b", "gzip", "unpack it and send the image's bytes"),
    (b"(\xb5/\xfd", "Zstandard", "unpack it and send the image's bytes"),
    (b"7z\xbc\xaf", "a 7z archive", _FIRST),
    (b"Rar!", "a RAR archive", _FIRST),
    (b"OggS", "an Ogg file", _FRAME),
    (b"ID3", "sound", "send an image"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file", "run `git lfs pull`"),
    (b"data:", "a data URI", "decode what is behind the comma: base64.b64decode(...)"),
    (b"http://", "a URL", _FETCH),
    (b"https://", "a URL", _FETCH),
    (b"file://", "a URL", "read the file and send its bytes"),
    (b"HTTP/", "an HTTP answer with its head", "send its body alone"),
    (b"<!doctype html", "an HTML page", _FETCH + "; the address may have asked for a login"),
    (b"<html", "an HTML page", _FETCH + "; the address may have asked for a login"),
    (b"<?xml", "an XML document", _FETCH),
    (b"--", "a multipart message", _FIRST),
    (b"content-", "a MIME message", _FIRST),
    (b"mime-version", "a MIME message", _FIRST),
    (b"/9j/", "the base64 text of a JPEG image", _BASE64),
    (b"iVBORw0KGgo", "the base64 text of a PNG image", _BASE64),
    (b"UklGR", "the base64 text of a WebP image", _BASE64),
    (b"R0lGOD", "the base64 text of a GIF image", _BASE64),
    (b"ffd8ff", "the hexadecimal text of a JPEG image", "decode it: bytes.fromhex(...)"),
    (b"89504e47", "the hexadecimal text of a PNG image", "decode it: bytes.fromhex(...)"),
    (b"b'\\x", "a Python literal of bytes", "send the bytes, not their repr()"),
    (b"b'/9j", "a Python literal of base64 text", _BASE64),
    (b"\xc3\xbf\xc3\x98", "a JPEG image that was encoded as UTF-8 text", _AGAIN),
    (b"\xc2\x89PNG", "a PNG image that was encoded as UTF-8 text", _AGAIN),
    (b"\xef\xbf\xbd", "bytes that were read as text, which lost some of them", _AGAIN),
    (b"{", "JSON", "take the image out of it; base64 text in it must be decoded"),
    (b"[", "JSON", "give the client an array, or the bytes of an image file"),
)
# Inside a container of this kind.
_RIFFS = {b"AVI ": ("an AVI video", _FRAME), b"WAVE": ("sound", "send an image")}
# How an image that is read begins, to find one behind something else.
_IMAGES = ((b"\xff\xd8\xff", "JPEG"), (b"\x89PNG\r\n\x1a\n", "PNG"), (b"GIF89a", "GIF"))
_SEARCHED_BYTES = 4096
_SHOWN_BYTES = 12
_SHOWN_CHARACTERS = 40


def describe(data: bytes) -> str:
    """One sentence on bytes that begin no image of a format that is read."""
    what, advice = _named(data)
    at, name = _image_behind_text(data)
    if at:
        advice = f"a {name} image begins at byte {at}: send the bytes from there on"
    return f"the bytes are not an image that can be read, but {what}: {advice}"


def _named(data: bytes) -> tuple[str, str]:
    text = data[:64].removeprefix(b"\xef\xbb\xbf").lstrip()
    views = (data, text, text.lower())
    for beginning, what, advice in _BEGINNINGS:
        if any(view.startswith(beginning) for view in views):
            return what, advice
    if data[:4] == b"RIFF":
        return _RIFFS.get(data[8:12], ("a RIFF file of another kind", f"send {FORMATS}"))
    if data[4:8] == b"ftyp":
        return f"a video or photo of the kind {data[8:12].decode('latin-1')!r}", _FRAME
    if data[128:132] == b"DICM":
        return "a DICOM file", "scale its levels to 0..255 and send an array, or save it as PNG"
    if data[257:262] == b"ustar":
        return "a tar archive", _FIRST
    if not data.strip(b"\0"):
        return f"{len(data)} zeros", "check what wrote the file: it may not have ended"
    if _is_text(data[:256]):
        shown = data[:_SHOWN_CHARACTERS].decode("latin-1")
        return f"text ({shown!r})", f"send the bytes of an image file: {FORMATS}"
    shown = data[:_SHOWN_BYTES].hex(" ")
    return f"of an unknown kind (they begin {shown})", f"send {FORMATS}"


def _is_text(data: bytes) -> bool:
    return data.isascii() and "".join(data.decode().split()).isprintable()


def _image_behind_text(data: bytes) -> tuple[int, str]:
    """Where an image begins behind blanks, zeros or the head of a message, and its format; 0 if
    there is none.
    """
    head = data[:_SEARCHED_BYTES]
    found = [(at, name) for magic, name in _IMAGES if (at := head.find(magic)) > 0]
    at, name = min(found, default=(0, ""))
    return (at, name) if at and _is_text(head[:at].strip(b"\0")) else (0, "")
