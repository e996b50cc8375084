"""Asks every call who it is, whichever door it came by, and refuses what its rule does not allow.

It is the outermost interceptor after the one that maps errors, so that a refused call reaches
nothing else, not even the leader.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

import grpc

from control_plane.caller import Principal
from control_plane.identity.access import ALL, About, Rule, name_of
from control_plane.identity.gate import Gate
from control_plane.identity.redaction import redact_error
from control_plane.types.access.api_key import is_granted
from yolopool.errors import YolopoolError
from yolopool.server.grpc_server import wrapped


class KnownContext:
    """The context of a call, with who calls."""

    __slots__ = ("_context", "principal")

    def __init__(self, context: Any, principal: Principal) -> None:
        self._context = context
        self.principal = principal

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)


class Authentication(grpc.aio.ServerInterceptor):
    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        # By method: its handler, and that handler wrapped. Most calls have the same one.
        self._wrapped: dict[str, tuple[Any, Any]] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        method = handler_call_details.method
        inner, asking = self._wrapped.get(method, (None, None))
        if inner is not handler:
            asking = self._asking(handler, method)
            self._wrapped[method] = (handler, asking)
        return asking

    def _asking(self, handler: Any, method: str) -> Any:
        if self._gate.is_open(method):
            return handler
        return wrapped(
            handler,
            lambda inner: self._call(inner, method),
            lambda inner: self._stream(inner, method),
        )

    def _call(self, inner: Any, method: str) -> Any:
        gate = self._gate

        async def call(request: Any, context: Any) -> Any:
            principal = await gate.identified(method, context)
            rule = gate.allowed(method, principal, request, context)
            known = KnownContext(context, principal)
            with gate.audit.of(method, rule, principal, context, request):
                try:
                    reply = await inner(request, known)
                except YolopoolError as error:
                    gate.refused_within(method, principal, context, error)
                    named = _named(rule, request)
                    raise gate.veiled(error, principal, named, request) from error
                gate.veil(reply, rule, principal)
                return reply

        return call

    def _stream(self, inner: Any, method: str) -> Any:
        gate = self._gate

        async def call(request: Any, context: Any) -> Any:
            principal = await gate.identified(method, context)
            rule = gate.allowed(method, principal, None if _streams(request) else request, context)
            # The messages that a caller's errors may be about: of a stream those that name a model.
            asked = [] if _streams(request) else [request]
            sent = request
            if rule.streamed:
                sent = self._judged(method, principal, request, context, rule, asked)
            known = KnownContext(context, principal)
            with gate.audit.of(method, rule, principal, context, request):
                try:
                    async with aclosing(inner(sent, known)) as answers:
                        async for answer in answers:
                            # One whose key was revoked meanwhile gets nothing more.
                            await gate.identified(method, context)
                            if self._shown(answer, rule, principal):
                                yield answer
                except YolopoolError as error:
                    gate.refused_within(method, principal, context, error)
                    about = asked[-1] if asked else None
                    raise gate.veiled(error, principal, _named(rule, request), about) from error

        return call

    async def _judged(
        self,
        method: str,
        principal: Principal,
        requests: AsyncIterator[Any],
        context: Any,
        rule: Rule,
        asked: list[Any],
    ) -> AsyncIterator[Any]:
        """The messages of a stream, each asked for the models that it names; `asked` has the last
        that names some.
        """
        async for message in requests:
            self._gate.allowed(method, principal, message, context)
            if any(rule.models(message)):
                asked[:] = [message]
            yield message

    def _shown(self, answer: Any, rule: Rule, principal: Principal) -> bool:
        """Whether the caller gets an answer of a stream; what it may not see is taken out."""
        if principal.grants == ALL:
            return True
        hidden = self._gate.hidden(principal)
        if rule.alone:
            redact_error(answer, hidden)
        elif rule.about is About.SOME and self._is_of_another(answer.version.model, principal):
            return False
        else:
            self._gate.veil(answer, rule, principal)
        return True

    @staticmethod
    def _is_of_another(name: str, principal: Principal) -> bool:
        """Whether something is about a model that is not granted, also of one that is gone."""
        return bool(name) and not is_granted(principal.grants, name_of(name))


def _streams(request: Any) -> bool:
    return hasattr(request, "__aiter__")


def _named(rule: Rule, request: Any) -> tuple[str, ...]:
    """The models that a request names; of a stream none."""
    return () if _streams(request) else tuple(rule.models(request))
