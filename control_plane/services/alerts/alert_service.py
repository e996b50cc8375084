"""AlertService: alerts, and what is set for them; the controller looks and tells."""

from collections.abc import Callable

import structlog

from control_plane.alerts.messages import trial_message
from control_plane.caller import CallContext, principal_of
from control_plane.convert.alerts import (
    alert_out,
    alerts_out,
    rule_out,
    silence_in,
    silence_out,
    stage_in,
    threshold_in,
    webhook_in,
    webhook_out,
)
from control_plane.notifying.alert_controller import AlertController
from control_plane.notifying.webhook_call import WebhookCaller
from control_plane.notifying.webhook_sender import LastCall, WebhookSender
from control_plane.store.alerts.alert_verbs import AlertSettings
from control_plane.store.bounds import check_room
from control_plane.types.alerts.alert_setting import (
    MAX_SETTINGS,
    AlertSetting,
    Silence,
    Threshold,
    Webhook,
    settings_of,
)
from control_plane.view.reflector import Refresh
from control_plane.view.view import View
from yolopool.errors import SilenceNotFound, WebhookNotFound
from yolopool.server.clock import Clock
from yolopool.v1 import alerts_pb2, alerts_pb2_grpc

log = structlog.get_logger()


class AlertService(alerts_pb2_grpc.AlertServiceServicer):
    """`draw_id` returns a new random id."""

    def __init__(
        self,
        controller: AlertController,
        sender: WebhookSender,
        caller: WebhookCaller,
        settings: AlertSettings,
        view: View,
        refresh: Refresh,
        clock: Clock,
        draw_id: Callable[[], str],
    ) -> None:
        self._controller = controller
        self._sender = sender
        self._caller = caller
        self._settings = settings
        self._view = view
        self._refresh = refresh
        self._clock = clock
        self._draw_id = draw_id

    async def ListAlerts(
        self, request: alerts_pb2.ListAlertsRequest, context: CallContext
    ) -> alerts_pb2.ListAlertsResponse:
        stage, states = stage_in(request.stage), await self._controller.states()
        asked = [state for state in states if stage in (None, state.stage)]
        set_, now = self._view.desired.alerts, self._clock.unix()
        return alerts_pb2.ListAlertsResponse(
            alerts=alerts_out(asked, self._controller.rules, set_, now)
        )

    async def ListAlertRules(
        self, request: alerts_pb2.ListAlertRulesRequest, context: CallContext
    ) -> alerts_pb2.ListAlertRulesResponse:
        thresholds = settings_of(self._view.desired.alerts, Threshold)
        rules = [rule_out(rule, thresholds) for rule in self._controller.rules.values()]
        return alerts_pb2.ListAlertRulesResponse(rules=rules)

    async def ResolveAlert(
        self, request: alerts_pb2.ResolveAlertRequest, context: CallContext
    ) -> alerts_pb2.ResolveAlertResponse:
        state = await self._controller.resolve(request.id, principal_of(context).name)
        log.info("alert ended by hand", alert=state.key, by=state.by)
        rule, set_ = self._controller.rules[state.rule], self._view.desired.alerts
        return alerts_pb2.ResolveAlertResponse(
            alert=alert_out(state, rule, set_, self._clock.unix())
        )

    async def SilenceAlerts(
        self, request: alerts_pb2.SilenceAlertsRequest, context: CallContext
    ) -> alerts_pb2.SilenceAlertsResponse:
        by, now = principal_of(context).name, self._clock.unix()
        silence = silence_in(request, self._draw_id(), by, now)
        await self._drop_ended(now)
        await self._put(silence)
        log.info("silence set", rule=silence.rule, subject=silence.subject, by=by)
        return alerts_pb2.SilenceAlertsResponse(silence=silence_out(silence))

    async def ListSilences(
        self, request: alerts_pb2.ListSilencesRequest, context: CallContext
    ) -> alerts_pb2.ListSilencesResponse:
        now = self._clock.unix()
        silences = settings_of(self._view.desired.alerts, Silence)
        return alerts_pb2.ListSilencesResponse(
            silences=[silence_out(one) for one in silences if now < one.until_unix_s]
        )

    async def EndSilence(
        self, request: alerts_pb2.EndSilenceRequest, context: CallContext
    ) -> alerts_pb2.EndSilenceResponse:
        if not await self._settings.drop(f"silence/{request.id}"):
            raise SilenceNotFound(
                f"there is no silence {request.id[:40]!r}: list the silences to see their ids"
            )
        await self._changed()
        log.info("silence ended", id=request.id, by=principal_of(context).name)
        return alerts_pb2.EndSilenceResponse()

    async def SetAlertThreshold(
        self, request: alerts_pb2.SetAlertThresholdRequest, context: CallContext
    ) -> alerts_pb2.SetAlertThresholdResponse:
        threshold = threshold_in(request.threshold, self._controller.rules)
        await self._put(threshold)
        log.info("alert threshold set", key=threshold.key, by=principal_of(context).name)
        thresholds = settings_of(self._view.desired.alerts, Threshold)
        rule = self._controller.rules[threshold.rule]
        return alerts_pb2.SetAlertThresholdResponse(rule=rule_out(rule, thresholds))

    async def SetWebhook(
        self, request: alerts_pb2.SetWebhookRequest, context: CallContext
    ) -> alerts_pb2.SetWebhookResponse:
        hook = webhook_in(request.webhook, principal_of(context).name, self._clock.unix())
        self._caller.check(hook.url)
        held = await self._put(hook)
        log.info("webhook set", webhook=hook.name, by=hook.by)
        assert isinstance(held, Webhook), "a webhook was put"
        return alerts_pb2.SetWebhookResponse(webhook=webhook_out(held))

    async def ListWebhooks(
        self, request: alerts_pb2.ListWebhooksRequest, context: CallContext
    ) -> alerts_pb2.ListWebhooksResponse:
        last = self._sender.last
        hooks = [
            webhook_out(hook, called.unix_s, called.error)
            for hook in settings_of(self._view.desired.alerts, Webhook)
            for called in (last.get(hook.name, LastCall()),)
        ]
        return alerts_pb2.ListWebhooksResponse(webhooks=hooks)

    async def DeleteWebhook(
        self, request: alerts_pb2.DeleteWebhookRequest, context: CallContext
    ) -> alerts_pb2.DeleteWebhookResponse:
        if not await self._settings.drop(f"webhook/{request.name}"):
            raise _no_webhook(request.name)
        await self._changed()
        log.info("webhook removed", webhook=request.name, by=principal_of(context).name)
        return alerts_pb2.DeleteWebhookResponse()

    async def TestWebhook(
        self, request: alerts_pb2.TestWebhookRequest, context: CallContext
    ) -> alerts_pb2.TestWebhookResponse:
        hook = self._view.desired.alerts.get(f"webhook/{request.name}")
        if not isinstance(hook, Webhook):
            raise _no_webhook(request.name)
        began = self._clock.monotonic()
        message = trial_message(hook.form, self._view.desired.cluster, self._clock.unix())
        status = await self._sender.trial(hook, message)
        took_ms = (self._clock.monotonic() - began) * 1000
        return alerts_pb2.TestWebhookResponse(status=status, took_ms=took_ms)

    async def _put(self, setting: AlertSetting) -> AlertSetting:
        held = self._view.desired.alerts
        if setting.key not in held:
            check_room(held, MAX_SETTINGS, "settings of alerts")
        kept = await self._settings.put(setting)
        await self._changed()
        return kept

    async def _changed(self) -> None:
        await self._refresh()
        self._controller.wake()

    async def _drop_ended(self, now: float) -> None:
        silences = settings_of(self._view.desired.alerts, Silence)
        ended = [one.key for one in silences if one.until_unix_s <= now]
        if ended:
            await self._settings.drop(*ended)


def _no_webhook(name: str) -> WebhookNotFound:
    return WebhookNotFound(f"there is no webhook {name[:80]!r}: list them to see their names")
