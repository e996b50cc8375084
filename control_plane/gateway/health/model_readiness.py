"""Whether a model is ready: a Detect that came now would be answered without waiting for a load."""

from random import Random

from control_plane.routing.balancer import Reject, Send, choose
from control_plane.types.rollout.family import Family
from control_plane.types.version import ModelVersion
from control_plane.view.view import View
from yolopool.error_table import rebuild_reason
from yolopool.errors import ModelNotLoaded, NotFound, YolopoolError
from yolopool.names import ModelRef, parse_ref
from yolopool.server.clock import Clock

# Why a Detect would wait whose model can be loaded.
_NOTHING_BLOCKS = "DEADLINE_EXCEEDED"


class ModelReadiness:
    def __init__(self, view: View, clock: Clock, rng: Random) -> None:
        self._view = view
        self._clock = clock
        self._rng = rng

    def why_not(self, ref: ModelRef) -> YolopoolError | None:
        """None: it is ready; an alias is if all its targets are, a family if one of its sizes is,
        or the member whose time it is. Raises ModelNotFound, VersionNotFound, AliasNotFound;
        ModelNotReady and ModelImportFailed are returned like other reasons.
        """
        alias = self._view.catalogue.family(ref)
        if alias is not None and alias.family is not None:
            return self._of_family(alias.family)
        return next(filter(None, map(self._why_not, self._view.catalogue.meant(ref))), None)

    def _of_family(self, family: Family) -> YolopoolError | None:
        models = family.models
        if not family.is_by_size:
            models = (models[family.part(self._clock.unix()).number],)
        reasons: list[YolopoolError | None] = []
        for model in models:
            try:
                reasons.append(self.why_not(parse_ref(model)))
            except NotFound as error:  # a member that was deleted: others may answer
                reasons.append(error)
        return None if None in reasons else reasons[0]

    def _why_not(self, version: ModelVersion) -> YolopoolError | None:
        key = version.key
        try:
            self._view.catalogue.ready(ModelRef(key.model, key.number))
        except YolopoolError as error:
            return error
        route = choose(self._view, key, self._clock.monotonic(), self._rng)
        if isinstance(route, Send):
            return None
        if isinstance(route, Reject):
            return route.error
        if route.reason != _NOTHING_BLOCKS:
            return rebuild_reason(route.reason, route.why, retry_after_s=1.0)
        if key in self._view.desired.wants:
            return ModelNotLoaded(f"{key} is being loaded", retry_after_s=1.0)
        return ModelNotLoaded(f"{key} is on no device: load it, or call it, which loads it")
