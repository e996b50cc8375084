"""Chooses the member of a family that answers a request, and learns from its answer.

What it knows of a family is of this process: each control plane has its own requests in flight.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from random import Random

from control_plane.identity.access import ALL
from control_plane.identity.gate import no_model
from control_plane.routing.balancer import UNMEASURED_MS, candidates_of, finish_ms, unreported
from control_plane.routing.families.sizes import Standing, choose_size, class_of, stepped_down
from control_plane.types.access.api_key import is_granted
from control_plane.types.moments.day_parts import Part
from control_plane.types.rollout.alias import Alias, AliasKey
from control_plane.types.version import ModelVersion, VersionKey
from control_plane.types.worker import LOADED, Replica, WorkerInfo
from control_plane.view.catalogue import NotUsable
from control_plane.view.view import View
from yolopool.errors import AliasNotFound
from yolopool.names import ModelRef, parse_ref
from yolopool.server.clock import Clock
from yolopool.v1 import detection_pb2

# A newer answer counts so much for what a request takes beside its wait and its pass.
_NEWEST = 0.1
# Until the first answer.
_BESIDE_S = 0.005
_LEAST_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class Choice:
    """The member that a request is sent to. `ref`: as the family names it. `left_s`: the time that
    it was chosen for. `ahead`: what was known of its queue.
    """

    family: AliasKey
    number: int
    ref: ModelRef
    began_s: float
    left_s: float
    ahead: "_Ahead | None" = None


@dataclass(frozen=True, slots=True)
class _Ahead:
    """Of a request at a worker: its pass and the queue that was reported, and what calls that are
    on their way would take one by one.
    """

    base_ms: float
    calls_ms: float


@dataclass(slots=True)
class _Known:
    """A family at one revision of desired state. `keys`: what each member means; None: nothing that
    can answer.
    """

    revision: int
    alias: Alias
    refs: tuple[ModelRef, ...]
    keys: tuple[VersionKey | None, ...]
    part: Part | None = None
    standings: dict[int, Standing] = field(default_factory=dict)
    beside_s: float = _BESIDE_S
    # How much of its own time a call on its way adds: calls of one size share passes.
    share: float = 1.0


@dataclass(frozen=True, slots=True)
class Looked:
    """A member now: `answer_s` is its estimate, None where it is not loaded."""

    means: ModelVersion | NotUsable
    loaded: int
    answer_s: float | None
    is_first: bool


class FamilyChooser:
    def __init__(self, view: View, clock: Clock, rng: Random) -> None:
        self._view = view
        self._clock = clock
        self._rng = rng
        self._families: dict[AliasKey, _Known] = {}

    def choose(self, alias: Alias, deadline_s: float, grants: tuple[str, ...] = ALL) -> Choice:
        """deadline_s: monotonic. `grants`: of the caller. Raises why no member can answer."""
        if grants != ALL:
            self._check_granted(alias, grants)
        known, now = self._known(alias), self._clock.monotonic()
        family = alias.family
        assert family is not None, "it is a family"
        if not any(known.keys):
            self._view.catalogue.find(ModelRef(alias.model, alias=alias.name))  # says why
            raise AliasNotFound(f"no member of {alias.key} can answer: look at it, and set it anew")
        left_s = deadline_s - now
        if family.is_by_size:
            left_s = min(left_s, family.within_s or left_s)
            number = self._size(known, left_s, now)
        else:
            number = self._part(known)
            inner = self._view.catalogue.family(known.refs[number])
            if inner is not None:
                return self.choose(inner, deadline_s)
        ahead = self._ahead(known, number, now)
        return Choice(alias.key, number, known.refs[number], now, left_s, ahead)

    def look(self, alias: Alias) -> tuple[list[Looked], float]:
        """What there is of each member, in order; and when the next one takes over, in Unix seconds
        (0: the size decides).
        """
        known, now = self._known(alias), self._clock.monotonic()
        assert alias.family is not None, "it is a family"
        by_size = alias.family.is_by_size
        part = None if by_size else alias.family.part(self._clock.unix())
        loaded = [self._loaded(key, now) for key in known.keys]
        largest = max((n for n, count in enumerate(loaded) if count), default=-1)
        first = largest if part is None else part.number
        looked = [
            Looked(means, loaded[n], self._finish_s(known, n, now), n == first)
            for n, means in enumerate(self._view.catalogue.members(alias))
        ]
        return looked, part.until_unix_s if part is not None else 0.0

    def _loaded(self, key: VersionKey | None, now: float) -> int:
        replicas = self._view.replicas(key) if key is not None else ()
        return sum(worker.is_live(now) and one.state in LOADED for worker, one in replicas)

    def smaller(self, choice: Choice) -> Choice | None:
        """The next smaller size that is loaded, after a worker had no time or no place for the one
        that was chosen; None: there is none.
        """
        known, now = self._families.get(choice.family), self._clock.monotonic()
        if known is None or known.alias.family is None or not known.alias.family.is_by_size:
            return None
        of = class_of(choice.left_s)
        if of in known.standings:
            known.standings[of] = stepped_down(known.standings[of], choice.number, now)
        for number in reversed(range(min(choice.number, len(known.keys)))):
            if self._finish_s(known, number, now) is not None:
                return replace(choice, number=number, ref=known.refs[number], ahead=None)
        return None

    def answered(
        self, choice: Choice, answer: detection_pb2.DetectResponse, load_wait_s: float
    ) -> None:
        """Learns what a request takes beside a load, the queue and its pass, and what calls on
        their way add to the queue.
        """
        known, timing = self._families.get(choice.family), answer.timing
        if known is None:
            return
        waited_ms = timing.queue_ms + timing.inference_ms
        beside_s = self._clock.monotonic() - choice.began_s - load_wait_s - waited_ms / 1000
        known.beside_s += _NEWEST * (max(0.0, beside_s) - known.beside_s)
        ahead = choice.ahead
        # Of few calls a moment more or less in the queue would say all.
        if ahead is not None and ahead.calls_ms >= timing.inference_ms:
            seen = (waited_ms - ahead.base_ms) / ahead.calls_ms
            known.share += _NEWEST * (min(max(seen, _LEAST_SHARE), 1.0) - known.share)

    def _check_granted(self, alias: Alias, grants: tuple[str, ...]) -> None:
        """The doors have asked for it; a stream goes on while members are set anew."""
        names = self._view.catalogue.behind(str(alias.key))
        if not all(is_granted(grants, name) for name in names):
            raise no_model(alias.model)

    def _known(self, alias: Alias) -> _Known:
        known, revision = self._families.get(alias.key), self._view.desired.revision
        if known is not None and known.alias is alias and known.revision == revision:
            return known
        assert alias.family is not None, "it is a family"
        found = self._view.catalogue.members(alias)
        keys = tuple(one.key if isinstance(one, ModelVersion) else None for one in found)
        refs = tuple(map(parse_ref, alias.family.models))
        new = _Known(revision, alias, refs, keys)
        if known is not None and known.alias.family == alias.family:
            new.standings, new.beside_s = known.standings, known.beside_s
            new.share = known.share
        self._families[alias.key] = new
        self._forget_gone()
        return new

    def _forget_gone(self) -> None:
        aliases = self._view.desired.aliases
        for key in [key for key in self._families if key not in aliases]:
            del self._families[key]

    # --- by size ------------------------------------------------------------------------------

    def _size(self, known: _Known, left_s: float, now: float) -> int:
        of = class_of(left_s)
        standing = choose_size(
            known.standings.get(of),
            len(known.keys),
            lambda number: self._finish_s(known, number, now),
            left_s,
            now,
        )
        known.standings[of] = standing
        if known.keys[standing.size] is None:  # nothing is loaded
            return next(number for number, key in enumerate(known.keys) if key is not None)
        return standing.size

    def _finish_s(self, known: _Known, number: int, now: float) -> float | None:
        """When a request would be answered by the best worker for a member."""
        ahead = self._ahead(known, number, now)
        if ahead is None:
            return None
        return (ahead.base_ms + known.share * ahead.calls_ms) / 1000 + known.beside_s

    def _ahead(self, known: _Known, number: int, now: float) -> _Ahead | None:
        """What is ahead of a request at the best worker for a member; None: none has it."""
        key = known.keys[number]
        found = candidates_of(self._view, key, now, self._rng) if key is not None else ()
        all_ahead = (
            _Ahead(
                finish_ms(self._view, worker, replica, 0.0),
                unreported(self._view, worker) * self._call_ms(worker, replica, known.keys),
            )
            for worker, replica in found
        )
        return min(
            all_ahead, key=lambda one: one.base_ms + known.share * one.calls_ms, default=None
        )

    def _call_ms(
        self, worker: WorkerInfo, asked: Replica, keys: Sequence[VersionKey | None]
    ) -> float:
        """What a call of this process that runs at a worker takes, if those of a family are like
        the others. The sizes differ too much to take each for the one asked.
        """
        calls, total_ms = 0, 0.0
        for key in keys:
            tickets = self._view.tickets.get((worker.id, key)) if key is not None else None
            if key is not None and tickets is not None and tickets.outstanding:
                replica = worker.replicas.get(key)
                run_ms = replica.inference_ms if replica is not None else 0.0
                total_ms += tickets.outstanding * (run_ms or UNMEASURED_MS)
                calls += tickets.outstanding
        return total_ms / calls if calls else asked.inference_ms or UNMEASURED_MS

    # --- by the time of day ---------------------------------------------------------------------

    def _part(self, known: _Known) -> int:
        """The member whose time it is; while that can't answer, the first that can."""
        unix_s, family = self._clock.unix(), known.alias.family
        assert family is not None, "it is a family"
        if known.part is None or unix_s >= known.part.until_unix_s:
            known.part = family.part(unix_s)
        if known.keys[known.part.number] is not None:
            return known.part.number
        return next(number for number, key in enumerate(known.keys) if key is not None)
