"""Alerts, and what control planes tell each other for them: in memory and in Redis."""

import json
from dataclasses import replace

import pytest

from control_plane.store.alerts.alert_codec import (
    decode_setting,
    decode_state,
    encode_setting,
    encode_state,
)
from control_plane.store.registry import Registry
from control_plane.types.alerts.alert_setting import Foreign
from control_plane.types.alerts.alert_state import AlertState, Stage, Told
from tests.contract.registry.samples import HOOK
from yolopool.errors import StaleToken

STATE = AlertState(
    "YolopoolQueueLong", "w1", Stage.FIRING, 1.25, 2.5, value=11.0, threshold=10.0,
    told={"ops": Told.FIRING}, changed_unix_s=3.0,
)  # fmt: skip


async def test_what_each_control_plane_told_last(registry: Registry) -> None:
    records = registry.alert_records
    assert await records.tell("a", "1") == {"a": "1"}
    assert await records.tell("b", "2") == {"a": "1", "b": "2"}
    assert await records.tell("b", "3", drop=("a", "none")) == {"b": "3"}
    assert await records.tell("b", "") == {}


async def test_alerts_are_written_by_who_leads(registry: Registry) -> None:
    records, text = registry.alert_records, encode_state(STATE)
    token = await registry.take_lease("one", 60.0, None)
    assert token is not None
    revision = (await registry.desired()).revision
    await records.put_states({STATE.key: text, "other|": text}, token)
    await records.put_states({"other|": None, "none|": None}, token)
    assert {key: decode_state(one) for key, one in (await records.states()).items()} == {
        STATE.key: STATE
    }
    assert (await registry.desired()).revision == revision
    stale = replace(token, counter=token.counter - 1)
    with pytest.raises(StaleToken):
        await records.put_states({STATE.key: None}, stale)
    assert (await records.states()).keys() == {STATE.key}


async def test_one_that_held_on_replaces_what_is_older_and_takes_nothing_away(
    registry: Registry,
) -> None:
    records = registry.alert_records
    await records.put_states({STATE.key: encode_state(STATE)}, None)
    older, newer = (
        replace(STATE, value=v, changed_unix_s=at) for v, at in ((1.0, 2.9), (2.0, 3.1))
    )
    for state, value in ((older, 11.0), (newer, 2.0), (older, 2.0)):
        await records.put_states({STATE.key: encode_state(state), "none|": None}, None)
        assert decode_state((await records.states())[STATE.key]).value == value
    await records.put_states({STATE.key: None}, None)
    assert (await records.states()).keys() == {STATE.key}


def test_what_a_newer_release_wrote_is_kept_and_read() -> None:
    later = json.dumps({"key": "escalation/x", "after_s": 5})
    assert decode_setting(later) == Foreign("escalation/x", later)
    assert encode_setting(decode_setting(later)) == later
    more = json.dumps({**json.loads(encode_setting(HOOK)), "retries": 3})
    assert decode_setting(more) == HOOK
    assert decode_state(json.dumps({**json.loads(encode_state(STATE)), "group": "g"})) == STATE
