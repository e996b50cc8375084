"""What a client shows with its calls: an API key, or a token that expires and is asked for anew."""

import os
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from yolopool.errors import InvalidOption
from yolopool.transport import bearer

Metadata = tuple[tuple[str, str], ...]
# Called before each call: it answers what it has, and sees to a newer one in time.
TokenSource = Callable[[], str]
AsyncTokenSource = Callable[[], str | Awaitable[str]]


class Credentials:
    """The given API key or token, else YOLOPOOL_API_KEY, YOLOPOOL_TOKEN_FILE or YOLOPOOL_TOKEN,
    else none. Its repr tells nothing.
    """

    def __init__(
        self,
        api_key: str | None,
        token: AsyncTokenSource | None,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        if api_key and token is not None:
            raise InvalidOption("give api_key or token: a call is one caller's")
        self._key: Metadata = ()
        self._token = token
        if token is None:
            api_key = api_key or environ.get("YOLOPOOL_API_KEY")
            file = environ.get("YOLOPOOL_TOKEN_FILE")
            if not api_key and file:
                self._token = token_file(file)
            else:
                self._key = bearer(api_key or environ.get("YOLOPOOL_TOKEN", ""))

    def metadata(self) -> Metadata:
        """What goes with a call now. Raises what the token's source raises."""
        if self._token is None:
            return self._key
        token = self._token()
        if isinstance(token, str):
            return bearer(token.strip())
        close = getattr(token, "close", None)
        if close is not None:
            close()  # a coroutine that nobody awaits
        raise InvalidOption("token gives nothing to this client but text: AsyncClient awaits it")

    async def metadata_async(self) -> Metadata:
        """As `metadata`; the token may be awaited."""
        if self._token is None:
            return self._key
        token = self._token()
        return bearer((token if isinstance(token, str) else await token).strip())


def token_file(path: str | Path) -> TokenSource:
    """The token in a file, which is read again when it changed. The source raises OSError."""
    place, read = Path(path), {"stamp": (0, 0), "text": ""}

    def token() -> str:
        stat = place.stat()
        stamp = (stat.st_mtime_ns, stat.st_ino)
        if read["stamp"] != stamp:
            read.update(stamp=stamp, text=place.read_text(encoding="ascii").strip())
        return str(read["text"])

    return token
