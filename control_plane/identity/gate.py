"""Who calls, whether it may, and what of an answer it may see: asked by every door alike."""

from collections.abc import Callable, Collection, Sequence
from typing import Any

from google.protobuf.message import Message

from control_plane.caller import CALLER, CERTIFICATE, Principal, heard
from control_plane.identity.access import ALL, OPEN, RULES, Behind, Rule, Verdict, judged, name_of
from control_plane.identity.audit import Audit, changes
from control_plane.identity.keyring import Keyring
from control_plane.identity.oidc.tokens import Tokens, looks_like_one
from control_plane.identity.placements import pools_in
from control_plane.identity.redaction import redact, redacted_text, texts, words
from control_plane.types.access.api_key import Role, is_granted
from yolopool.error_table import rebuild
from yolopool.errors import (
    CredentialsInvalid,
    CredentialsMissing,
    GrantNeeded,
    ModelNotFound,
    PermissionDenied,
    RegistryUnavailable,
    RoleNeeded,
    YolopoolError,
)
from yolopool.masking import masked
from yolopool.tls.certificates import peer_of

AUTHORIZATION, BEARER = "authorization", "bearer "
# Errors about the request itself, whose words they repeat.
_OF_REQUEST = frozenset({"INVALID_ARGUMENT", "NOT_FOUND"})
# What a certificate of the pool says of a process.
_OF_POOL = {"worker": Role.WORKER, "control-plane": Role.CONTROL_PLANE}


class Gate:
    """`models`: the names of all models, of which some callers may see a part. A context is that of
    a call by gRPC, or the `Caller` of another door. `is_loaded`: whether the keys were read.
    `opened`: paths and services that answer everyone, beside health. `tokens`: of the issuers that
    are trusted. `pool_of`: the pool of workers of a tenant; empty: it has none of its own.
    `behind`: as `judged` has it.
    """

    def __init__(
        self,
        keyring: Keyring,
        models: Callable[[], Collection[str]],
        audit: Audit,
        is_loaded: Callable[[], bool],
        opened: Sequence[str] = (),
        tokens: Tokens | None = None,
        pool_of: Callable[[str], str] = lambda _: "",
        behind: Behind = lambda _: (),
    ) -> None:
        self._keyring = keyring
        self._models = models
        self._is_loaded = is_loaded
        self._opened = tuple(opened)
        self._tokens = tokens
        self._pool_of = pool_of
        self._behind = behind
        self.audit = audit

    def is_open(self, method: str) -> bool:
        """Whether a method, or a path of HTTP, answers everyone."""
        return method in OPEN or any(
            method == path or method.startswith(f"{path}/") for path in self._opened
        )

    async def identified(self, method: str, context: Any) -> Principal:
        """Who calls. Raises Unauthenticated, and RoleNeeded for a token that gives none, which the
        audit has; RegistryUnavailable before the keys were read; IssuerUnavailable.
        """
        metadata = context.invocation_metadata() or ()
        try:
            sent = [str(value) for key, value in metadata if key == AUTHORIZATION]
            peer = peer_of(context) if not sent else None
            if peer is not None and peer.role in _OF_POOL:
                if peer.joined and self._read_keys().is_revoked(peer.joined):
                    raise CredentialsInvalid("the certificate was revoked: join with another token")
                shown = Principal(CERTIFICATE + peer.name, _OF_POOL[peer.role])
                return _behind(shown, metadata)
            if not sent:
                raise CredentialsMissing(
                    "this pool asks who calls: send an API key or a token as "
                    "'authorization: Bearer KEY' (clients: YOLOPOOL_API_KEY, YOLOPOOL_TOKEN)"
                )
            if len(sent) > 1:
                raise CredentialsInvalid("the call has several authorizations: send one")
            if sent[0][: len(BEARER)].lower() != BEARER:
                raise CredentialsInvalid("the authorization is not of the form 'Bearer KEY'")
            return _behind(await self._holder(sent[0][len(BEARER) :].strip()), metadata)
        except (CredentialsMissing, CredentialsInvalid, RoleNeeded) as error:
            self.audit.refused(method, None, context, error)
            raise

    async def _holder(self, text: str) -> Principal:
        """Whom a key or a token belongs to."""
        if self._tokens is not None and looks_like_one(text):
            return self._tokens.recognised(text) or await self._tokens.verified(text)
        keyring = self._read_keys()
        return keyring.recognised(text) or await keyring.verified(text)

    def _read_keys(self) -> Keyring:
        """The keys, by which joined processes are revoked too. Raises RegistryUnavailable before
        they were read.
        """
        if not self._is_loaded():
            raise RegistryUnavailable(
                "this control plane has not read the keys yet: try again shortly"
            )
        return self._keyring

    def allowed(
        self,
        method: str,
        principal: Principal,
        request: Any,
        context: Any,
        page: Rule | None = None,
    ) -> Rule:
        """The rule of a call that is allowed; `page`: that of a path. Raises what is not allowed;
        the audit has it.
        """
        rule = page or RULES.get(method)
        try:
            if rule is None:
                raise RoleNeeded(f"{method} is allowed to nobody: it has no rule, which is a bug")
            refusal = refusal_of(rule, principal, request, self._behind)
            if refusal is not None:
                raise refusal
            if principal.tenant and rule.role is not Role.DETECT and isinstance(request, Message):
                self._check_pools(principal.tenant, request)
        except YolopoolError as error:
            self.audit.refused(method, principal, context, error)
            raise
        return rule

    def refused_within(
        self, method: str, principal: Principal, context: Any, error: YolopoolError
    ) -> None:
        """Notes what a service did not allow, such as another's worker. Of what changes something
        the audit has a line anyway.
        """
        if isinstance(error, PermissionDenied) and not changes(method):
            self.audit.refused(method, principal, context, error)

    def _check_pools(self, tenant: str, request: Message) -> None:
        """A tenant's operators place on its own workers, and on those that are in no pool: the
        names of other pools are not theirs to use, and they are not told which there are.
        """
        own = self._pool_of(tenant)
        others = pools_in(request) - {own}
        if others:
            has = f"its pool is {own}" if own else "it has none"
            raise GrantNeeded(
                f"a caller of tenant {tenant} names the pool {masked(min(others))[:80]!r}, and "
                f"{has}: leave the pool out, or ask an admin without a tenant"
            )

    def veiled(
        self,
        error: YolopoolError,
        principal: Principal,
        names: Collection[str] = (),
        request: Message | None = None,
    ) -> YolopoolError:
        """The error without what the caller may not see; names: the references it asked about.

        Words of the request that an error about it repeats stay: taken out, they would tell which
        of them are models.
        """
        if principal.grants == ALL:
            return error
        if isinstance(error, ModelNotFound):
            # It may suggest other names.
            unknown = (name for name in map(name_of, names) if name not in self._models())
            return no_model(next(unknown, ""))
        # Another error, since several callers may be told of this one.
        not_seen, said = self.hidden(principal), set[str]()
        if error.code in _OF_REQUEST:
            said = words(" ".join((*names, *(texts(request) if request is not None else ()))))

        def hidden(name: str) -> bool:
            return name not in said and not_seen(name)

        return rebuild(
            error.code,
            error.reason,
            redacted_text(error.message, hidden),
            error.retryable,
            error.retry_after_s,
            {key: redacted_text(text, hidden) for key, text in error.details.items()},
        )

    def veil(self, reply: Any, rule: Rule, principal: Principal) -> None:
        """Takes out of a reply what the caller may not see. In place."""
        if principal.grants != ALL and not rule.alone and isinstance(reply, Message):
            redact(reply, self.hidden(principal))

    def hidden(self, principal: Principal) -> Callable[[str], bool]:
        """Whether a name is that of a model, and not granted."""

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


def refusal_of(
    rule: Rule, principal: Principal, request: Any, behind: Behind = lambda _: ()
) -> YolopoolError | None:
    """What a rule refuses a caller with, as `judged`; None: nothing."""
    verdict, name = judged(rule, principal.role, principal.grants, request, behind)
    if verdict is Verdict.HIDDEN:
        return no_model(name)
    if verdict is Verdict.ROLE_NEEDED:
        return RoleNeeded(
            f"this needs the role {rule.role}, and the caller has {principal.role}: ask "
            "an admin for another key"
        )
    if verdict is Verdict.GRANT_NEEDED:
        return GrantNeeded(
            "this is about every model, and the caller is granted "
            f"{', '.join(principal.grants) or 'none'}: ask an admin for a key with *"
        )
    return None


def no_model(name: str) -> ModelNotFound:
    """What is said of a model that does not exist, and of one that is not granted."""
    which = f"model {name!r}" if name else "such model"
    return ModelNotFound(f"there is no {which}: list the models to see their names")
