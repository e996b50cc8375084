"""URIs of model files: what a caller wrote, taken apart. Pure.

A URI is kept in records, logs and events, so one that has a secret in it is refused, and no error
quotes more of it than `shown`.
"""

import re
from dataclasses import dataclass
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from yolopool.errors import SourceInvalid

FILE, HTTP, HTTPS, S3 = "file", "http", "https", "s3"
MODELS, RUNS, WANDB = "models", "runs", "wandb-artifact"
WEB = frozenset((HTTP, HTTPS))
MLFLOW = frozenset((MODELS, RUNS))
SCHEMES = frozenset((FILE, S3, WANDB)) | WEB | MLFLOW
MAX_CHARS = 2000

_FORBIDDEN = re.compile(r"[\x00-\x20\x7f\\]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,62}")
_HOST = re.compile(r"[a-z0-9._:%-]{1,253}")
# Words in names of query parameters whose value is a secret, as presigned addresses have them.
_SECRET = re.compile(r"token|secret|pass|signature|credential|key|auth|jwt|^sig$", re.IGNORECASE)
_DEFAULT_PORTS = {HTTP: 80, HTTPS: 443}


@dataclass(frozen=True, slots=True)
class SourceUri:
    """`host`: of http(s), or the bucket of S3; else empty. `path`: of a file, and the key of S3,
    decoded; of http(s) as it is sent, with the query; else what stands behind the scheme.
    """

    text: str
    scheme: str
    host: str
    port: int
    path: str

    @property
    def name(self) -> str:
        """The file's name, for people."""
        return unquote(self.path.partition("?")[0].rstrip("/").rpartition("/")[2])[:200]


def is_uri(text: str) -> bool:
    """Whether a text is meant as a URI, and not as a file of this machine."""
    return text.partition(":")[0].lower() in SCHEMES and ":/" in text


def shown(text: str) -> str:
    """A URI for people: without a password, and without its query."""
    try:
        parts = urlsplit(text)
        host = parts.netloc.rpartition("@")[2]
    except ValueError:
        return f"{text.partition(':')[0][:20]}:..."
    mark = "?..." if parts.query else ""
    there = "//" if parts.netloc or text.startswith(f"{parts.scheme}:///") else ""
    return f"{parts.scheme}:{there}{host}{parts.path}{mark}"[:300]


def parse(text: str) -> SourceUri:
    """Takes a URI, or the absolute path of a file, apart. Raises SourceInvalid."""
    if text.startswith("/"):
        return _file(text, text)
    parts, port = _split(text)
    _check_secrets(parts)
    if parts.scheme in WEB:
        return _web(text, parts, port)
    if parts.query:
        raise SourceInvalid(f"a URI of {parts.scheme} has no query: leave out what follows the ?")
    if parts.scheme == S3:
        return _object(text, parts)
    if parts.scheme == FILE:
        if parts.netloc not in ("", "localhost"):
            raise SourceInvalid("file:// names a path of the control plane's machine: file:///path")
        return _file(text, unquote(parts.path))
    return _of_tracker(text, parts)


def _split(text: str) -> tuple[SplitResult, int | None]:
    """The parts of a URI of a known scheme, and its port."""
    if not text or len(text) > MAX_CHARS:
        raise SourceInvalid(f"a URI has 1 to {MAX_CHARS} characters, this one {len(text)}")
    if _FORBIDDEN.search(text):
        raise SourceInvalid("a URI has no spaces, backslashes or control characters: encode them")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise SourceInvalid("this is no URI: its host or port can't be read") from None
    if parts.scheme not in SCHEMES:
        raise SourceInvalid(
            f"the scheme {parts.scheme[:20]!r} is not known: give one of "
            f"{', '.join(sorted(SCHEMES))}"
        )
    return parts, port


def _check_secrets(parts: SplitResult) -> None:
    if "@" in parts.netloc:
        raise SourceInvalid(
            "the URI has a user or password in it, which would be kept and logged: take it out, "
            "and give the control plane the credentials (docs/stores.md)"
        )
    if parts.fragment:
        raise SourceInvalid("a URI has no fragment here: leave out what follows the #")
    secret = [name for name, _ in parse_qsl(parts.query, True) if _SECRET.search(name)]
    if secret:
        raise SourceInvalid(
            f"the URI has a secret in it ({secret[0][:40]}), which would be kept and logged: give "
            "the plain address, and the control plane the credentials (docs/stores.md)"
        )


def _web(text: str, parts: SplitResult, port: int | None) -> SourceUri:
    host = (parts.hostname or "").rstrip(".")
    if not _HOST.fullmatch(host):
        raise SourceInvalid(
            f"{parts.scheme}:// needs a host of ASCII letters: {parts.scheme}://h/f"
        )
    if not text.isascii():
        raise SourceInvalid("an address of the web is ASCII: percent-encode the rest")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return SourceUri(text, parts.scheme, host, port or _DEFAULT_PORTS[parts.scheme], path)


def _object(text: str, parts: SplitResult) -> SourceUri:
    if not _BUCKET.fullmatch(parts.netloc):
        raise SourceInvalid("s3:// needs a bucket and a key: s3://bucket/folder/best.pt")
    key = unquote(parts.path.lstrip("/"))
    if _CONTROL.search(key):
        raise SourceInvalid("a key of S3 has no control characters here")
    return SourceUri(text, S3, parts.netloc, 0, key)


def _file(text: str, path: str) -> SourceUri:
    is_whole = path.startswith("/") and len(path) <= MAX_CHARS and not _CONTROL.search(path)
    if not is_whole or ".." in path.split("/"):
        raise SourceInvalid("a file is named by its whole path, without ..: file:///models/best.pt")
    return SourceUri(text, FILE, "", 0, path)


def _of_tracker(text: str, parts: SplitResult) -> SourceUri:
    """models:/name/stage, runs:/id/path, wandb-artifact://entity/project/name:alias."""
    path = f"{parts.netloc}{parts.path}".strip("/")
    least = 3 if parts.scheme == WANDB else 1
    whole = path.split("/")
    if len(whole) < least or not all(whole) or ".." in whole:
        raise SourceInvalid(
            "give models:/name/version, models:/name@alias, runs:/run id/path, or "
            "wandb-artifact://entity/project/name:alias"
        )
    if parts.scheme in MLFLOW and parts.netloc:
        raise SourceInvalid(f"{parts.scheme}: has one slash: the tracking server is the pool's")
    return SourceUri(text, parts.scheme, "", 0, path)
