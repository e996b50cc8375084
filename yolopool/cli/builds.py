"""`yolopool models build` and `variant`: builds of a version, tried against the exact one."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from yolopool.cli import tables
from yolopool.cli.console import (
    DEFAULT_ADDRESS,
    EXIT_CODES,
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
from yolopool.client.model_records import ModelVersion
from yolopool.client.uploads import images_in
from yolopool.errors import InvalidOption, YolopoolError
from yolopool.evaluation import build_comparison
from yolopool.evaluation.build_comparison import BuildComparison
from yolopool.evaluation.drift import Bound
from yolopool.vocabulary import COMPUTE_CLASS, INT8, PRECISIONS, TORCH

AUTO = "auto"
DeviceKind = Annotated[str, typer.Option("--device", help="kind of device: cpu or cuda")]


def build(
    model: ModelRef,
    backend: Annotated[
        str, typer.Option("--backend", help="torch, onnx, openvino or tensorrt; all: every one")
    ] = "all",
    precision: Annotated[
        str, typer.Option("--precision", help="fp32, fp16, bf16, int8; auto: the best of all")
    ] = AUTO,
    device: DeviceKind = "cpu",
    images: Annotated[
        Path | None, typer.Option("--images", help="folder to try it on, as it will be asked")
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option("--labels", help="folder of their labels: a .txt each, class x y w h"),
    ] = None,
    calibration: Annotated[
        Path | None, typer.Option("--calibration", help="of int8: folder of other such images")
    ] = None,
    compute_class: Annotated[
        str, typer.Option("--compute-class", help="try it on such workers alone: amx, avx2, ...")
    ] = "",
    serve: Annotated[
        bool | None, typer.Option(help="serve the model by it, if it is within the bounds")
    ] = None,
    max_px: Annotated[float, typer.Option("--max-px", help="a side may move so far")] = 5.0,
    max_missed: Annotated[
        float, typer.Option("--max-missed", help="share of objects missed, and of others found")
    ] = 0.01,
    max_map_loss: Annotated[
        float, typer.Option("--max-map-loss", help="mAP50-95 that may be lost")
    ] = 0.01,
    as_json: AsJson = False,
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Build a model for another backend or precision, and say how far it drifts.

    Each build is tried on the images beside the exact one, in turns. With --precision auto the
    fastest build within the bounds serves the model from then on; if none is faster, it is served
    as its workers make it.
    """
    chosen = _candidates(device, backend, precision, calibration is not None)
    pictures = _pictures(images, calibration)
    serve = precision == AUTO if serve is None else serve
    bound = Bound(max_px, max_missed, max_map_loss)
    with Client(address) as client, progress_bar(quiet=as_json) as progress:
        bench = _Bench(
            client, _exactly(client, model), device, calibration, progress, compute_class
        )
        trials, failed = bench.try_all(chosen, pictures, labels, precision)
        best = _best(trials, bound, precision)
        # What could not be tried now may be what serves, and well.
        serve = serve and bool(best or (precision == AUTO and not failed))
        if serve:
            drift = trials[best].drift if best else None
            client.set_variant(bench.model, device, best, drift)
    beyond = {name: bound.exceeded_by(one.drift) for name, one in trials.items()}
    if as_json:
        print_json(_as_json(bench.model, trials, beyond, failed, best if serve else ""))
    else:
        out.print(tables.trials(trials, beyond))
        for name, why in failed.items():
            say(f"{name}: {why}")
        _say_served(bench.model, device, serve, best)
    if precision != AUTO and any(beyond.values()):
        print_error(f"beyond the bounds: {'; '.join(filter(None, beyond.values()))}")
        raise typer.Exit(EXIT_CODES["FAILED_PRECONDITION"])


def variant(
    model: ModelRef,
    which: Annotated[
        str, typer.Argument(metavar="[VARIANT]", help="backend/precision of a build; none: no one")
    ] = "none",
    device: DeviceKind = "cpu",
    unchecked: Annotated[
        bool, typer.Option("--unchecked", help="also on compute classes where it was not compared")
    ] = False,
    as_json: AsJson = False,
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Serve a model by one of its builds on a kind of device.

    A build in reduced precision (bf16, fp16, int8) serves where it was compared with the exact one,
    on workers of the same compute class; on all others with --unchecked alone.
    """
    with Client(address) as client:
        build_name = "" if which == "none" else which
        version = client.set_variant(model, device, build_name, unchecked=unchecked)
    print_json(plain(version)) if as_json else out.print(tables.version(version))


def _candidates(device: str, backend: str, precision: str, calibrated: bool) -> Sequence[str]:
    """backend/precision of every build that is asked for."""
    backends = PRECISIONS.get(device)
    if backends is None:
        raise InvalidOption(f"--device {device}: one of {', '.join(PRECISIONS)}")
    if precision != AUTO:
        if backend == "all":
            raise InvalidOption("give --backend, or --precision auto alone")
        return [f"{backend}/{precision}"]
    if backend not in ("all", *backends):
        raise InvalidOption(f"--backend {backend}: one of {', '.join(backends)}")
    found = [
        f"{name}/{one}"
        for name, precisions in backends.items()
        for one in precisions
        if backend in ("all", name) and (one != INT8 or calibrated)
    ]
    return found


def _exactly(client: Client, model: str) -> str:
    """name@version of what a reference means now: it is to mean the same all along."""
    known = client.model(model)
    return model if "@" in model else f"{known.name}@{known.default_version}"


def _pictures(folder: Path | None, calibration: Path | None) -> Sequence[Path]:
    if folder is None:
        raise InvalidOption("give --images: a folder of images to try the build on")
    if calibration is not None and folder.resolve() == calibration.resolve():
        raise InvalidOption("give --images other than --calibration: ranges were learnt from those")
    return images_in(folder)


@dataclass(frozen=True, slots=True)
class _Bench:
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
        """What became of each, by name; of those that could not be tried, why. One that was asked
        for by name raises instead.
        """
        exact, mine = self._exact()
        truths = (
            build_comparison.read_all(labels, images, len(exact.class_names)) if labels else None
        )
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
        asked = builds if self.compute_class else ()
        try:
            for build in asked:
                labels = {**build.placement.labels, COMPUTE_CLASS: self.compute_class}
                # A replica that stayed elsewhere would answer until the next is there.
                self.client.unload(build.name)
                self.client.set_placement(build.name, replace(build.placement, labels=labels))
            yield
        finally:
            for build in asked:
                self.client.set_placement(build.name, build.placement)

    def _others(self, chosen: Sequence[str], exact: ModelVersion, precision: str) -> list[str]:
        """Those of `chosen` that are not the exact build itself."""
        its = exact.name.partition("+")[2].partition("@")[0]
        others = [one for one in chosen if f"{one.replace('/', '-')}-{self.device}" != its]
        if not others and precision != AUTO:
            raise InvalidOption(f"{chosen[0]} is the exact build, which others are compared with")
        return others

    def _exact(self) -> tuple[ModelVersion, bool]:
        """The build that others are held to, which is the version's own pack in fp32; and whether
        it was made for this.
        """
        before = {one.name for one in self.client.model(self.model).versions[0].builds}
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
    """What is to serve; empty: what does without."""
    if precision == AUTO:
        return build_comparison.fastest(trials, bound)
    fits = (name for name, one in trials.items() if not bound.exceeded_by(one.drift))
    return next(fits, "")


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


def _say_served(model: str, device: str, serve: bool, best: str) -> None:
    if serve and best:
        out.print(f"{model} is served by {best} on {device} from now on")
    elif serve:
        out.print(f"{model} is served on {device} as its workers make it: none was better")
    elif best:
        out.print(f"serve it: yolopool models variant {model} {best} --device {device}")
