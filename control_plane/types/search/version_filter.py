"""Which versions a caller asks to see. Pure and frozen."""

from dataclasses import dataclass

from control_plane.types.version import ModelVersion
from yolopool.labels import Selector, selects


@dataclass(frozen=True, slots=True)
class VersionFilter:
    """What is empty asks for nothing. `artifact`: the beginning of a SHA-256, of the file or of
    its pack; `dataset`: the data of the training, or the last part of its path.
    """

    labels: Selector = ()
    task: str = ""
    class_names: tuple[str, ...] = ()
    artifact: str = ""
    dataset: str = ""

    def takes(self, version: ModelVersion) -> bool:
        """Whether a version is asked for. One that is not imported has no task, classes or data."""
        if not selects(self.labels, version.given.labels):
            return False
        pack = version.pack
        digests = (version.artifact, pack.digest if pack is not None else "")
        if not any(digest.startswith(self.artifact) for digest in digests):
            return False
        if pack is None:
            return not (self.task or self.class_names or self.dataset)
        if self.task not in ("", pack.task) or not set(self.class_names) <= {*pack.class_names}:
            return False
        data = pack.training.get("data", "")
        return self.dataset in ("", data, data.replace("\\", "/").rpartition("/")[2])
