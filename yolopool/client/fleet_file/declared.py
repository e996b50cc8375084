"""What a fleet file says, as frozen records: the one source of its reader (`text/reading`) and of
its JSON schema. A field is a key; its default is what is meant where the key is left out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from functools import cache
from typing import Any, get_args

from yolopool.client.requests import (
    HeadModeName,
    OutputLayoutName,
    PriorityName,
    ResidencyModeName,
    ShapePolicyName,
)
from yolopool.vocabulary import MAX_DETECTIONS, PRECISIONS, VARIANTS

FORMAT = 1
NEWEST = "newest"
_SIDE, _REPLICAS, _COUNT, _WEEK_S = 4096, 1000, 2**32 - 1, 7 * 86_400
_STORE_BYTES = 10**15
_BACKENDS = tuple(dict.fromkeys(name for made in PRECISIONS.values() for name in made))
_PRECISIONS = tuple(
    dict.fromkeys(word for made in PRECISIONS.values() for words in made.values() for word in words)
)


def key(
    doc: str,
    default: Any = MISSING,
    *,
    of: type[Any] | None = None,
    choices: Sequence[str] = (),
    least: float | None = None,
    most: float | None = None,
    loose: bool = False,
) -> Any:
    """A key. `of`: the factory of its default; `choices`, `least`, `most`: which values it takes;
    `loose`: words that YAML may take for numbers, such as a label's value 7.
    """
    about = {"doc": doc, "choices": choices, "least": least, "most": most, "loose": loose}
    if of is not None:
        return field(default_factory=of, metadata=about)
    return field(default=default, metadata=about)


def places() -> Any:
    """The lines where a record ("") and its keys are written, from 1 on; no key itself."""
    return field(default_factory=dict, compare=False, repr=False, metadata={"hidden": True})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a version is registered with. What is left out, the import takes from the file."""

    image_size: int = key(
        "Longest side of an image in pixels; 0: that of the training.", 0, least=0, most=_SIDE
    )
    image_height: int = key("With image_width: a rectangle instead.", 0, least=0, most=_SIDE)
    image_width: int = key("With image_height: a rectangle instead.", 0, least=0, most=_SIDE)
    image_sizes: tuple[int, ...] = key(
        "Other sizes that a request may ask for.", (), least=1, most=_SIDE
    )
    confidence: float | None = key("Least confidence, 0 to 1.", None, least=0, most=1)
    iou: float | None = key("Overlap above which NMS drops a box, 0 to 1.", None, least=0, most=1)
    max_detections: int | None = key(
        "Most objects in an answer.", None, least=1, most=MAX_DETECTIONS
    )
    shape_policy: str | None = key(
        "Shape that images are scaled to.", None, choices=get_args(ShapePolicyName)
    )
    head_mode: str | None = key("Head to use.", None, choices=get_args(HeadModeName))
    output_layout: str | None = key(
        "Of an ONNX file that does not say it.", None, choices=get_args(OutputLayoutName)
    )
    at: Mapping[str, int] = places()


@dataclass(frozen=True, slots=True, kw_only=True)
class Residency:
    """How long a version stays loaded."""

    mode: str = key("How long it stays loaded.", "normal", choices=get_args(ResidencyModeName))
    idle_release_s: float = key(
        "With on-demand: unload after so many idle seconds.", 60.0, least=0, most=_WEEK_S
    )
    cpu_fallback: bool = key("Serve it on a CPU if every accelerator failed to load it.", False)
    at: Mapping[str, int] = places()


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """On which workers a version may run."""

    pool: str = key("Only workers of this pool.", "", loose=True)
    labels: Mapping[str, str] = key("Only workers with all these labels.", of=dict, loose=True)
    max_replicas: int = key(
        "Most replicas that autoscaling may add; 0: no limit.", 0, least=0, most=_REPLICAS
    )
    priority: str = key("Whose load comes first.", "normal", choices=get_args(PriorityName))
    at: Mapping[str, int] = places()


@dataclass(frozen=True, slots=True, kw_only=True)
class Batching:
    """How images share a pass on one kind of device."""

    max_batch: int = key(
        "Most images in a pass; 0: as the worker was started.", 0, least=0, most=256
    )
    preferred_sizes: tuple[int, ...] = key("Preferred batch sizes.", (), least=1, most=256)
    max_delay_ms: float = key("Longest wait for a batch to fill.", 0.0, least=0, most=60_000)
    queue_capacity: int = key(
        "Most requests queued at a worker; 0: its own.", 0, least=0, most=100_000
    )
    fixed: bool = key("Run exactly max_batch images, padded with grey ones.", False)
    p99_goal_ms: float = key(
        "What 99 of 100 requests shall take at a worker; 0: no goal.", 0.0, least=0, most=60_000
    )
    at: Mapping[str, int] = places()


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What is loaded before its first request."""

    replicas: int = key("Number of workers to load it on.", 1, least=1, most=_REPLICAS)
    pin: bool = key("Never evict it for another model.", False)
    at: Mapping[str, int] = places()


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """What a comparison of a build with the exact one found, as an export writes it."""

    compute_class: str = key("Of the devices it ran on.")
    exact: str = key("backend/precision of the exact one.", "")
    images: int = key("How many were compared.", 0, least=0, most=_COUNT)
    objects: int = key("Objects of the exact one.", 0, least=0, most=_COUNT)
    matched: int = key("Those that the build found again.", 0, least=0, most=_COUNT)
    extra: int = key("Others that the build found.", 0, least=0, most=_COUNT)
    largest_px: float = key("Largest difference of a side, pixels.", 0.0, least=0, most=1e6)
    largest_confidence: float = key("Largest difference of a confidence.", 0.0, least=0, most=1e6)
    exact_map50: float | None = key("mAP50 of the exact one.", None, least=0, most=1)
    exact_map50_95: float | None = key("mAP50-95 of the exact one.", None, least=0, most=1)
    map50: float | None = key("mAP50 of the build.", None, least=0, most=1)
    map50_95: float | None = key("mAP50-95 of the build.", None, least=0, most=1)
    at: Mapping[str, int] = places()


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """A build of a version for one kind of device."""

    backend: str = key("What runs it.", choices=_BACKENDS)
    precision: str = key("What it computes in.", choices=_PRECISIONS)
    device: str = key("Kind of device.", choices=tuple(PRECISIONS))
    calibration: str = key("Of int8: a folder of images, or sha256:DIGEST of an upload.", "")
    serve: bool = key("Serve the version by it on such devices.", False)
    unchecked: bool = key("Serve also on compute classes where it was not compared.", False)
    checks: "tuple[Check, ...]" = key("Comparisons on record.", ())
    at: Mapping[str, int] = places()

    @property
    def variant(self) -> str:
        return f"{self.backend}/{self.precision}"

    @property
    def slot(self) -> str:
        """What tells it from the version's other builds: its name without the model's."""
        return f"{self.backend}-{self.precision}-{self.device}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One version of a model."""

    name: str = key("Name of the model: name or team/name.")
    artifact: str = key(
        "Its file: a path from this file's folder, sha256:DIGEST in the store, or a URI to fetch."
    )
    profile: str = key("Of s3://: the name of credentials on the control planes.", "")
    version: int = key(
        "Its number; 0: that of this file and these settings, or the next.",
        0,
        least=0,
        most=10**9 - 1,
    )
    sha256: str = key("Digest that the file must have.", "")
    source_name: str = key("Name of the file, for messages.", "")
    settings: Settings = key("What it is registered with.", of=Settings)
    class_names: tuple[str, ...] = key("Of all classes, in place of the file's.", (), loose=True)
    renamed_classes: Mapping[int, str] = key("Of some classes, by id.", of=dict, loose=True)
    architecture: str = key("Of weights alone: a YAML file, or a name of the model library's.", "")
    architecture_yaml: str = key("The same as text.", "")
    signature: str = key("A .minisig file; by default the one beside the artifact.", "")
    signature_text: str = key("The same as text.", "")
    metadata: Mapping[str, str] = key("Texts to keep with it, by file name.", of=dict, loose=True)
    labels: Mapping[str, str] = key("To find it by.", of=dict, loose=True)
    residency: Residency = key("How long it stays loaded.", of=Residency)
    placement: Placement = key("On which workers it may run.", of=Placement)
    batching: Mapping[str, Batching] = key(
        "How it is batched, by kind of device.", of=dict, choices=tuple(VARIANTS)
    )
    load: Load | None = key("Loads it; left out, what is loaded stays as it is.", None)
    builds: tuple[Build, ...] = key("Builds for other backends and precisions.", ())
    at: Mapping[str, int] = places()

    @property
    def line(self) -> int:
        return self.at.get("", 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Alias:
    """A movable name of versions of a model."""

    name: str = key("model:name.")
    targets: Mapping[str, int] = key(
        "Versions by number, or newest, and of how many of 1000 requests each is.",
        least=1,
        most=1000,
    )
    keep_s: float = key(
        "How long versions that it leaves stay loaded, for a rollback.",
        600.0,
        least=0,
        most=_WEEK_S,
    )
    at: Mapping[str, int] = places()

    @property
    def model(self) -> str:
        return self.name.partition(":")[0]

    @property
    def line(self) -> int:
        return self.at.get("", 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A place on earth, where the sun says when."""

    latitude: float = key("In degrees, north of the equator above 0.", least=-90, most=90)
    longitude: float = key("In degrees, east of Greenwich above 0.", least=-180, most=180)
    at: Mapping[str, int] = places()


@dataclass(frozen=True, slots=True, kw_only=True)
class FamilyMember:
    """One model of a family."""

    model: str = key("name, name@version or name:alias.")
    begins: str = key(
        "06:30, or of a place dawn, sunrise, sunset or dusk-15m; left out: the size decides.", ""
    )
    at: Mapping[str, int] = places()


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """An alias that is one of several models, chosen at each request."""

    name: str = key("model:name.")
    members: tuple[FamilyMember, ...] = key("From small to large, or each with its time.")
    within_s: float = key(
        "By size: answer within so many seconds; 0: by each request's deadline.",
        0.0,
        least=0,
        most=3600,
    )
    time_zone: str = key("IANA name; left out: UTC.", "")
    place: Place | None = key("Of members that begin by the sun.", None)
    at: Mapping[str, int] = places()

    @property
    def by_time(self) -> bool:
        return any(one.begins for one in self.members)

    @property
    def line(self) -> int:
        return self.at.get("", 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """What a new version of a model must reach before it takes over."""

    model: str = key("Name of the model.")
    data: str = key("Labelled images: a folder, a zip, or sha256:DIGEST in the store.")
    min_map50_95: float = key("Least mAP50-95, 0 to 1.", 0.0, least=0, most=1)
    min_map50: float = key("Least mAP50, 0 to 1.", 0.0, least=0, most=1)
    at: Mapping[str, int] = places()

    @property
    def line(self) -> int:
        return self.at.get("", 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreRule:
    """How much is kept of the models whose names match a pattern."""

    pattern: str = key("Of names, such as team-a/*.")
    keep_versions: int = key("How many of the newest of each; 0: all.", 0, least=0, most=1000)
    store_bytes: int = key(
        "Most bytes of the files of all; 0: no limit.", 0, least=0, most=_STORE_BYTES
    )
    at: Mapping[str, int] = places()

    @property
    def line(self) -> int:
        return self.at.get("", 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """A folder or prefix whose new files become versions of a model."""

    name: str = key("Name of the watch.")
    uri: str = key("file:///folder/ or s3://bucket/prefix/, as the control planes see it.")
    model: str = key("What its files are versions of.")
    patterns: tuple[str, ...] = key("Of file names; left out: *.pt and *.onnx.", ())
    profile: str = key("Of s3://: the name of credentials on the control planes.", "")
    every_s: float = key("Seconds between two looks.", 30.0, least=1, most=86_400)
    settle_s: float = key("How long a file must stay as it is.", 5.0, least=0.001, most=86_400)
    at: Mapping[str, int] = places()

    @property
    def line(self) -> int:
        return self.at.get("", 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Preparation:
    """A model that a schedule loads."""

    model: str = key("name, name@version or name:alias.")
    replicas: int = key("Number of workers to load it on.", 1, least=1, most=_REPLICAS)
    pin: bool = key("Never evict it for another model.", False)
    placement: Placement | None = key("Changes its placement first.", None)
    at: Mapping[str, int] = places()


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A changeover at set times, or by the sun."""

    name: str = key("Name of the schedule.")
    cron: str = key("When: minute hour day-of-month month day-of-week. Either this or sun.", "")
    time_zone: str = key("Of cron, and of times that are shown: IANA name; left out: UTC.", "")
    sun: str = key("When: dawn, sunrise, sunset or dusk, with an offset: dusk-15m, dawn+1h.", "")
    place: Place | None = key("Of sun: where.", None)
    lead_s: float = key("Start loading so many seconds earlier.", 0.0, least=0, most=86_400)
    load: tuple[Preparation, ...] = key("What is loaded.", ())
    release: tuple[str, ...] = key("What is released once all of it is.", ())
    at: Mapping[str, int] = places()

    @property
    def line(self) -> int:
        return self.at.get("", 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """A whole file. A section that is left out is not looked at: nothing of it changes."""

    fleet: int = key("Format of this file.", least=FORMAT, most=FORMAT)
    prefix: str = key("The file is about models whose names begin with this, and no others.", "")
    models: tuple[Version, ...] | None = key("Versions of models.", None)
    aliases: tuple[Alias, ...] | None = key("Movable names of versions.", None)
    families: tuple[Family, ...] | None = key("Aliases that are one of several models.", None)
    gates: tuple[Gate, ...] | None = key("What new versions must reach.", None)
    store: tuple[StoreRule, ...] | None = key("How much is kept.", None)
    watches: tuple[Watch, ...] | None = key("Folders whose files become versions.", None)
    schedules: tuple[Schedule, ...] | None = key("Changeovers at set times.", None)
    at: Mapping[str, int] = places()


def keys(kind: Any) -> Mapping[str, Any]:
    """The fields of a record that are keys, by name."""
    return _keys(kind)


def is_usual(record: Any, name: str) -> bool:
    """Whether a key of a record has its default."""
    one, value = keys(type(record))[name], getattr(record, name)
    if one.default_factory is not MISSING:
        return bool(value == one.default_factory())
    return one.default is not MISSING and value == one.default


@cache
def _keys(kind: Any) -> Mapping[str, Any]:
    return {one.name: one for one in fields(kind) if not one.metadata.get("hidden")}
