"""One message to one receiver: a POST to an address that was checked. Redirects are not followed,
and of the answer only the status counts: who sets a receiver learns nothing of what is behind it.
"""

import http.client
import ssl
from collections.abc import Callable
from dataclasses import replace

from control_plane.alerts.messages import Message, headers_of
from control_plane.sources.guarded_connection import connection_to, hurried
from control_plane.sources.source_rules import SourceRules
from control_plane.sources.source_uri import WEB, SourceUri, parse
from control_plane.types.alerts.alert_setting import Webhook
from yolopool.errors import (
    InvalidOption,
    SourceInvalid,
    SourceRefused,
    SourceUnavailable,
    WebhookFailed,
)

MAX_URL_CHARS = 1000


class WebhookCaller:
    """`rules`: what may be called. `wall_clock`: Unix seconds."""

    def __init__(self, rules: SourceRules, wall_clock: Callable[[], float]) -> None:
        self._rules = rules
        self._wall_clock = wall_clock
        self._context = ssl.create_default_context()

    def check(self, url: str) -> SourceUri:
        """What can be said of an address at once: does not block. Raises InvalidOption."""
        plain, _, query = url.partition("#")[0].partition("?")
        try:
            uri = parse(plain)
            if uri.scheme not in WEB or len(url) > MAX_URL_CHARS or not _can_be_sent(query):
                raise SourceInvalid("it is no address of the web")
            self._rules.check(uri)
        except SourceInvalid as error:
            # Not what it was: an address may be a secret.
            raise InvalidOption(
                f"url: give https://host/path or http://, at most {MAX_URL_CHARS} characters, "
                "encoded, without user and password"
            ) from error
        except SourceRefused as error:
            raise InvalidOption(f"url: {_forbidden(parse(plain).host)}") from error
        return replace(uri, path=f"{uri.path}?{query}") if query else uri

    def post(self, hook: Webhook, message: Message) -> int:
        """Sends it once; returns the status of a receiver that took it. Blocks, at most as long as
        `guarded_connection` lets it. Raises WebhookFailed.
        """
        try:
            status = self._post(self.check(hook.url), hook, message)
        except InvalidOption as error:  # the rules have changed since it was set
            raise WebhookFailed(error.message) from error
        if not 200 <= status < 300:
            raise WebhookFailed(f"{hook.name} answered {status}", details={"status": str(status)})
        return status

    def _post(self, uri: SourceUri, hook: Webhook, message: Message) -> int:
        headers = headers_of(message, hook.secret, self._wall_clock())
        try:
            connection = connection_to(uri, self._rules, self._context)
            try:
                assert connection.sock is not None, "it is open"
                with hurried(connection.sock):
                    connection.request("POST", uri.path, body=message.body, headers=dict(headers))
                    return connection.getresponse().status
            finally:
                connection.close()
        except SourceRefused as error:
            raise WebhookFailed(_forbidden(uri.host)) from error
        except SourceUnavailable as error:
            raise WebhookFailed(error.message) from error
        except ssl.SSLError as error:
            why = getattr(error, "verify_message", "") or error.reason
            raise WebhookFailed(f"{uri.host}: TLS failed ({why})") from error
        except (OSError, ValueError, AttributeError, http.client.HTTPException) as error:
            raise WebhookFailed(f"{uri.host} does not answer ({type(error).__name__})") from error


def _can_be_sent(query: str) -> bool:
    return query.isascii() and query.isprintable() and " " not in query


def _forbidden(host: str) -> str:
    return (
        f"{host} may not be called: an operator allows hosts with --webhook-hosts, and networks "
        "that are not of the public internet with --webhook-private-networks"
    )
