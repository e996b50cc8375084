"""The load of one graph in steps, of which the long ones run beside the passes of other models.

A runtime optimises a graph when it makes a session, for up to several seconds, and some prepare
more in the first pass. Only the memory is measured on the device thread, where no pass is in
flight.
"""

from collections.abc import Callable
from functools import partial
from typing import Protocol

import numpy as np

from worker.arrays import U8
from worker.backends.onnx.beside import beside_passes
from worker.backends.onnx.model import OnnxModel, Outputs, Session, cause_of
from worker.packs.manifest import channels_of
from worker.packs.pack import Pack
from worker.postprocess.outputs import NmsOptions
from yolopool.errors import LoadFailed, OutOfMemory, YolopoolError


class Runtime(Protocol):
    """Runs ONNX graphs."""

    @property
    def name(self) -> str:
        """The backend that its packs name."""
        ...

    @property
    def prepares_in_passes(self) -> bool:
        """Whether the first pass of a size takes longer, and leaves memory in use."""
        ...

    def open(self) -> None:
        """Makes the library ready. Raises LoadFailed. Called again, it does nothing."""
        ...

    def used_bytes(self) -> int:
        """Bytes in use on the device now."""
        ...

    def load(self, pack: Pack) -> Session:
        """Prepares a graph in memory of its own, on any thread, beside passes: what computes for
        long yields to them. Raises LoadFailed, OutOfMemory, and errors of the library.
        """
        ...


class GraphLoad:
    """A `Loading`. `made` is called with the model."""

    def __init__(self, runtime: Runtime, pack: Pack, made: Callable[[OnnxModel], None]) -> None:
        self._runtime = runtime
        self._pack = pack
        self._made = made
        self._before_bytes = 0
        self._session: Session | None = None

    def prepare(self) -> None:
        self._runtime.open()

    def begin(self) -> None:
        self._before_bytes = self._runtime.used_bytes()

    def make(self) -> None:
        message = ""
        try:
            self._session = self._runtime.load(self._pack)
            return
        except YolopoolError:
            raise
        except Exception as error:  # each runtime has error types of its own
            message = cause_of(error)
            if not isinstance(error, MemoryError) and "alloc" not in message:
                raise LoadFailed(
                    f"{self._runtime.name} does not take this graph ({message}): build the "
                    "version for another backend"
                ) from error
        # Outside the handler, whose traceback held what was made so far.
        raise OutOfMemory(f"{self._pack.manifest.weights_bytes} bytes do not fit: {message}")

    def try_out(self, shape: tuple[int, int], ask: bool) -> str:
        assert self._session is not None, "the session was made"
        model = OnnxModel(self._pack, _Beside(self._session), 0)
        if self._runtime.prepares_in_passes:
            image = np.zeros((*shape, channels_of(model.manifest)), np.uint8)
            anything = NmsOptions((1.0,) * len(model.manifest.class_names), 1.0, 0, agnostic=False)
            model.stage([image], [anything]).forward()
        return model.self_test() if ask else ""

    def drop(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.close()

    def leave_out(self, size_bytes: int) -> None:
        self._before_bytes += size_bytes

    def end(self) -> OnnxModel:
        assert self._session is not None, "the session was made"
        held_bytes = max(1, self._runtime.used_bytes() - self._before_bytes)
        model = OnnxModel(self._pack, self._session, held_bytes)
        self._made(model)
        return model


class _Beside:
    """A session whose passes run beside others. Its own threads keep the priority of the worker,
    since nobody could give it back to them, and wait for this one at each layer.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    def run(self, images: U8) -> Outputs:
        return beside_passes(partial(self._session.run, images))

    def close(self) -> None:
        self._session.close()
