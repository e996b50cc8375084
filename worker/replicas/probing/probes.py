"""Asks versions on the device a picture: now and then, and when one that found things finds
nothing any more. One that answers otherwise is loaded again.

A graph has a picture and its answer with its pack, and is held against the import. Of all others
the answer counts that the pack gave here first.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import structlog

from worker.arrays import F32
from worker.backends.base import LoadedModel, run
from worker.packs.manifest import channels_of
from worker.postprocess.outputs import NmsOptions
from worker.replicas.probing.picture_answers import LEAST, difference, kept
from worker.replicas.replica import Replica
from worker.replicas.swapper import Swapper
from yolopool.graphs import pictures
from yolopool.vocabulary import ReplicaState

log = structlog.get_logger()

# The digest of a pack, and its precision.
_Proof = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Upkeep:
    """When replicas on the device are warmed and asked; 0: never. `blind_after`: answers without
    anything, of a version that found something before.
    """

    rewarm_idle_s: float = 0.0
    probe_every_s: float = 0.0
    blind_after: int = 0


class Probes:
    def __init__(self, swapper: Swapper, upkeep: Upkeep, clock: Callable[[], float]) -> None:
        self._swapper = swapper
        self._upkeep = upkeep
        self._clock = clock
        self._answers: dict[_Proof, F32] = {}
        # Packs that were loaded again for another answer, and not asked since.
        self._doubted: set[_Proof] = set()

    async def look(self, replicas: Sequence[Replica]) -> None:
        """Asks the one that is due longest, if one is."""
        due = [replica for replica in replicas if self._is_due(replica)]
        if not due:
            return
        replica = min(due, key=lambda one: one.probed_s)
        proof = (replica.manifest_pack.digest, replica.order.precision)
        answer = await self._swapper.warmup.ask(replica, partial(_answer, replica))
        if answer is None:
            return  # it left the device, or a swap is under way
        replica.sight, replica.probed_s = replica.sight.asked(), self._clock()
        wrong, now = answer
        if now is not None and not wrong:
            before = self._answers.get(proof)
            wrong = difference(before, now, proof[1]) if before is not None else ""
            if wrong and proof in self._doubted:
                log.warning("it answers so after a load too", model=replica.key, why=wrong)
                wrong = ""
            if not wrong:
                self._answers[proof] = now
        self._doubted.discard(proof)
        if wrong:
            self._doubted.add(proof)
            replica.probed_s = 0.0
            await self._swapper.reload(replica, wrong)

    def _is_due(self, replica: Replica) -> bool:
        upkeep = self._upkeep
        if replica.state is not ReplicaState.HOT or not upkeep.probe_every_s:
            return False
        proof = (replica.manifest_pack.digest, replica.order.precision)
        is_old = self._clock() - replica.probed_s >= upkeep.probe_every_s
        is_new = proof not in self._answers or proof in self._doubted
        return is_old or is_new or replica.sight.is_doubtful(upkeep.blind_after)


def _answer(replica: Replica, model: LoadedModel) -> tuple[str, F32 | None]:
    """On the device thread: how the answer differs from that at the import, and what it is."""
    height, width = replica.shape
    picture = pictures.scene(0, height, width, channels_of(replica.manifest_pack.manifest))
    options = NmsOptions((LEAST,) * len(replica.class_names), 0.7, 100, agnostic=False, masks=False)
    try:
        if wrong := model.self_test():
            return wrong, None
        found = run(model, [picture], [options]).candidates[0]
    except Exception as error:  # requests fail alike, and say what it means
        log.warning("no probe", model=replica.key, why=str(error))
        return "", None
    if found.failure is not None:
        return "its answer is not finite", None
    return "", kept(found, height, width)
