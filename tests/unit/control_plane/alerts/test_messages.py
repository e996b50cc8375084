"""Messages to receivers."""

import base64
import json

from control_plane.alerts.messages import (
    escaped,
    headers_of,
    key_of,
    message_of,
    signature,
    trial_message,
)
from control_plane.alerts.table import BY_NAME
from control_plane.types.alerts.alert_state import AlertState, Stage, Told

STATE = AlertState(
    "YolopoolInferenceSlow", "<!channel>@1", Stage.FIRING, 10.0, 130.0, value=0.25, threshold=0.1
)
RULE = BY_NAME[STATE.rule]


def test_the_id_is_of_the_alert_and_what_is_said() -> None:
    first, again = (message_of(STATE, RULE, Told.FIRING, form, "p") for form in ("json", "slack"))
    assert first.id == again.id == f"{STATE.id}-firing"
    assert message_of(STATE, RULE, Told.RESOLVED, "json", "p").id == f"{STATE.id}-resolved"
    told = json.loads(first.body)
    assert told["type"] == "alert.firing"
    assert told["data"]["subject"] == "<!channel>@1"
    assert (told["data"]["value"], told["data"]["unit"], told["data"]["pool"]) == (0.25, "s", "p")


def test_no_name_calls_people_in_slack() -> None:
    text = json.loads(message_of(STATE, RULE, Told.FIRING, "slack", "p").body)["text"]
    assert "<" not in text
    assert text.endswith("(now 250 ms)")
    ended = STATE.resolved(200.0, "ann")
    text = json.loads(message_of(ended, RULE, Told.RESOLVED, "slack", "p").body)["text"]
    assert "resolved by ann" in text
    assert escaped("a & <b>") == "a &amp; &lt;b&gt;"


def test_a_signature_as_standard_webhooks_has_it() -> None:
    # The example of the specification.
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    body = b'{"test": 2432232314}'
    expected = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert signature("msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", body, secret) == expected
    assert key_of("whsec_" + base64.b64encode(b"k").decode()) == b"k"
    assert key_of("plain") == b"plain"
    assert key_of("whsec_not base64") == b"whsec_not base64"


def test_headers_name_the_message_and_sign_only_with_a_secret() -> None:
    message = trial_message("json", "p", 5.0)
    plain, signed = headers_of(message, "", 7.9), headers_of(message, "word", 7.9)
    assert plain["webhook-id"] == plain["Idempotency-Key"] == message.id
    assert plain["webhook-timestamp"] == "7"
    assert "webhook-signature" not in plain
    assert signed["webhook-signature"] == signature(message.id, "7", message.body, "word")
