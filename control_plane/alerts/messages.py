"""What a receiver is sent: the body, and the headers by which it knows and trusts it. Pure.

Headers and signature are those of Standard Webhooks; the id is the same at each attempt, whichever
control plane sends it, so that a receiver that keeps ids takes a message once.
"""

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass

from control_plane.alerts.rule import AlertRule, measured
from control_plane.types.alerts.alert_state import AlertState, Told

SECRET_PREFIX = "whsec_"
_MARKS = {"critical": ":red_circle:", "warning": ":warning:"}


@dataclass(frozen=True, slots=True)
class Message:
    id: str
    body: bytes


def message_of(state: AlertState, rule: AlertRule, told: Told, form: str, pool: str) -> Message:
    """That an alert fires or has ended. `pool`: the id of the pool."""
    ended = told is Told.RESOLVED
    word = "resolved" if ended else "firing"
    if form == "slack":
        mark = ":large_green_circle:" if ended else _MARKS[rule.severity]
        by = f" by {state.by}" if ended and state.by else ""
        text = f"{mark} *{rule.name}* {word}{by}: {rule.told(state.subject, state.threshold)}"
        if not ended:
            text += f" (now {measured(state.value, rule.unit)})"
        return Message(f"{state.id}-{word}", _json({"text": escaped(text)}))
    data = {
        "id": state.id,
        "rule": rule.name,
        "severity": rule.severity,
        "about": rule.about,
        "subject": state.subject,
        "summary": rule.told(state.subject, state.threshold),
        "value": state.value,
        "threshold": state.threshold,
        "unit": rule.unit,
        "since_unix_s": state.since_unix_s,
        "fired_unix_s": state.fired_unix_s,
        "resolved_unix_s": state.resolved_unix_s if ended else 0.0,
        "resolved_by": state.by if ended else "",
        "pool": pool,
    }
    return Message(f"{state.id}-{word}", _json({"type": f"alert.{word}", "data": data}))


def trial_message(form: str, pool: str, now: float) -> Message:
    """That the receiver can be reached."""
    words = "This is a test: alerts of this pool come here."
    id_ = f"test-{now!r}"
    if form == "slack":
        return Message(id_, _json({"text": words}))
    return Message(id_, _json({"type": "alert.test", "data": {"summary": words, "pool": pool}}))


def headers_of(message: Message, secret: str, now: float) -> Mapping[str, str]:
    """now: Unix seconds. It is signed too, so that nobody can send a message again later."""
    at = str(int(now))
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "yolopool",
        "Idempotency-Key": message.id,
        "webhook-id": message.id,
        "webhook-timestamp": at,
    }
    if secret:
        headers["webhook-signature"] = signature(message.id, at, message.body, secret)
    return headers


def signature(id_: str, at: str, body: bytes, secret: str) -> str:
    """v1, and the HMAC-SHA256 of id, time and body, in base64."""
    signed = hmac.new(key_of(secret), f"{id_}.{at}.".encode() + body, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(signed).decode()}"


def key_of(secret: str) -> bytes:
    """The bytes of a secret: behind whsec_ they are base64."""
    if secret.startswith(SECRET_PREFIX):
        try:
            return base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
        except binascii.Error:
            pass
    return secret.encode()


def escaped(text: str) -> str:
    """As Slack wants it, so that no name becomes a link or calls people."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _json(fields: Mapping[str, object]) -> bytes:
    return json.dumps(fields, separators=(",", ":")).encode()
