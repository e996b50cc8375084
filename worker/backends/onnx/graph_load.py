"""The load of one graph in steps, of which the long ones run beside the passes of other models.

A runtime optimises a graph when it makes a session, for up to several seconds. Only the memory is
measured on the device thread, where no pass is in flight.
"""

from collections.abc import Callable
from typing import Protocol

from worker.backends.onnx.model import OnnxModel, Session, cause_of
from worker.packs.pack import Pack
from yolopool.errors import LoadFailed, OutOfMemory, YolopoolError


class Runtime(Protocol):
    """Runs ONNX graphs."""

    @property
    def name(self) -> str:
        """The backend that its packs name."""
        ...

    def open(self) -> None:
        """Makes the library ready. Raises LoadFailed. Called again, it does nothing."""
        ...

    def used_bytes(self) -> int:
        """Bytes in use on the device now."""
        ...

    def load(self, pack: Pack) -> Session:
        """Prepares a graph in memory of its own. The thread ends with this call: it may lower its
        priority. Raises LoadFailed, and errors of the library.
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

    def end(self) -> OnnxModel:
        assert self._session is not None, "the session was made"
        held_bytes = max(1, self._runtime.used_bytes() - self._before_bytes)
        model = OnnxModel(self._pack, self._session, held_bytes)
        self._made(model)
        return model
