"""What an importer hears from its child, which has read an untrusted file and may be anyone's."""

import asyncio
import json
from pathlib import Path
from random import Random
from typing import Any

from importer import child
from importer.refusal import CRASHED, INVALID, ImportRefused
from tests.fuzz import mutation
from tests.fuzz.target import Target, own_loop

_REASONS = (CRASHED, INVALID)
_LIMITS = child.Limits(2**30, 60)
_WORDS = (
    "progress", "done", "failed", "reason", "message", "fraction", "step", "digest", "settings",
    "class_names", "weights_bytes", "training", "image_size", "ARTIFACT_INVALID",
)  # fmt: skip


class ChildLines:
    def __init__(self, folder: Path) -> None:
        self.loop = own_loop()

    def run(self, data: bytes) -> str:
        return self.loop.run_until_complete(self._listen(data))

    async def _listen(self, data: bytes) -> str:
        lines = asyncio.StreamReader(limit=4096)
        lines.feed_data(data)
        lines.feed_eof()
        watch: asyncio.Task[bool] = asyncio.create_task(asyncio.sleep(0, False))
        await watch
        try:
            ending = await child._listen(lines, _ignore)
            pack = child._result(ending, 0, watch, "", _LIMITS)
        except ImportRefused as refusal:
            # A child may say any reason.
            return refusal.reason if refusal.reason in _REASONS else "a reason of its own"
        pack.SerializeToString()
        return "a pack"

    def close(self) -> None:
        """Nothing is open."""


async def _ignore(progress: Any) -> None:
    progress.SerializeToString()


def _seeds() -> list[bytes]:
    progress = {"progress": {"fraction": 0.5, "step": "fuse"}}
    settings = {"image_size": 320, "confidence": 0.25, "shape_policy": "SHAPE_POLICY_RECT"}
    done = {
        "done": {
            "digest": "0" * 64, "architecture": "yolo", "task": "detect", "class_names": ["a"],
            "settings": settings, "weights_bytes": "100", "gflops": 6.5, "warnings": [],
            "training": {"epochs": "3"},
        }
    }  # fmt: skip
    failed = {"failed": {"reason": "ARTIFACT_INVALID", "message": "it is damaged"}}
    said: tuple[list[dict[str, Any]], ...] = ([progress, done], [progress, progress, failed], [])
    return [b"".join(json.dumps(line).encode() + b"\n" for line in lines) for lines in said]


def _changed(data: bytes, rng: Random, seeds: object) -> bytes:
    lines = data.split(b"\n")
    at = rng.randrange(len(lines))
    lines[at] = mutation.of_json(lines[at], rng, _WORDS)
    return b"\n".join(lines)


TARGETS = {
    "child-lines": Target(
        name="child-lines",
        about="what an importer hears from its child",
        open=ChildLines,
        seeds=_seeds,
        share=40,
        mutate=_changed,
        words=tuple(word.encode() for word in _WORDS),
        max_bytes=32 * 1024,
    )
}
