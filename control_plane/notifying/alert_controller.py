"""The loop of alerts: every control plane tells its series; the one that leads looks at all rules,
keeps what it found in the store, and has receivers told.

Level-triggered: alerts and what was told of them are in the store, so the next leader goes on.
While the store is away, or nobody leads, one control plane holds on in memory: that is an alert.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import structlog

from control_plane.alerts.evaluation import deliveries, evaluate, is_same, strangers
from control_plane.alerts.expressions import Moment
from control_plane.alerts.fellow_planes import UP, FellowPlanes, told_text
from control_plane.alerts.history import History, Readings
from control_plane.alerts.messages import message_of
from control_plane.alerts.rule import AlertRule
from control_plane.events.recorder import EventRecorder
from control_plane.notifying.webhook_sender import Sending, WebhookSender
from control_plane.store.alerts.alert_codec import decode_state, encode_state
from control_plane.store.alerts.alert_records import AlertRecords
from control_plane.types.alerts.alert_state import AlertState, Stage, Told
from control_plane.types.event import EventKind
from control_plane.types.lease import FencingToken
from control_plane.view.view import View
from yolopool.errors import AlertNotFound, RegistryUnavailable, StaleToken
from yolopool.server.clock import Clock

log = structlog.get_logger()

EVERY_S = 5.0
# So many looks of a process until what is not there is gone, and not only unknown yet.
ABSENT = 3
_SHORTEST_S = 0.05


@dataclass(frozen=True, slots=True)
class Leading:
    """What the loop asks of the election. `leads`; `token`: under which this control plane may act,
    None also while it still gathers workers. `place`: host:port at which it answers others.
    """

    leads: Callable[[], bool]
    token: Callable[[], FencingToken | None]
    place: Callable[[], str]


class AlertController:
    """`look` returns the present series of this control plane. `name` is its own."""

    def __init__(
        self,
        name: str,
        records: AlertRecords,
        view: View,
        look: Callable[[], Readings],
        leading: Leading,
        recorder: EventRecorder,
        clock: Clock,
        rules: Sequence[AlertRule],
        every_s: float = EVERY_S,
    ) -> None:
        self._name = name
        self._records = records
        self._view = view
        self._look = look
        self._leading = leading
        self._recorder = recorder
        self._clock = clock
        self.rules = {rule.name: rule for rule in rules}
        self._every_s = every_s
        self._history = History()
        self._fellows = FellowPlanes(name, every_s)
        self._states: dict[str, AlertState] = {}
        # Keys of those of which the store does not know the last.
        self._unwritten: set[str] = set()
        self._count = 0
        self._store_is_away = False
        # Whether this one evaluates and tells; and whether it did at the look before.
        self._may_tell = self._had_charge = False
        self._gone: list[str] = []
        self._wake = asyncio.Event()
        self.sender: WebhookSender | None = None

    def wake(self) -> None:
        """Something changed: looks again at once at what is due."""
        self._wake.set()

    async def run(self) -> None:
        """Runs until cancelled."""
        looked_s = float("-inf")
        while True:
            now = self._clock.monotonic()
            try:
                if now - looked_s >= self._every_s and self._view.is_loaded:
                    looked_s = now
                    await self.once()
                else:
                    await self.tell()
            except Exception:
                log.exception("a look at the alerts failed: this is a bug")
            left_s = looked_s + self._every_s - self._clock.monotonic()
            if self.sender is not None:
                left_s = min(left_s, self.sender.next_s())
            self._wake.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(max(_SHORTEST_S, min(left_s, self._every_s))):
                    await self._wake.wait()

    async def once(self) -> None:
        """One look at everything."""
        await self._gather()
        if not await self._is_in_charge():
            return
        self._apply(strangers(self.rules, self._states))
        for rule in self.rules.values():
            if rule.built_in:
                self._evaluate(rule)
                await asyncio.sleep(0)  # with many models it takes milliseconds: others go first
        if await self._write():
            await self.tell()

    def _evaluate(self, rule: AlertRule) -> None:
        at = Moment(self._clock.monotonic(), self._clock.unix())
        settings, absent_s = self._view.desired.alerts, ABSENT * self._every_s
        changes = evaluate(rule, self._history, self._states, settings, at, absent_s)
        before = {key: self._states.get(key) for key in changes}
        self._apply(changes)
        for key, after in changes.items():
            self._record(before[key], after)

    async def tell(self) -> None:
        """Notes which calls ended, and begins those that are due."""
        if self.sender is None or not self._may_tell:
            return
        ended = self.sender.take_ended()
        told: dict[str, AlertState | None] = {}
        for sending, is_taken in ended:
            state = self._states.get(sending.state.key)
            if state is None or state.id != sending.state.id:
                continue
            known = state.told.get(sending.hook.name)
            word = sending.told if is_taken else known or Told.TRIED
            told[state.key] = self._states[state.key] = state.notified(sending.hook.name, word)
        if told:
            now = self._clock.unix()
            self._apply({k: replace(s, changed_unix_s=now) for k, s in told.items() if s})
            if not await self._write():
                return
        self.sender.offer(self._due())

    async def states(self) -> tuple[AlertState, ...]:
        """All alerts, from the store, or where it is away as they are known here."""
        if self._may_tell:
            return tuple(self._states.values())
        try:
            return tuple(_decoded(await self._records.states()).values())
        except RegistryUnavailable:
            return tuple(self._states.values())

    async def resolve(self, id_: str, by: str) -> AlertState:
        """Ends an alert by hand. Raises AlertNotFound, RegistryUnavailable."""
        if not self._may_tell:
            raise _nobody_leads()
        for key, state in self._states.items():
            if state.id == id_ and state.stage is not Stage.PENDING:
                if state.stage is Stage.RESOLVED:
                    return state
                now = self._clock.unix()
                ended = replace(state.resolved(now, by), changed_unix_s=now)
                self._apply({key: ended})
                self._record(state, ended)
                if not await self._write():
                    raise _nobody_leads()
                self.wake()
                return ended
        raise AlertNotFound(f"no alert {id_[:40]!r} fires: list the alerts to see their ids")

    async def close(self) -> None:
        """Gives up calls under way, and says goodbye, so that nobody takes it for down."""
        if self.sender is not None:
            await self.sender.close()
        await self._records.tell(self._name, "")

    # --- what is known ------------------------------------------------------------------------

    async def _gather(self) -> None:
        now = self._clock.monotonic()
        own = self._look()
        self._history.add(self._name, now, {**own, UP: 1.0})
        self._count += 1
        text = told_text(self._leading.place(), self._count, own)
        try:
            told = await self._records.tell(self._name, text, self._gone)
        except RegistryUnavailable:
            self._store_is_away = True
            return
        self._store_is_away = False
        self._gone = self._fellows.hear(told, self._history, self._clock.monotonic())

    async def _is_in_charge(self) -> bool:
        """Whether this one evaluates: the leader; without one who led last, or is first."""
        token, led = self._leading.token(), self._may_tell
        if self._store_is_away:
            self._may_tell = led or token is not None
        elif token is not None:
            self._may_tell = True
            await self._take_over()
        else:
            nobody = not self._fellows.someone_leads(self._history)
            first = nobody and self._fellows.is_first(self._clock.monotonic())
            if led and not first:
                await self._hand_over()
            self._may_tell = first
            if first:
                await self._take_over()
        return self._may_tell

    async def _take_over(self) -> None:
        """Reads what the store has, which may be newer: another led, or held on, meanwhile."""
        try:
            found = _decoded(await self._records.states())
        except RegistryUnavailable:
            self._store_is_away = True
            return
        if not self._had_charge:
            unwritten = {k: s for k, s in self._states.items() if k in self._unwritten}
            self._states = {
                **found,
                **{k: s for k, s in unwritten.items() if _newer(s, found.get(k))},
            }
            self._had_charge = True
            return
        for key, state in found.items():
            if key not in self._unwritten and _newer(state, self._states.get(key)):
                self._states[key] = state
        self._unwritten |= self._states.keys() - found.keys()

    async def _hand_over(self) -> None:
        """Another leads now: it is given what only this one knows."""
        known = {k: encode_state(self._states[k]) for k in self._unwritten if k in self._states}
        with suppress(RegistryUnavailable):
            await self._records.put_states(known, None)
            self._unwritten.clear()
        self._had_charge = False
        self._states = {}

    # --- what changes -------------------------------------------------------------------------

    def _apply(self, changes: Mapping[str, AlertState | None]) -> None:
        for key, state in changes.items():
            if state is None or not is_same(state, self._states.get(key)):
                self._unwritten.add(key)
            if state is None:
                self._states.pop(key, None)
            else:
                self._states[key] = state

    async def _write(self) -> bool:
        """Writes what the store does not have. Where it is away that stays to be written. False:
        another control plane leads.
        """
        if not self._unwritten:
            return True
        texts = {k: encode_state(self._states[k]) if k in self._states else None
                 for k in self._unwritten}  # fmt: skip
        try:
            await self._records.put_states(texts, self._leading.token())
        except RegistryUnavailable:
            self._store_is_away = True
        except StaleToken:
            log.info("another control plane leads: it goes on with the alerts")
            self._may_tell = self._had_charge = False
            return False
        else:
            self._unwritten -= texts.keys()
        return True

    def _record(self, before: AlertState | None, after: AlertState | None) -> None:
        stage = after.stage if after is not None else None
        if after is None or stage is (before.stage if before is not None else None):
            return
        kinds = {Stage.FIRING: EventKind.ALERT_FIRING, Stage.RESOLVED: EventKind.ALERT_RESOLVED}
        rule = self.rules.get(after.rule)
        if stage in kinds and rule is not None:
            by = f" (ended by {after.by})" if after.by else ""
            told = f"{rule.name}: {rule.told(after.subject, after.threshold)}{by}"
            worker = after.subject if rule.about == "worker" else ""
            self._recorder.record(
                kinds[stage], worker=worker, reason=rule.severity.upper(), message=told
            )
            log.warning(
                "alert", rule=rule.name, subject=after.subject, stage=stage, value=after.value
            )

    def _due(self) -> list[Sending]:
        now, pool = self._clock.unix(), self._view.desired.cluster
        found = deliveries(self.rules, self._states, self._view.desired.alerts, now)
        return [
            Sending(
                state, hook, told, message_of(state, self.rules[state.rule], told, hook.form, pool)
            )
            for state, hook, told in sorted(found, key=lambda one: one[0].since_unix_s)
        ]


def _nobody_leads() -> RegistryUnavailable:
    return RegistryUnavailable("no control plane leads now: try again", retry_after_s=1.0)


def _decoded(texts: Mapping[str, str]) -> dict[str, AlertState]:
    found = {}
    for key, text in texts.items():
        try:
            found[key] = decode_state(text)
        except (ValueError, KeyError, TypeError):
            log.warning("an alert can't be read: a newer release wrote it", key=key)
    return found


def _newer(state: AlertState, than: AlertState | None) -> bool:
    return than is None or state.changed_unix_s > than.changed_unix_s
