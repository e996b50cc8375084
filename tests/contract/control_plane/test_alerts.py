"""Alerts through the API, and receivers on real sockets: who is told what, once, whoever leads."""

import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
from pathlib import Path
from typing import Any

import pytest

from control_plane.notifying import webhook_sender
from control_plane.store.redis.redis_registry import RedisRegistry
from tests.contract.alert_rig import Receiver, alert_rig, alerts, ends, fires
from tests.contract.control_plane_rig import Rig, refused
from tests.contract.redis_servers import any_kind, server
from tests.waiting import becomes
from yolopool import errors
from yolopool.v1 import alerts_pb2, events_pb2

# Its cause is that no worker is there.
RULE = "YolopoolNoWorker"


async def hook(rig: Rig, receiver: Receiver, name: str = "ops", **more: Any) -> Any:
    asked = alerts_pb2.Webhook(name=name, url=receiver.url, **{"rule": RULE, **more})
    request = alerts_pb2.SetWebhookRequest(webhook=asked)
    return (await rig.alerts.SetWebhook(request, timeout=5)).webhook


async def told(receiver: Receiver, count: int) -> list[str]:
    """What a receiver took, once there is so much of it; a while later there is no more."""
    await becomes(lambda: len(receiver.taken) >= count, 20)
    await asyncio.sleep(0.15)
    assert len(receiver.taken) == count
    return [kind for kind, _ in receiver.told()]


async def test_a_receiver_that_fails_twice_gets_it_once_and_signed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook_sender, "PAUSES_S", (0.1,))
    async with alert_rig(tmp_path) as rig:
        with Receiver(statuses=[500, 302]) as receiver:
            shown = await hook(rig, receiver, secret="whsec_" + base64.b64encode(b"key").decode())
            assert (shown.is_signed, shown.secret) == (True, "")
            assert shown.url == receiver.url.partition("/hook")[0] + "/..."
            assert await told(receiver, 1) == ["alert.firing"]
            attempts = [*receiver.refused, *receiver.taken]
            assert len({headers["webhook-id"] for headers, _ in attempts}) == 1
            assert len({body for _, body in attempts}) == 1
            for headers, body in attempts:
                signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
                mac = base64.b64encode(hmac.new(b"key", signed, hashlib.sha256).digest()).decode()
                assert headers["webhook-signature"] == f"v1,{mac}"
                assert headers["idempotency-key"] == headers["webhook-id"]
            data = json.loads(receiver.taken[0][1])["data"]
            alert = await fires(rig, RULE)
            assert data["subject"] == alert.subject == rig.plane._alerting.controller._name
            assert (data["id"], data["severity"], data["value"]) == (alert.id, "critical", 0.0)
            assert data["pool"] == rig.plane.view.desired.cluster
            await rig.worker("w1")
            assert await told(receiver, 2) == ["alert.firing", "alert.resolved"]
            assert json.loads(receiver.taken[1][1])["data"]["resolved_unix_s"] > 0
        stream = rig.events.WatchEvents(events_pb2.WatchEventsRequest(last=50), timeout=5)
        kinds = [events_pb2.EventKind.Name(one.kind) async for one in stream]
        assert kinds.count("EVENT_KIND_ALERT_FIRING") == 1
        assert kinds.count("EVENT_KIND_ALERT_RESOLVED") == 1
        assert "EVENT_KIND_WEBHOOK_FAILED" not in kinds


async def test_the_next_leader_goes_on_and_tells_nothing_twice(tmp_path: Path) -> None:
    async with alert_rig(tmp_path) as first:
        with Receiver() as receiver, Receiver(statuses=[500] * 3) as slow:
            await hook(first, receiver)
            await fires(first, RULE)
            await becomes(lambda: receiver.taken)
            async with alert_rig(tmp_path / "other", first.registry) as other:
                await hook(other, slow, "slow")
                await becomes(lambda: slow.refused)
                known = (await fires(other, RULE)).id
                await first.plane.stop()  # and gives up what it was about to send
                await becomes(lambda: other.plane._election.is_leader)
                await becomes(lambda: slow.taken)
                # That of the one that ended has ended too; the new one's own subject is another.
                await becomes(lambda: len(receiver.taken) >= 3)
                await other.worker("w1")
                await ends(other, RULE)
                await asyncio.sleep(0.3)
                for one in (receiver, slow):
                    ids = [headers["webhook-id"] for headers, _ in one.taken]
                    assert len(ids) == len(set(ids))
                ids = [headers["webhook-id"] for headers, _ in receiver.taken]
                assert ids.count(f"{known}-firing") == 1
                assert {kind for kind, _ in receiver.told()} == {"alert.firing", "alert.resolved"}


async def test_a_restart_tells_nothing_again(tmp_path: Path) -> None:
    with Receiver() as receiver:
        async with alert_rig(tmp_path) as rig:
            registry = rig.registry
            worker = await rig.worker("w1")
            await hook(rig, receiver, rule="YolopoolDeviceMemory")
            worker.terms["measured_bytes"] = 195
            before = await fires(rig, "YolopoolDeviceMemory")
            await told(receiver, 1)
        async with alert_rig(tmp_path, registry) as rig:
            await worker.join(rig.addresses.grpc)
            await asyncio.sleep(0.5)
            assert (await fires(rig, "YolopoolDeviceMemory")).id == before.id
            await told(receiver, 1)
            worker.terms.clear()
            assert await told(receiver, 2) == ["alert.firing", "alert.resolved"]
            await worker.die()


async def test_a_store_that_goes_away_is_told_once_by_who_led_last(tmp_path: Path) -> None:
    rule, away = "YolopoolRegistryAway", contextlib.ExitStack()
    url = f"unix://{tmp_path}/redis.sock"
    away.enter_context(server(any_kind(), tmp_path))
    await becomes((tmp_path / "redis.sock").exists)
    with Receiver() as receiver:
        async with (
            alert_rig(tmp_path / "a", RedisRegistry(url)) as first,
            alert_rig(tmp_path / "b", RedisRegistry(url)) as other,
        ):
            await first.worker("w1", also=[other.addresses.grpc])
            planes = [rig.plane for rig in (first, other)]
            # Before anyone led, another one was in charge: it has to have heard of the leader.
            await becomes(
                lambda: (
                    all(
                        plane._alerting.controller._may_tell
                        == (plane._election.acting_token is not None)
                        for plane in planes
                    )
                    and any(plane._election.acting_token for plane in planes)
                )
            )
            await hook(first, receiver, rule=rule)
            away.close()
            await told(receiver, 1)
            last = next(one for one in planes if one._alerting.controller._may_tell)
            data = json.loads(receiver.taken[0][1])["data"]
            assert data["subject"] == last._alerting.controller._name
            away.enter_context(server(any_kind(), tmp_path))
            # Whoever leads then knows of it, and that it has ended.
            assert await told(receiver, 2) == ["alert.firing", "alert.resolved"]
            assert json.loads(receiver.taken[1][1])["data"]["id"] == data["id"]
            for rig in (first, other):
                listed = [one for one in await alerts(rig, "resolved") if one.rule == rule]
                assert [one.id for one in listed] == [data["id"]]
    away.close()


async def test_a_silence_holds_back_until_it_ends_and_resolving_ends_it(tmp_path: Path) -> None:
    async with alert_rig(tmp_path) as rig:
        with Receiver() as receiver:
            request = alerts_pb2.SilenceAlertsRequest(rule="Yolopool*", for_s=3600, why="at work")
            silence = (await rig.alerts.SilenceAlerts(request, timeout=5)).silence
            await hook(rig, receiver, form="slack")
            alert = await fires(rig, RULE)
            assert alert.silence == silence.id
            assert await told(receiver, 0) == []
            listed = await rig.alerts.ListSilences(alerts_pb2.ListSilencesRequest(), timeout=5)
            assert list(listed.silences) == [silence]
            ended = alerts_pb2.EndSilenceRequest(id=silence.id)
            await rig.alerts.EndSilence(ended, timeout=5)
            await becomes(lambda: receiver.taken)
            error = await refused(rig.alerts.EndSilence(ended, timeout=5))
            assert isinstance(error, errors.SilenceNotFound)
            resolve = alerts_pb2.ResolveAlertRequest(id=alert.id)
            done = (await rig.alerts.ResolveAlert(resolve, timeout=5)).alert
            assert (done.stage, done.resolved_by) == (
                alerts_pb2.ALERT_STAGE_RESOLVED,
                "anonymous",
            )
            await becomes(lambda: len(receiver.taken) == 2)
            texts = [json.loads(body)["text"] for _, body in receiver.taken]
            assert texts[0].startswith(":red_circle: *YolopoolNoWorker* firing: ")
            assert " resolved by anonymous: " in texts[1]
            # Its condition holds on, and it does not fire again before that has ended.
            await asyncio.sleep(0.3)
            assert not await alerts(rig, "firing")
            worker = await rig.worker("w1")
            await asyncio.sleep(0.3)
            await worker.die()
            assert (await fires(rig, RULE)).id != alert.id


async def test_thresholds_are_of_models_and_workers(tmp_path: Path) -> None:
    rule = "YolopoolDeviceMemory"
    async with alert_rig(tmp_path) as rig:
        small, large = [await rig.worker(name) for name in ("small", "large")]
        for pattern, value, for_s in (("la*", 0.99, None), ("*", 0.5, 0.0)):
            threshold = alerts_pb2.AlertThreshold(
                rule=rule, pattern=pattern, value=value, for_s=for_s
            )
            request = alerts_pb2.SetAlertThresholdRequest(threshold=threshold)
            shown = (await rig.alerts.SetAlertThreshold(request, timeout=5)).rule
        assert [one.pattern for one in shown.thresholds] == ["*", "la*"]
        for worker in (small, large):
            worker.terms["measured_bytes"] = 120
        alert = await fires(rig, rule)
        assert (alert.subject, alert.threshold, round(alert.value, 2)) == ("small", 0.5, 0.6)
        off = alerts_pb2.AlertThreshold(rule=rule, pattern="small", off=True)
        request = alerts_pb2.SetAlertThresholdRequest(threshold=off)
        await rig.alerts.SetAlertThreshold(request, timeout=5)
        await ends(rig, rule)
        unknown = alerts_pb2.AlertThreshold(rule="None", pattern="*", value=1)
        request = alerts_pb2.SetAlertThresholdRequest(threshold=unknown)
        error = await refused(rig.alerts.SetAlertThreshold(request, timeout=5))
        assert isinstance(error, errors.InvalidOption)


INSIDE = (
    "http://127.0.0.1:9/x", "https://[::1]/x", "http://169.254.169.254/latest/meta-data",
    "http://10.0.0.7/", "http://me:qq77@example.com/", "ftp://example.com/x", "file:///etc/shadow",
    "http://example.com/a b", "",
)  # fmt: skip
# Only a call knows where they lead.
LEAD_INSIDE = ("http://localhost:9/x", "http://2130706433:9/")


@pytest.fixture
async def closed(tmp_path: Path) -> Any:
    async with alert_rig(tmp_path, webhook_private_networks=()) as rig:
        yield rig


async def put(rig: Rig, url: str) -> Any:
    request = alerts_pb2.SetWebhookRequest(webhook=alerts_pb2.Webhook(name="in", url=url))
    return await rig.alerts.SetWebhook(request, timeout=5)


async def test_addresses_inside_are_not_called(closed: Rig) -> None:
    for url in INSIDE:
        error = await refused(put(closed, url))
        assert isinstance(error, errors.InvalidOption), url
        assert "qq77" not in error.message
    for url in LEAD_INSIDE:
        await put(closed, url)
        trial = alerts_pb2.TestWebhookRequest(name="in")
        error = await refused(closed.alerts.TestWebhook(trial, timeout=10))
        assert isinstance(error, errors.WebhookFailed)
        assert "--webhook-private-networks" in error.message
        request = alerts_pb2.ListWebhooksRequest()
        (listed,) = (await closed.alerts.ListWebhooks(request, timeout=5)).webhooks
        assert listed.error == error.message
    gone = alerts_pb2.DeleteWebhookRequest(name="in")
    await closed.alerts.DeleteWebhook(gone, timeout=5)
    error = await refused(closed.alerts.DeleteWebhook(gone, timeout=5))
    assert isinstance(error, errors.WebhookNotFound)
