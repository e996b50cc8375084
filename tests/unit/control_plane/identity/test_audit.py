"""Refusals are told, but a flood of them does not fill the log."""

import asyncio
import json

import pytest
import structlog

from control_plane.caller import Principal
from control_plane.identity import audit
from control_plane.identity.access import RULES
from control_plane.identity.audit import Audit
from control_plane.identity.key_secrets import new_secret
from control_plane.types.access.api_key import Role
from yolopool.errors import CredentialsMissing, RoleNeeded
from yolopool.masking import masked
from yolopool.v1 import alerts_pb2

METHOD = "/yolopool.v1.ModelService/GetModel"
CALLER = Principal("key:x", Role.DETECT)


async def test_of_a_flood_the_first_are_lines_and_the_others_a_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(audit, "REFUSALS_WINDOW_S", 0.05)
    told = Audit(lambda _: {})
    with structlog.testing.capture_logs() as lines:
        for _ in range(1000):
            told.refused(METHOD, None, object(), CredentialsMissing("no key"))
        # Who is known has lines of its own, which strangers can't use up.
        told.refused(METHOD, CALLER, object(), RoleNeeded("no"))
        assert len(lines) == audit.REFUSALS_SHOWN + 1
        assert lines[-1]["principal"] == "key:x"
        await asyncio.sleep(0.1)
    assert {line["event"] for line in lines} == {"audit"}
    left_out = [line for line in lines if "left_out" in line]
    assert [line["left_out"] for line in left_out] == [1000 - audit.REFUSALS_SHOWN]
    with structlog.testing.capture_logs() as lines:
        told.refused(METHOD, None, object(), CredentialsMissing("no key"))
    assert lines[0]["outcome"] == "CREDENTIALS_MISSING"


@pytest.mark.parametrize("cut", [None, 40, 30, 20])
def test_no_secret_is_left_in_a_text(cut: int | None) -> None:
    secret = new_secret()
    token = f"eyJhbGciOiJSUzI1NiJ9.{'c' * 40}.{'s' * 40}"
    join = f"{secret.text}.MIIBsomething"
    for text, hidden in ((secret.text, secret.secret), (token, "c" * 10), (join, secret.secret)):
        shown = masked(json.dumps({"path": f"/v1/keys/{text[:cut]}"}))
        assert hidden[:8] not in shown
    assert secret.id in masked(secret.text)
    assert masked("a plain text, yp_ and eyJ") == "a plain text, yp_ and eyJ"


def test_what_a_proto_says_is_secret_is_in_no_line() -> None:
    hook = alerts_pb2.Webhook(name="ops", url="https://host/path-is-secret", secret="word77")
    request = alerts_pb2.SetWebhookRequest(webhook=hook)
    told, rule = Audit(lambda _: {}), RULES["/yolopool.v1.AlertService/SetWebhook"]
    noted = told.of("/yolopool.v1.AlertService/SetWebhook", rule, CALLER, object(), request)
    with structlog.testing.capture_logs() as lines, noted:
        pass
    shown = json.loads(lines[0]["request"])
    assert shown == {"webhook": {"name": "ops", "url": "***", "secret": "***"}}
    assert request.webhook.secret == "word77"
