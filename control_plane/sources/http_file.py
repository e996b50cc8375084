"""Files of web servers. A download that broke goes on by Range and If-Range, so that parts of two
states of a file are never put together; redirects are followed by hand, each checked anew.
"""

import http.client
import re
import ssl
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from socket import SHUT_RDWR, socket
from urllib.parse import urljoin

from control_plane.sources.guarded_connection import connection_to, hurried
from control_plane.sources.remote_file import PART_BYTES, Facts
from control_plane.sources.source_rules import SourceRules
from control_plane.sources.source_uri import HTTPS, WEB, SourceUri, parse, shown
from yolopool.errors import (
    SourceChanged,
    SourceDenied,
    SourceInvalid,
    SourceNotFound,
    SourceRefused,
    SourceUnavailable,
    YolopoolError,
)

MAX_REDIRECTS = 5
# Younger than this against the server's own clock, a time of change may stand for two states.
_SETTLED_S = 60.0
_REDIRECTS = frozenset((301, 302, 303, 307, 308))
# What a request can carry: of an address, and of a header.
_SENT_QUERY, _SENT_VALUE = re.compile(r"[\x21-\x7e]*"), re.compile(r"[^\x00-\x1f\x7f]*")
_MAX_DIGITS = 18
_DENIED, _GONE = frozenset((401, 403, 407)), frozenset((404, 410))

# The value of the header Authorization for a host by HTTPS; empty: none.
Logins = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Web:
    """What it takes to ask servers: rules, logins by host, and whose certificates are trusted.
    `also_plain`: logins are shown without TLS too.
    """

    rules: SourceRules
    logins: Logins
    context: ssl.SSLContext
    also_plain: bool = False


class HttpFile:
    """Asked for at once. `needs_length`: refuse an answer whose end can't be told from a broken
    connection, as no digest will tell either.
    """

    def __init__(self, uri: SourceUri, web: Web, *, needs_length: bool = True) -> None:
        self._uri, self._web = uri, web
        self._answer: _Answer | None = None
        self._is_closed = False
        answer = self._ask({})
        size = answer.size_bytes
        if answer.header("Content-Length") == "0":
            self.close()
            raise SourceInvalid(f"{shown(uri.text)} is empty: check the address")
        if needs_length and not size and not answer.is_chunked:
            self.close()
            raise SourceInvalid(
                f"{shown(uri.text)} tells no length, so that a broken answer looks whole: give "
                "the file's SHA-256 with it"
            )
        stamp = "" if answer.header("Accept-Ranges").lower() == "none" else answer.validator
        self.facts = Facts(uri.name, size, stamp if size else "")

    def read(self, offset: int) -> tuple[int, Iterator[bytes]]:
        answer = self._answer
        if not offset or answer is None:
            return 0, self._parts(answer or self._ask({}))
        answer.close()
        answer = self._ask({"Range": f"bytes={offset}-", "If-Range": self.facts.stamp})
        if answer.validator != self.facts.stamp:
            raise self._changed()
        if answer.status != 206:
            return 0, self._parts(answer)  # the server takes no ranges
        if answer.header("Content-Range") != self._range_from(offset):
            raise SourceUnavailable(f"{self._name} answers with another part than was asked for")
        return offset, self._parts(answer)

    def close(self) -> None:
        self._is_closed = True
        if self._answer is not None:
            self._answer.close()

    @property
    def _name(self) -> str:
        return shown(self._uri.text)

    def _range_from(self, offset: int) -> str:
        size = self.facts.size_bytes
        return f"bytes {offset}-{size - 1}/{size}"

    def _changed(self) -> SourceChanged:
        return SourceChanged(f"{self._name} changed since a part of it was read: it is read anew")

    def _parts(self, answer: "_Answer") -> Iterator[bytes]:
        try:
            while part := answer.response.read(PART_BYTES):
                yield part
        except (OSError, ValueError, http.client.HTTPException, AttributeError) as error:
            # ValueError and AttributeError: it was closed by another thread.
            raise SourceUnavailable(
                f"{self._name} broke off ({type(error).__name__}): it goes on from there"
            ) from error

    def _ask(self, headers: Mapping[str, str]) -> "_Answer":
        """The answer of whom redirects lead to. Raises as `RemoteFile`, and SourceRefused."""
        uri = self._uri
        for _ in range(MAX_REDIRECTS + 1):
            answer = self._answer = self._one(uri, headers)
            if self._is_closed:
                answer.close()
            if answer.status not in _REDIRECTS:
                self._check(answer)
                return answer
            answer.close()
            uri = self._next(uri, answer.header("Location"))
        raise SourceUnavailable(f"{self._name} redirects more than {MAX_REDIRECTS} times")

    def _one(self, uri: SourceUri, headers: Mapping[str, str]) -> "_Answer":
        is_secret = uri.scheme == HTTPS or self._web.also_plain
        login = self._web.logins.get(uri.host, "") if is_secret else ""
        all_headers = {
            "Accept-Encoding": "identity",
            "User-Agent": "yolopool",
            **({"Authorization": login} if login else {}),
            **headers,
        }
        try:
            connection = connection_to(uri, self._web.rules, self._web.context)
            opened = connection.sock  # the connection lets go of it where the answer ends it
            try:
                with hurried(opened):
                    connection.request("GET", uri.path, headers=all_headers)
                    response = connection.getresponse()
                return _Answer(opened, connection, response)
            except BaseException:
                connection.close()
                raise
        except ssl.SSLError as error:
            why = getattr(error, "verify_message", "") or error.reason
            raise SourceUnavailable(f"{uri.host}: TLS failed ({why})") from error
        except (OSError, ValueError, AttributeError, http.client.HTTPException) as error:
            # ValueError and AttributeError: it was closed by another thread.
            raise SourceUnavailable(
                f"{uri.host} does not answer ({type(error).__name__}): it is tried again"
            ) from error

    def _next(self, uri: SourceUri, location: str) -> SourceUri:
        """Where a redirect leads. It may have a secret in its query, as presigned addresses have:
        it is not kept, and no error quotes it.
        """
        try:
            target = urljoin(uri.text, location)
            plain, _, query = target.partition("#")[0].partition("?")
            found = parse(plain)
            if not _SENT_QUERY.fullmatch(query):
                raise SourceInvalid("it has a query that is not encoded")
        except (SourceInvalid, ValueError) as error:
            raise SourceRefused(f"{self._name} redirects to where nothing is read") from error
        if found.scheme not in WEB or (uri.scheme == HTTPS and found.scheme != HTTPS):
            raise SourceRefused(f"{self._name} redirects to {found.scheme}, which is not followed")
        self._web.rules.check(found)
        return replace(found, path=f"{found.path}?{query}") if query else found

    def _check(self, answer: "_Answer") -> None:
        status = answer.status
        error: YolopoolError | None = None
        if status in _DENIED:
            error = SourceDenied(
                f"{self._name} answers {status}: give the control plane a login of this host "
                "(--source-netrc)"
            )
        elif status in _GONE:
            error = SourceNotFound(f"{self._name} does not exist ({status}): check the address")
        elif status == 416:
            error = self._changed()
        elif status not in (200, 206):
            error = SourceUnavailable(f"{self._name} answers {status}")
        elif answer.header("Content-Encoding").lower() not in ("", "identity"):
            error = SourceUnavailable(f"{self._name} is compressed, which was not asked for")
        if error is not None:
            answer.close()
            raise error


class _Answer:
    def __init__(
        self,
        opened: socket,
        connection: http.client.HTTPConnection,
        response: http.client.HTTPResponse,
    ) -> None:
        self._socket = opened
        self._connection = connection
        self.response = response
        self.status = response.status

    def header(self, name: str) -> str:
        return (self.response.getheader(name) or "").strip()

    @property
    def is_chunked(self) -> bool:
        return self.header("Transfer-Encoding").lower() == "chunked"

    @property
    def size_bytes(self) -> int:
        """Of the whole file; 0: not told."""
        total = self.header("Content-Range").rpartition("/")[2]
        length = "" if self.is_chunked else self.header("Content-Length")
        text = total if self.status == 206 else length
        return int(text) if text.isdecimal() and len(text) <= _MAX_DIGITS else 0

    @property
    def validator(self) -> str:
        """A value for If-Range; empty: there is none that two states can't share."""
        etag = self.header("ETag")
        if etag:
            return etag if etag.startswith('"') and _SENT_VALUE.fullmatch(etag) else ""
        changed, now = self.header("Last-Modified"), self.header("Date")
        with suppress(ValueError, TypeError):
            age = parsedate_to_datetime(now) - parsedate_to_datetime(changed)
            return changed if age.total_seconds() >= _SETTLED_S else ""
        return ""

    def close(self) -> None:
        # A thread that reads wakes up by this; closing alone would leave it waiting.
        with suppress(OSError):
            self._socket.shutdown(SHUT_RDWR)
        with suppress(OSError, ValueError):
            self.response.close()
        self._connection.close()
