"""The console's routes: pages and files that are the same for everyone, and what fills them beside
the REST routes: who is signed in, the stream of the fleet, the doctor's findings.
"""

import asyncio
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import orjson
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse

from control_plane.caller import Principal
from control_plane.console.assets import PAGES, Asset, pages, static_files
from control_plane.console.recent_findings import RecentFindings
from control_plane.console.session_seal import MAX_KEY_CHARS, SessionSeal
from control_plane.console.sessions import Sessions
from control_plane.console.snapshots import Snapshots
from control_plane.gateway.connection.envelope import AUTHORIZATION_KEY, caller_of, request_id_of
from control_plane.gateway.dispatch import Dispatch
from control_plane.gateway.problem import body_of
from control_plane.identity.access import RULES
from control_plane.identity.gate import refusal_of
from control_plane.identity.guard import CONSOLE, Guard
from control_plane.settings import Settings
from control_plane.types.access.api_key import Role
from yolopool.codes import http_status
from yolopool.errors import (
    CredentialsMissing,
    InvalidOption,
    NotFound,
    PermissionDenied,
    Unauthenticated,
    YolopoolError,
)
from yolopool.server.clock import Clock

STREAM, FINDINGS, SESSION = f"{CONSOLE}/stream", f"{CONSOLE}/findings", f"{CONSOLE}/session"
# No script or style but the console's own files, no frame round it, nothing from elsewhere; and a
# text that somebody named a model by never becomes markup.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' blob:; media-src 'self' blob:; manifest-src 'none'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; "
    "trusted-types 'none'"
)
_HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    # The browser asks whether it changed: a release brings all of its files.
    "Cache-Control": "no-cache",
}
NO_LOG = (
    "This control plane writes no request log, which findings rest on: start it with "
    "--request-log FILE."
)
NO_LINE = "The request log has no line yet: nobody has asked."
# Other methods are those of the pool's own processes.
_OF_PEOPLE = (Role.DETECT, Role.OPERATE, Role.ADMIN)
_NEVER_KEPT = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


class Console:
    """`sessions`: for the entrance, which lets their callers in."""

    def __init__(self, settings: Settings, dispatch: Dispatch, guard: Guard, clock: Clock) -> None:
        self.sessions = Sessions(SessionSeal(settings.pool_key.get_secret_value()), clock.unix)
        self._guard = guard
        self._clock = clock
        self._snapshots = Snapshots(dispatch, clock.monotonic)
        log = settings.request_log
        self._findings = RecentFindings(Path(log).expanduser()) if log else None
        self._looking = asyncio.Lock()

    def routes(self) -> APIRouter:
        router = APIRouter(include_in_schema=False)
        shown, kept = pages(), static_files()

        @router.get(CONSOLE)
        async def start() -> Response:
            return RedirectResponse(f"{CONSOLE}/", 308)

        @router.get(f"{CONSOLE}/")
        async def first(request: Request) -> Response:
            return _sent(shown[PAGES[0].name], request)

        @router.get(f"{CONSOLE}/static/{{path:path}}")
        async def static(path: str, request: Request) -> Response:
            return _sent(_found(kept, path), request)

        router.add_api_route(SESSION, self._who, methods=["GET"], response_model=None)
        router.add_api_route(SESSION, self._sign_in, methods=["POST"], response_model=None)
        router.add_api_route(SESSION, self._sign_out, methods=["DELETE"], response_model=None)
        router.add_api_route(STREAM, self._stream, methods=["GET"], response_model=None)
        router.add_api_route(FINDINGS, self._found_lately, methods=["GET"], response_model=None)

        @router.get(f"{CONSOLE}/{{name}}")
        async def page(name: str, request: Request) -> Response:
            return _sent(_found(shown, name), request)

        return router

    async def _who(self, request: Request) -> Response:
        """Who is signed in, and the methods that are refused to it, with the reasons. That nobody
        is signed in is no error: every page asks.
        """
        if self._guard.is_on and not request.scope[AUTHORIZATION_KEY]:
            return _answer({"signed_in": False, "why": "nobody is signed in"})
        try:
            principal = await self._guard.visitor(SESSION, caller_of(request.scope, "rest"))
        except (Unauthenticated, PermissionDenied) as error:
            return _answer({"signed_in": False, "why": error.message})
        return self._told(principal)

    async def _sign_in(self, request: Request) -> Response:
        key = _key_in(await request.body(), request)
        request.scope[AUTHORIZATION_KEY] = [f"Bearer {key}"]
        principal = await self._guard.visitor(SESSION, caller_of(request.scope, "rest"))
        answer = self._told(principal)
        self.sessions.begin(answer, key, request.scope)
        return answer

    async def _sign_out(self, request: Request) -> Response:
        answer = Response(status_code=204, headers=_NEVER_KEPT)
        self.sessions.end(answer, request.scope)
        return answer

    def _told(self, principal: Principal) -> Response:
        refused = {}
        for method, rule in RULES.items():
            refusal = refusal_of(rule, principal, None) if self._guard.is_on else None
            if refusal is not None and rule.role in _OF_PEOPLE:
                refused[method.rpartition("/")[2]] = refusal.message
        told = {
            "signed_in": True,
            "asks": self._guard.is_on,
            "principal": principal.name,
            "role": str(principal.role),
            "grants": principal.grants,
            "tenant": principal.tenant,
            "refused": refused,
        }
        return _answer(told)

    async def _stream(self, request: Request) -> Response:
        caller = caller_of(request.scope, "rest")
        ask = partial(self._guard.visitor, STREAM, caller)
        await ask()
        id_ = request_id_of(request.scope)

        def told(error: YolopoolError) -> str:
            return body_of(error, id_, http_status(error.code, error.reason)).decode()

        lines = self._snapshots.lines(caller, ask, told)
        # A proxy that collects answers would keep events back.
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        return StreamingResponse(lines, headers=headers, media_type="text/event-stream")

    async def _found_lately(self, request: Request) -> Response:
        await self._guard.visitor(FINDINGS, caller_of(request.scope, "rest"))
        if self._findings is None:
            return _answer({"why": NO_LOG})
        async with self._looking:  # one log, however many look
            try:
                told = await asyncio.to_thread(self._findings.look, self._clock.unix())
            except FileNotFoundError:
                return _answer({"why": NO_LINE})
        return _answer(told)


def _key_in(body: bytes, request: Request) -> str:
    """The key or token that somebody signs in with. Raises InvalidOption, CredentialsMissing."""
    kind = request.headers.get("content-type", "").partition(";")[0]
    try:
        said = orjson.loads(body) if kind == "application/json" else None
    except orjson.JSONDecodeError:
        said = None
    key = said.get("key") if isinstance(said, dict) else None
    if not isinstance(key, str):
        raise InvalidOption('the body is not {"key": "..."} as application/json')
    key = key.strip()
    if not key:
        raise CredentialsMissing("the key is empty: paste an API key or a token")
    if not key.isascii() or not key.isprintable() or " " in key:
        raise InvalidOption("a key or a token has letters, digits and signs, and no space")
    if len(key) > MAX_KEY_CHARS:
        raise InvalidOption(
            f"the token has {len(key)} characters, and a browser keeps {MAX_KEY_CHARS}: ask your "
            "issuer for one with fewer claims, or let a proxy send it as 'authorization'"
        )
    return key


def _answer(told: Mapping[str, Any]) -> Response:
    return Response(orjson.dumps(told), headers=_NEVER_KEPT, media_type="application/json")


def _found(assets: Mapping[str, Asset], name: str) -> Asset:
    asset = assets.get(name)
    if asset is None:
        raise NotFound(f"the console has no {name[:80]!r}: begin at {CONSOLE}/")
    return asset


def _sent(asset: Asset, request: Request) -> Response:
    headers: dict[str, Any] = {**_HEADERS, "ETag": asset.etag}
    if request.headers.get("if-none-match") == asset.etag:
        return Response(status_code=304, headers=headers)
    return Response(asset.content, headers=headers, media_type=asset.media_type)
