"""`yolopool models build` and `variant`: makes builds and compares them with the exact one."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from yolopool.cli import tables
from yolopool.cli.console import (
    Address,
    AsJson,
    ModelRef,
    out,
    plain,
    print_error,
    print_json,
    progress_bar,
    say,
)
from yolopool.client.client import Client
from yolopool.client.model_records import ModelVersion, Placement, ServedVariant
from yolopool.client.uploads import images_in
from yolopool.codes import CODES
from yolopool.errors import InvalidOption, YolopoolError
from yolopool.evaluation import build_comparison
from yolopool.evaluation.build_comparison import BuildComparison
from yolopool.evaluation.drift import Bound
from yolopool.transport import DEFAULT_ADDRESS
from yolopool.vocabulary import COMPUTE_CLASS, EXACT_PRECISION, INT8, PRECISIONS, TORCH

AUTO = "auto"
DeviceKind = Annotated[str, typer.Option("--device", help="Kind of device: cpu or cuda.")]


def build(
    model: ModelRef,
    backend: Annotated[
        str, typer.Option("--backend", help="Backend: torch, onnx, openvino, tensorrt or all.")
    ] = "all",
    precision: Annotated[
        str,
        typer.Option("--precision", help="Precision: fp32, fp16, bf16, int8, or auto to try all."),
    ] = AUTO,
    device: DeviceKind = "cpu",
    images: Annotated[
        Path | None,
        typer.Option("--images", help="Folder of images like those it will be sent; required."),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option("--labels", help="Folder of labels, a .txt for each image: class x y w h."),
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option("--calibration", help="Folder of other such images; int8 needs it."),
    ] = None,
    compute_class: Annotated[
        str,
        typer.Option("--compute-class", help="Compare on such workers: amx, avx2, ..."),
    ] = "",
    serve: Annotated[
        bool | None, typer.Option(help="Serve the model by the build if it is within the bounds.")
    ] = None,
    max_px: Annotated[
        float, typer.Option("--max-px", help="Bound: how far a side of a box may move, pixels.")
    ] = 5.0,
    max_missed: Annotated[
        float,
        typer.Option("--max-missed", help="Bound: share of objects missed, or found in addition."),
    ] = 0.01,
    max_map_loss: Annotated[
        float, typer.Option("--max-map-loss", help="Bound: loss of mAP50-95 (needs --labels).")
    ] = 0.01,
    as_json: AsJson = False,
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Build a model for another backend or precision.

    Every build is compared with the exact one on your images: how far its results drift, and how
    fast it is. With --precision auto the fastest build within the bounds serves the model from
    then on; if none is faster, the default build does. What serves stays if it was compared on
    other compute classes too, or serves unchecked: then the command that replaces it is printed.
    """
    chosen = _candidates(device, backend, precision, calibration is not None)
    pictures = _pictures(images, calibration)
    serve = precision == AUTO if serve is None else serve
    bound = Bound(max_px, max_missed, max_map_loss)
    with Client(address) as client, progress_bar(quiet=as_json) as progress:
        exactly = _exactly(client, model)
        runs = _Trials(client, exactly, device, calibration, progress, compute_class)
        trials, failed = runs.try_all(chosen, pictures, labels, precision)
        best = _best(trials, bound, precision)
        # A build that failed now may be the one that serves well: then nothing is changed.
        serve = serve and bool(best or (precision == AUTO and not failed))
        outcome = _Outcome()
        if serve:
            outcome = _serve(client, exactly, device, best, trials, auto=precision == AUTO)
        elif best:
            # Not `models variant`: this comparison is not on record yet.
            again = f"to serve {exactly} by {best} on {device}: run this again with --serve"
            outcome = _Outcome(said=again)
    beyond = {name: bound.exceeded_by(one.drift) for name, one in trials.items()}
    if as_json:
        print_json(_as_json(exactly, trials, beyond, failed, outcome.serves))
    else:
        out.print(tables.trials(trials, beyond))
        for name, why in failed.items():
            say(f"{name}: {why}")
        if outcome.said:
            out.print(outcome.said, soft_wrap=True)
    if outcome.refused:
        print_error(outcome.refused)
        raise typer.Exit(CODES["FAILED_PRECONDITION"].exit_code)
    if precision != AUTO and any(beyond.values()):
        print_error(f"not within the bounds: {'; '.join(filter(None, beyond.values()))}")
        raise typer.Exit(CODES["FAILED_PRECONDITION"].exit_code)


def variant(
    model: ModelRef,
    which: Annotated[
        str, typer.Argument(metavar="[VARIANT]", help="BACKEND/PRECISION of a build, or none.")
    ] = "none",
    device: DeviceKind = "cpu",
    unchecked: Annotated[
        bool, typer.Option("--unchecked", help="Serve it also where it was not compared.")
    ] = False,
    as_json: AsJson = False,
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Choose which build of a model serves it.

    'none' returns to the default build, which the workers make by themselves. A build in reduced
    precision (bf16, fp16, int8) serves on the compute classes where it was compared with the exact
    one; with --unchecked it serves on all of them.
    """
    with Client(address) as client:
        build_name = "" if which == "none" else which
        version = client.set_variant(model, device, build_name, unchecked=unchecked)
    print_json(plain(version)) if as_json else out.print(tables.version(version))


def _candidates(device: str, backend: str, precision: str, calibrated: bool) -> Sequence[str]:
    """The builds to make, as backend/precision."""
    backends = PRECISIONS.get(device)
    if backends is None:
        raise InvalidOption(f"--device {device}: one of {', '.join(PRECISIONS)}")
    if precision != AUTO:
        if backend == "all":
            raise InvalidOption(
                f"--precision {precision} needs --backend: give one, or use --precision auto"
            )
        return [f"{backend}/{precision}"]
    if backend not in ("all", *backends):
        raise InvalidOption(f"--backend {backend}: one of {', '.join(backends)}")
    found = [
        f"{name}/{offered}"
        for name, precisions in backends.items()
        for offered in precisions
        if backend in ("all", name) and (offered != INT8 or calibrated)
    ]
    return found


def _exactly(client: Client, model: str) -> str:
    """The reference as name@version, so that it names one version to the end."""
    known = client.model(model)
    return model if "@" in model else f"{known.name}@{known.default_version}"


def _pictures(folder: Path | None, calibration: Path | None) -> Sequence[Path]:
    if folder is None:
        raise InvalidOption("--images is missing: give a folder of images to compare the build on")
    if calibration is not None and folder.resolve() == calibration.resolve():
        raise InvalidOption(
            "--images and --calibration are the same folder: compare on images that calibration "
            "has not seen"
        )
    return images_in(folder)


@dataclass(frozen=True, slots=True)
class _Trials:
    """Builds of one version (name@version) for one kind of device."""

    client: Client
    model: str
    device: str
    calibration: Path | None
    progress: Any
    # Where builds are tried; empty: on any worker.
    compute_class: str = ""

    def try_all(
        self, chosen: Sequence[str], images: Sequence[Path], labels: Path | None, precision: str
    ) -> tuple[dict[str, BuildComparison], dict[str, str]]:
        """The comparison of each build by name, and why the others failed.

        A build that was asked for by name raises instead of failing.
        """
        exact, mine = self._exact()
        truths = build_comparison.read_labels(labels, images, exact) if labels else None
        trials: dict[str, BuildComparison] = {}
        failed: dict[str, str] = {}
        try:
            for name in self._others(chosen, exact, precision):
                try:
                    made = self._made(name)
                    told = partial(self.progress, name)
                    with self._placed(exact, made):
                        trials[name] = build_comparison.compare(
                            self.client, exact, made, images, truths, told
                        )
                        self.client.unload(made.name, wait=False)
                except YolopoolError as error:
                    if precision != AUTO:
                        raise
                    failed[name] = f"{error.reason}: {error.message}"
        finally:
            if mine:
                self.client.delete(exact.name)
        return trials, failed

    @contextmanager
    def _placed(self, *builds: ModelVersion) -> Iterator[None]:
        """Keeps builds on workers of the compute class, if one was asked for: their times are
        compared too.
        """
        asked = [(build, self._meant(build)) for build in builds] if self.compute_class else []
        try:
            for build, meant in asked:
                labels = {**meant.labels, COMPUTE_CLASS: self.compute_class}
                # A replica that stayed elsewhere would answer until the next is there.
                self.client.unload(build.name)
                self.client.set_placement(build.name, replace(meant, labels=labels))
            yield
        finally:
            for build, meant in asked:
                self.client.set_placement(build.name, meant)

    def _meant(self, build: ModelVersion) -> Placement:
        """The placement of a build without the compute class that a killed run left there; one
        that its version has is meant.
        """
        labels = {k: v for k, v in build.placement.labels.items() if k != COMPUTE_CLASS}
        own = self.client.model(self.model).versions[0].placement.labels.get(COMPUTE_CLASS)
        if own is not None:
            labels[COMPUTE_CLASS] = own
        return replace(build.placement, labels=labels)

    def _others(self, chosen: Sequence[str], exact: ModelVersion, precision: str) -> list[str]:
        """The builds of `chosen` other than the exact one."""
        its = exact.name.partition("+")[2].partition("@")[0]
        others = [name for name in chosen if f"{name.replace('/', '-')}-{self.device}" != its]
        if not others and precision != AUTO:
            raise InvalidOption(
                f"{chosen[0]} is the exact build: choose another to compare with it"
            )
        return others

    def _exact(self) -> tuple[ModelVersion, bool]:
        """The exact build, which is the version's own pack in fp32, and whether it is new."""
        before = {build.name for build in self.client.model(self.model).versions[0].builds}
        try:
            exact = self._build(TORCH, "fp32")
        except InvalidOption:  # an ONNX file
            exact = self._build("onnx", "fp32")
        return exact, exact.name not in before

    def _made(self, name: str) -> ModelVersion:
        backend, _, precision = name.partition("/")
        made = self._build(backend, precision)
        if made.state == "FAILED":
            raise InvalidOption(f"{made.name} FAILED: {made.reason}: {made.message}")
        return made

    def _build(self, backend: str, precision: str) -> ModelVersion:
        return self.client.build(
            self.model,
            backend=backend,
            precision=precision,
            device_kind=self.device,
            calibration=self.calibration if precision == INT8 else None,
            progress=self.progress,
        )


def _best(trials: dict[str, BuildComparison], bound: Bound, precision: str) -> str:
    """The build to serve; empty: the default build."""
    if precision == AUTO:
        return build_comparison.fastest(trials, bound)
    fits = (name for name, one in trials.items() if not bound.exceeded_by(one.drift))
    return next(fits, "")


@dataclass(frozen=True, slots=True)
class _Outcome:
    """The build that was set to serve (empty: none), that in words, or why it was refused."""

    serves: str = ""
    said: str = ""
    refused: str = ""


def _serve(
    client: Client,
    model: str,
    device: str,
    best: str,
    trials: Mapping[str, BuildComparison],
    *,
    auto: bool,
) -> _Outcome:
    """Serves a version by a build that was tried; `best` empty: by the default build."""
    held = client.model(model).versions[0].served.get(device)
    tested = {one.drift.compute_class for one in trials.values()}
    if auto and held is not None and _serves_elsewhere(held, best, tested):
        return _Outcome(said=_kept(model, device, held, best, tested))
    drift = trials[best].drift if best else None
    if drift is not None and not drift.compute_class and not _is_exact(best):
        return _Outcome(
            refused=f"{best} does not serve: the workers that answered do not say their compute "
            "class, so this comparison counts for none: update them to this release, or run "
            f"yolopool models variant {model} {best} --device {device} --unchecked"
        )
    # Nor does auto end the exception that serves this build on other classes.
    unchecked = auto and held is not None and held.unchecked
    version = client.set_variant(model, device, best, drift, unchecked=unchecked)
    if not best:
        said = f"{model} is served on {device} by the default build: no other was better"
        return _Outcome(said=said)
    where = _classes(version.served[device])
    return _Outcome(best, f"{model} is now served by {best} on {device} ({where})")


def _serves_elsewhere(held: ServedVariant, best: str, tested: Collection[str]) -> bool:
    """Whether another build than `best` serves, also where nothing was tried now: what one compute
    class gives is no reason to take it from the others.
    """
    if held.variant == best:
        return False
    return held.unchecked or not set(held.checked_on).issubset(tested)


def _kept(model: str, device: str, held: ServedVariant, best: str, tested: Collection[str]) -> str:
    """Which build stays, and the command that replaces it."""
    here = ", ".join(sorted(filter(None, tested))) or "these workers"
    command = f"variant {model} {best or 'none'} --device {device}"
    if best:
        backend, _, precision = best.partition("/")
        command = (
            f"build {model} --backend {backend} --precision {precision} --device {device} "
            "--images FOLDER --serve"
        )
    return (
        f"{model} stays served by {held.variant} on {device} ({_classes(held)}), though on {here} "
        f"{best or 'the default build'} is better: to replace it everywhere, run "
        f"yolopool models {command}"
    )


def _classes(served: ServedVariant) -> str:
    """The compute classes that it serves on."""
    everywhere = served.unchecked or _is_exact(served.variant)
    return "every compute class" if everywhere else ", ".join(served.checked_on)


def _is_exact(variant: str) -> bool:
    return variant.endswith(f"/{EXACT_PRECISION}")


def _as_json(
    model: str,
    trials: dict[str, BuildComparison],
    verdicts: dict[str, str],
    failed: dict[str, str],
    served: str,
) -> dict[str, Any]:
    rows = [
        {"variant": name, **asdict(one.drift), "exact_ms": one.exact_ms, "ms": one.ms}
        | {"beyond": verdicts[name]}
        for name, one in trials.items()
    ]
    return {"model": model, "builds": rows, "failed": failed, "serves": served}
