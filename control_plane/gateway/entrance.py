"""Asks every HTTP call who it is, before its body is read: no path answers unless this let it in.

What a path needs beyond that is asked where its method is dispatched. Where callers are not asked,
this is not in the way at all.
"""

from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from control_plane.caller import ANONYMOUS, Principal
from control_plane.gateway import cameras
from control_plane.gateway.connection.envelope import AUTHORIZATION_KEY, caller_of, request_id_of
from control_plane.gateway.kserve import http_door
from control_plane.gateway.problem import problem
from control_plane.identity.guard import Guard
from yolopool.errors import YolopoolError

_PRINCIPAL_KEY = "yolopool.principal"
Form = Callable[[YolopoolError, Request], Response]


def visitor_of(scope: Scope) -> Principal:
    """Who calls, as the entrance found it; where nobody is asked ANONYMOUS."""
    principal: Principal = scope.get(_PRINCIPAL_KEY, ANONYMOUS)
    return principal


class Entrance:
    """`session`: the key that the session of a browser stands for; empty: it has none."""

    def __init__(self, app: ASGIApp, guard: Guard, session: Callable[[Scope], str]) -> None:
        self._app = app
        self._guard = guard
        self._session = session

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        if not scope[AUTHORIZATION_KEY] and (key := self._session(scope)):
            scope[AUTHORIZATION_KEY] = [f"Bearer {key}"]
        if not (self._guard.is_open(path) or self._asks_itself(scope)):
            try:
                caller = caller_of(scope, "http")
                scope[_PRINCIPAL_KEY] = await self._guard.visitor(path, caller)
            except YolopoolError as error:
                refusal = _form_of(path)(error, Request(scope))
                await refusal(scope, receive, send)
                return
        await self._app(scope, receive, send)

    @staticmethod
    def _asks_itself(scope: Scope) -> bool:
        """Whether a key may be in the form of the body, which the door reads."""
        return not scope[AUTHORIZATION_KEY] and cameras.takes_form(scope["method"], scope["path"])


def _form_of(path: str) -> Form:
    """How the callers of a path know errors."""
    if path == "/v2" or path.startswith("/v2/"):
        return http_door.failure
    if path.startswith(cameras.PREFIX):
        return lambda error, _: cameras.failure(error)
    return lambda error, request: problem(error, request_id_of(request.scope))
