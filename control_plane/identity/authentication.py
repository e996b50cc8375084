"""Asks every call who it is, whichever door it came by, and refuses what its rule does not allow.

It is the outermost interceptor after the one that maps errors, so that a refused call reaches
nothing else, not even the leader.
"""

from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any

import grpc
from google.protobuf.message import Message

from control_plane.caller import CALLER, Principal, heard
from control_plane.identity.access import (
    ALL,
    OPEN,
    REFLECTION,
    RULES,
    About,
    Rule,
    Verdict,
    judged,
)
from control_plane.identity.audit import Audit
from control_plane.identity.keyring import Keyring
from control_plane.identity.redaction import redact, redacted_text
from control_plane.types.access.api_key import Role, is_granted
from yolopool.errors import (
    CredentialsInvalid,
    CredentialsMissing,
    GrantNeeded,
    ModelNotFound,
    RoleNeeded,
    YolopoolError,
)
from yolopool.tls.certificates import peer_of

AUTHORIZATION, BEARER = "authorization", "bearer "
# What a certificate of the pool says of a process.
_OF_POOL = {"worker": Role.WORKER, "control-plane": Role.CONTROL_PLANE}


class KnownContext:
    """The context of a call, with who calls."""

    __slots__ = ("_context", "principal")

    def __init__(self, context: Any, principal: Principal) -> None:
        self._context = context
        self.principal = principal

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)


class Authentication(grpc.aio.ServerInterceptor):
    """`models`: the names of all models, of which some callers may see a part."""

    def __init__(
        self,
        keyring: Keyring,
        models: Callable[[], Collection[str]],
        audit: Audit,
        reflection: bool = False,
    ) -> None:
        self._keyring = keyring
        self._models = models
        self._audit = audit
        self._open = (*OPEN, *(REFLECTION if reflection else ()))

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or method.startswith(self._open):
            return handler
        metadata = handler_call_details.invocation_metadata or ()
        for kind in ("unary_unary", "stream_unary"):
            inner = getattr(handler, kind)
            if inner is not None:
                return handler._replace(**{kind: self._call(inner, method, metadata)})
        for kind in ("unary_stream", "stream_stream"):
            inner = getattr(handler, kind)
            if inner is not None:
                return handler._replace(**{kind: self._stream(inner, method, metadata)})
        return handler

    def _call(self, inner: Any, method: str, metadata: Sequence[tuple[str, Any]]) -> Any:
        async def call(request: Any, context: Any) -> Any:
            principal = await self._principal(method, metadata, context)
            rule = self._allowed(method, principal, request, context)
            known = KnownContext(context, principal)
            with self._audit.of(method, rule, principal, context, request):
                if principal.grants == ALL:
                    return await inner(request, known)
                return await self._redacted(inner, rule, request, known)

        return call

    def _stream(self, inner: Any, method: str, metadata: Sequence[tuple[str, Any]]) -> Any:
        async def call(request: Any, context: Any) -> Any:
            principal = await self._principal(method, metadata, context)
            rule = self._allowed(method, principal, request, context)
            hidden = self._hidden(principal)
            with self._audit.of(method, rule, principal, context, request):
                async for answer in inner(request, KnownContext(context, principal)):
                    if rule.about is About.SOME and principal.grants != ALL:
                        if hidden(answer.version.model):
                            continue
                        redact(answer, hidden)
                    yield answer

        return call

    async def _principal(
        self, method: str, metadata: Sequence[tuple[str, Any]], context: Any
    ) -> Principal:
        """Who calls. Raises Unauthenticated, which the audit has."""
        try:
            sent = next((str(value) for key, value in metadata if key == AUTHORIZATION), "")
            peer = peer_of(context) if not sent else None
            if peer is not None and peer[0] in _OF_POOL:
                shown = Principal(f"certificate:{peer[1]}", _OF_POOL[peer[0]])
                return _behind(shown, metadata)
            if not sent:
                raise CredentialsMissing(
                    "this pool asks who calls: send an API key as 'authorization: Bearer KEY' "
                    "(clients: YOLOPOOL_API_KEY)"
                )
            if sent[: len(BEARER)].lower() != BEARER:
                raise CredentialsInvalid("the authorization is not of the form 'Bearer KEY'")
            text = sent[len(BEARER) :].strip()
            principal = self._keyring.recognised(text) or await self._keyring.verified(text)
            return _behind(principal, metadata)
        except YolopoolError as error:
            self._audit.refused(method, None, context, error)
            raise

    def _allowed(self, method: str, principal: Principal, request: Any, context: Any) -> Rule:
        """The rule of a call that is allowed. Raises what is not."""
        rule = RULES.get(method)
        try:
            if rule is None:
                raise RoleNeeded(f"{method} is allowed to nobody: it has no rule, which is a bug")
            verdict, name = judged(rule, principal.role, principal.grants, request)
            if verdict is Verdict.HIDDEN:
                raise _no_model(name)
            if verdict is Verdict.ROLE_NEEDED:
                raise RoleNeeded(
                    f"this needs the role {rule.role}, and the caller has {principal.role}: ask "
                    "an admin for another key"
                )
            if verdict is Verdict.GRANT_NEEDED:
                raise GrantNeeded(
                    "this is about every model, and the caller is granted "
                    f"{', '.join(principal.grants) or 'none'}: ask an admin for a key with *"
                )
        except YolopoolError as error:
            self._audit.refused(method, principal, context, error)
            raise
        return rule

    async def _redacted(self, inner: Any, rule: Rule, request: Any, context: KnownContext) -> Any:
        """The reply, or the error, without what the caller may not see."""
        hidden = self._hidden(context.principal)
        try:
            reply = await inner(request, context)
        except ModelNotFound:
            # It may suggest other names.
            raise _no_model(getattr(request, "model", "") or getattr(request, "name", "")) from None
        except YolopoolError as error:
            error.message = redacted_text(error.message, hidden)
            error.details = {
                key: redacted_text(value, hidden) for key, value in error.details.items()
            }
            raise
        if isinstance(reply, Message) and not rule.alone:
            redact(reply, hidden)
        return reply

    def _hidden(self, principal: Principal) -> Callable[[str], bool]:
        def hidden(name: str) -> bool:
            name = name.partition("+")[0]
            return bool(name) and name in self._models() and not is_granted(principal.grants, name)

        return hidden


def _behind(principal: Principal, metadata: Sequence[tuple[str, Any]]) -> Principal:
    """The caller whose call another control plane forwards; else the caller itself."""
    if principal.role is not Role.CONTROL_PLANE:
        return principal
    text = next((str(value) for key, value in metadata if key == CALLER), "")
    try:
        return heard(text) if text else principal
    except (ValueError, KeyError, TypeError) as error:
        raise CredentialsInvalid("a forwarded call does not say whose it is") from error


def _no_model(name: str) -> ModelNotFound:
    """What is said of a model that does not exist, and of one that is not granted."""
    return ModelNotFound(f"there is no model {name!r}: list the models to see their names")
