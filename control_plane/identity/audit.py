"""Who did what, from where, with what outcome: one log line for each change and each refusal.

Lines have the event `audit`, so that any log pipeline can keep them apart. No secret is in them:
bytes are left out, and a key is named by its id.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict
from functools import lru_cache
from typing import Any

import structlog
from google.protobuf import json_format
from google.protobuf.message import Message

from control_plane.caller import Principal
from control_plane.identity.access import About, Rule, name_of
from control_plane.view.view import View
from yolopool.errors import YolopoolError
from yolopool.masking import masked

log = structlog.get_logger()

# What only looks.
_LOOKS = ("List", "Get", "Watch", "Plan", "Explain", "Detect", "Bench")
# Of the pool's own processes their changes are events of the fleet; what changes by KServe's
# protocol is a native call inside, which is noted.
_OWN = ("ImportService", "MembershipService", "PeerService", "GRPCInferenceService")
# Of services that are not the pool's.
_FOREIGN = "/grpc."
MAX_TEXT_CHARS, MAX_PATH_CHARS = 2000, 200
# Of each caller, and of all that nobody knows together, so many refusals are lines in such a time;
# the others are counted.
REFUSALS_SHOWN, REFUSALS_WINDOW_S = 20, 10.0

_PASSES: AbstractContextManager[None] = nullcontext()
Stand = Callable[[str], Mapping[str, object]]


class Audit:
    """`stand`: what is set of a model, by name, to be told as it was before and after."""

    def __init__(self, stand: Stand) -> None:
        self._stand = stand
        self._refusals: dict[str, int] = {}  # of the present window, by who was refused

    def of(
        self, method: str, rule: Rule, principal: Principal, context: Any, request: Any
    ) -> AbstractContextManager[None]:
        """Notes a call that changes something, when it ends; others pass."""
        if not changes(method):
            return _PASSES
        return self._noted(method, rule, principal, context, request)

    @contextmanager
    def _noted(
        self, method: str, rule: Rule, principal: Principal, context: Any, request: Any
    ) -> Iterator[None]:
        names = sorted({name_of(reference) for reference in rule.models(request)})
        about = names if rule.about is About.MODEL else []
        before = {name: self._stand(name) for name in about}
        outcome = "CANCELLED"
        try:
            yield
            outcome = "OK"
        except YolopoolError as error:
            outcome = error.reason
            raise
        except Exception:
            outcome = "INTERNAL"
            raise
        finally:
            log.info(
                "audit",
                **_who(principal, context),
                method=_path(method),
                request=_shown(request),
                before=before,
                after={name: self._stand(name) for name in about},
                outcome=outcome,
            )

    def refused(
        self, method: str, principal: Principal | None, context: Any, error: YolopoolError
    ) -> None:
        """Notes a call that was not allowed: a line, or one in the count of a flood."""
        who = principal.name if principal is not None else ""
        if who not in self._refusals:
            self._refusals[who] = 0
            asyncio.get_running_loop().call_later(REFUSALS_WINDOW_S, self._count_refusals, who)
        self._refusals[who] += 1
        if self._refusals[who] <= REFUSALS_SHOWN:
            told = {**_who(principal, context), "method": _path(method), "outcome": error.reason}
            log.warning("audit", **told)

    def _count_refusals(self, who: str) -> None:
        """Ends the window of a caller, and tells of what had no line."""
        left_out = self._refusals.pop(who) - REFUSALS_SHOWN
        if left_out > 0:
            log.warning(
                "audit",
                principal=who,
                outcome="REFUSED",
                left_out=left_out,
                within_s=REFUSALS_WINDOW_S,
            )


def stand_of(view: View, name: str) -> dict[str, object]:
    """What operators set of a model, by version."""
    desired = view.desired
    told: dict[str, object] = {}
    for version in view.catalogue.models.get(name, ()):
        want = desired.want(version.key)
        told[str(version.key.number)] = {
            "state": version.state,
            "replicas": want.replicas if want is not None else 0,
            "pinned": want.pinned if want is not None else False,
            **asdict(version.given),
        }
    for key, alias in desired.aliases.items():
        if key.model == name:
            means = {one.version: one.weight for one in alias.targets}
            told[f":{key.name}"] = means if alias.family is None else asdict(alias.family)
    return told


@lru_cache(maxsize=512)
def changes(method: str) -> bool:
    """Whether a method changes what operators set."""
    service, _, name = method.rpartition("/")
    return not (name.startswith(_LOOKS) or service.endswith(_OWN) or method.startswith(_FOREIGN))


def _who(principal: Principal | None, context: Any) -> dict[str, object]:
    peer = getattr(context, "peer", None)
    return {
        "principal": principal.name if principal is not None else "",
        "tenant": principal.tenant if principal is not None else "",
        "peer": peer() if callable(peer) else "",
    }


def _shown(request: Any) -> str:
    """A request as text, without what its proto says is secret; of a stream of messages nothing."""
    if not isinstance(request, Message):
        return ""
    request = _redacted(request)
    text = json_format.MessageToJson(request, preserving_proto_field_name=True, indent=None)
    return masked(text)[:MAX_TEXT_CHARS]


def _redacted(message: Message) -> Message:
    """A copy whose fields with `debug_redact` say only that they were given."""
    shown = type(message)()
    shown.CopyFrom(message)
    for field, value in shown.ListFields():
        if field.GetOptions().debug_redact:
            setattr(shown, field.name, "***")
        elif isinstance(value, Message):
            value.CopyFrom(_redacted(value))
    return shown


def _path(method: str) -> str:
    """A method, or the path of HTTP that a stranger asked for, fit for a line."""
    shown = masked(method)[:MAX_PATH_CHARS]
    return "".join(char if char.isprintable() else "?" for char in shown)
