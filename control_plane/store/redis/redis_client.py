"""Makes a Redis client from a URL: unix socket, TCP, TLS or Sentinel.

unix:///path/redis.sock, redis://host:port/db, and
redis+sentinel://[user:password@]host:port,host:port/master-name[/db]; rediss:// and
rediss+sentinel:// with TLS, whose files are read anew for each connection.
"""

import re
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from redis.asyncio import Redis, SSLConnection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import (
    Sentinel,
    SentinelConnectionPool,
    SentinelManagedSSLConnection,
)
from redis.backoff import NoBackoff
from redis.exceptions import OutOfMemoryError, ReadOnlyError, ResponseError

from control_plane.store.redis.redis_access import RedisAccess

FORMS = (
    "unix:///path/redis.sock, redis://[user:password@]host:port[/db], "
    "redis+sentinel://[user:password@]host:port,host:port/master-name[/db], or rediss://... and "
    "rediss+sentinel://... for TLS"
)
SCHEMES = ("unix", "redis", "rediss", "redis+sentinel", "rediss+sentinel")
# Options of a URL with which anyone could be the server.
UNCHECKED = {"ssl_cert_reqs": ("none", "optional"), "ssl_check_hostname": ("false", "no", "0")}


READ_ONLY = (
    "it is a replica now (READONLY); control planes connect anew, so let the URL lead to the master"
)
# By the first word of the server's error.
REFUSALS = {
    "READONLY": READ_ONLY,
    "NOREPLICAS": "too few replicas follow it (NOREPLICAS): see its min-replicas-to-write",
    "MISCONF": "it can't save its data (MISCONF): make room on its disk, and see its log",
    "OOM": "its memory is full (OOM): raise its maxmemory",
}


class _Tls(SSLConnection):
    def _connection_arguments(self) -> Any:
        self.ssl_context.context = None  # a renewed certificate may be in the files
        return super()._connection_arguments()


class _SentinelTls(SentinelManagedSSLConnection):
    def _connection_arguments(self) -> Any:
        self.ssl_context.context = None
        return super()._connection_arguments()


def connect(url: str, access: RedisAccess | None, timeout_s: float) -> Redis:
    """A client that is not connected yet. Raises ValueError, which lists the forms of a URL."""
    scheme = url.partition("://")[0]
    if scheme not in SCHEMES or "://" not in url:
        raise ValueError(f"{_hidden(url)} is no URL of a Redis: give {FORMS}")
    common: dict[str, Any] = {
        "decode_responses": True,
        # Fixed, since the shapes of some replies differ between protocols.
        "protocol": 2,
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        # One retry without delay, for a connection that the server closed while it was idle.
        "retry": Retry(NoBackoff(), 1),
        "health_check_interval": 15,
    }
    access = access or RedisAccess()
    common |= {"username": access.user} if access.user else {}
    common |= {"password": access.password} if access.password else {}
    try:
        _check_options(url)
        if scheme.startswith("rediss"):
            common |= _tls(access)
        if scheme.endswith("+sentinel"):
            return _sentinel(url, common, access, scheme.startswith("rediss"))
        client: Redis = Redis.from_url(url, **common)
        if scheme == "rediss":
            client.connection_pool.connection_class = _Tls
        return client
    except (ValueError, OSError) as error:
        raise ValueError(f"{_hidden(url)}: {error}: give {FORMS}") from error


async def disconnect(client: Redis) -> None:
    """Closes a client of `connect`, and its connections to the sentinels."""
    await client.aclose()
    pool = client.connection_pool
    if isinstance(pool, SentinelConnectionPool):
        await pool.disconnect()
        for sentinel in pool.sentinel_manager.sentinels:
            await sentinel.aclose()


def refusal_of(error: BaseException) -> str | None:
    """Why the server refuses writes and what to do; None: the error is another. A script passes on
    the server's words, in a form that differs by release.
    """
    if isinstance(error, ReadOnlyError):
        return READ_ONLY
    if isinstance(error, OutOfMemoryError):
        return REFUSALS["OOM"]
    if not isinstance(error, ResponseError):
        return None
    words = re.findall(r"[A-Z]{3,}", str(error))
    return next((REFUSALS[word] for word in words if word in REFUSALS), None)


def _tls(access: RedisAccess) -> dict[str, Any]:
    """Without an authority those that this machine trusts; names are checked."""
    files = {
        "ssl_ca_certs": access.authority,
        "ssl_certfile": access.certificate,
        "ssl_keyfile": access.key,
    }
    return {name: file for name, file in files.items() if file}


def _check_options(url: str) -> None:
    for name, value in parse_qsl(urlsplit(url).query):
        if value.lower() in UNCHECKED.get(name, ()):
            raise ValueError(
                f"{name}={value} lets anyone be the server: give its authority (redis_ca) instead"
            )


def _sentinel(url: str, common: dict[str, Any], access: RedisAccess, secure: bool) -> Redis:
    """A client of the master of that name, looked up at each connection."""
    parts = urlsplit(url)
    credentials, _, places = parts.netloc.rpartition("@")
    name, _, db = parts.path.strip("/").partition("/")
    hosts = [_host(place) for place in places.split(",") if place]
    if not hosts or not name:
        raise ValueError("a Sentinel URL names hosts and the master")
    settings = dict(common)
    if credentials:
        user, _, secret = credentials.partition(":")
        settings.setdefault("username", unquote(user) or None)
        settings.setdefault("password", unquote(secret))
    settings.update(parse_qsl(parts.query))
    # The password of the data is not sent to the sentinels: they have their own.
    own = {
        name: settings[name]
        for name in settings
        if name in ("socket_timeout", "socket_connect_timeout", "protocol", "retry")
        or name.startswith("ssl_")
    }
    sentinel_password = access.sentinel_password or settings.pop("sentinel_password", "")
    settings.pop("sentinel_password", None)
    if sentinel_password:
        own["password"] = sentinel_password
    if secure:
        own["ssl"] = settings["ssl"] = True
    build: Any = Sentinel  # untyped
    sentinel = build(hosts, sentinel_kwargs=own, **settings, db=int(db or 0))
    master: Redis = sentinel.master_for(name)
    if secure:
        master.connection_pool.connection_class = _SentinelTls
        for one in sentinel.sentinels:
            one.connection_pool.connection_class = _Tls
    return master


def _host(place: str) -> tuple[str, int]:
    host, _, port = place.rpartition(":")
    if not host:
        host, port = port, "26379"
    return host.strip("[]"), int(port)


def _hidden(url: str) -> str:
    """The URL without user and password."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}" if rest else repr(url[:40])
