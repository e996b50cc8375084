"""`EvidenceTexts` in Redis: a hash for each topic, which expires."""

from collections.abc import Mapping

from control_plane.store.redis.redis_keys import EVIDENCE
from control_plane.store.redis.redis_store import RedisStore
from control_plane.store.rollouts.evidence_texts import KEPT_S


class RedisEvidence:
    def __init__(self, store: RedisStore) -> None:
        self._store = store

    async def tell(self, topic: str, plane: str, text: str) -> None:
        async with self._store.available():
            pipe = self._store.redis.pipeline(transaction=False)
            pipe.hset(EVIDENCE + topic, plane, text)
            pipe.expire(EVIDENCE + topic, int(KEPT_S))
            await pipe.execute()

    async def told(self, topic: str) -> Mapping[str, str]:
        async with self._store.available():
            found: Mapping[str, str] = await self._store.redis.hgetall(EVIDENCE + topic)
        return found

    async def forget(self, topic: str) -> None:
        async with self._store.available():
            await self._store.redis.delete(EVIDENCE + topic)
