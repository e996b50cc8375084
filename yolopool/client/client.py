"""The client that blocks; `async_client` has the same methods, awaited, and the same errors.

`calls` and `uploads` say what each method sends and how its reply is read; this file only sends.
Every call has a deadline, and every failure is a YolopoolError with reason, retryable and
retry_after_s.
"""

import contextlib
import os
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, TypeVar, Unpack

import grpc

from yolopool import transport
from yolopool.client import calls, requests, uploads
from yolopool.client.access import api_keys, joined_processes, tenant_records
from yolopool.client.access.credentials import Credentials, TokenSource
from yolopool.client.alerts import alert_records
from yolopool.client.calls import Call, Services, StreamCall
from yolopool.client.detections import Detections
from yolopool.client.fleet_file import applying, exporting
from yolopool.client.images import ImageLike
from yolopool.client.labels import labelling
from yolopool.client.media import many, video
from yolopool.client.media.many import Images, ManyCalls
from yolopool.client.media.outcomes import FrameAnswer, ImageAnswer
from yolopool.client.media.pending_call import PendingCall
from yolopool.client.media.video import FrameCalls, VideoOptions
from yolopool.client.model_records import ModelVersion
from yolopool.client.requests import DetectOptions, RegisterOptions
from yolopool.client.rollout import alias_records, family_records, rollout_records, schedule_calls
from yolopool.client.rules import rule_calls
from yolopool.client.sources import fetched, watch_records
from yolopool.client.streams.blocking import FrameStream
from yolopool.client.streams.frames import Frame, FrameResult, messages_of
from yolopool.client.uploads import UPLOAD_TIMEOUT_S, FileWork, Flow, Progress, Sleep
from yolopool.forks import forks
from yolopool.server.exhaustion import check_descriptors
from yolopool.status import error_from_rpc
from yolopool.tls.certificates import credentials_of

P = ParamSpec("P")
Answer = TypeVar("Answer")


def _call(
    make: Callable[P, Call[Answer]],
) -> Callable[Concatenate["Client", P], Answer]:
    """The method that sends what `make` makes and returns its answer."""

    def method(client: "Client", /, *args: P.args, **kwargs: P.kwargs) -> Answer:
        return client._send(make(*args, **kwargs))

    calls.describe(method, make)
    return method


def _flow(
    make: Callable[P, Flow[Answer]],
) -> Callable[Concatenate["Client", P], Answer]:
    """The method that runs the steps of `make` one after the other."""

    def method(client: "Client", /, *args: P.args, **kwargs: P.kwargs) -> Answer:
        return client._run(make(*args, **kwargs))

    calls.describe(method, make)
    return method


def _stream(
    make: Callable[P, StreamCall[Answer]],
) -> Callable[Concatenate["Client", P], Iterator[Answer]]:
    """The method that sends what `make` makes and iterates over its replies."""

    def method(client: "Client", /, *args: P.args, **kwargs: P.kwargs) -> Iterator[Answer]:
        return client._open(make(*args, **kwargs))

    calls.describe(method, make, Iterator)
    return method


class Client:
    """Calls a pool at `address` (host:port; by default YOLOPOOL_ADDRESS or 127.0.0.1:50051).

    `api_key` (or YOLOPOOL_API_KEY) says who calls. So does `token`, a function that gives a token
    of OpenID Connect and is asked before each call, since tokens expire; or YOLOPOOL_TOKEN, or the
    file YOLOPOOL_TOKEN_FILE, which is read again when it changes. `ca` (or YOLOPOOL_CA) is a PEM
    file of the authority that the pool's certificate must be of, or the word system for those that
    this machine trusts: with it the connection is encrypted.

    Safe to share between threads. Close it, or use it in a `with`. In a process that was forked
    during a call of another thread, clients raise ForkedProcess.
    """

    def __init__(
        self,
        address: str | None = None,
        api_key: str | None = None,
        ca: str | Path | None = None,
        token: TokenSource | None = None,
    ) -> None:
        self.address = transport.address_of(address)
        self._credentials = Credentials(api_key, token)
        self._process = os.getpid()
        check_descriptors()
        with forks.calling():
            self._channel = _channel(self.address, credentials_of(ca))
        self._proxy = transport.proxy_of(self.address, os.environ)
        self._services = Services(self._channel)

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends open calls and the connection."""
        if os.getpid() == self._process:  # in a forked child gRPC may wait for the parent's calls
            self._channel.close()

    def detect(self, image: ImageLike, model: str, **options: Unpack[DetectOptions]) -> Detections:
        """Runs a model on one image: a path, bytes of a file, a PIL image, or a uint8 array of
        (height, width, 3) with its `channel_order`, or (height, width) for grey.

        The options are those of `DetectOptions`, such as `confidence`, `classes`, `tile_size`,
        `priority` and `timeout_s`; those left out take the version's settings. Raises
        YolopoolError; OSError for a file that cannot be read.

        >>> Client("localhost:50051").detect("street.jpg", model="shapes").xyxy
        """
        return self._send(calls.detect(image, model, **options))

    def detect_stream(
        self,
        frames: Iterable[ImageLike | Frame],
        model: str,
        *,
        newest_only: bool = False,
        in_order: bool = True,
        window: int = 8,
        **options: Unpack[DetectOptions],
    ) -> Iterator[FrameResult]:
        """Runs a model on the frames of a video, or on any number of images; iterate over the
        results. At most `window` frames are on their way, however slow either side is.

        With `newest_only`, for live video, frames that wait when a newer one comes are dropped and
        counted. With in_order=False results come as soon as they are there. The options are those
        of `detect` for every frame; `timeout_s` is that of each frame, and `priority` is "bulk"
        unless given. A frame that fails has its error in its result, and the others go on. A lost
        connection is opened again, for `timeout_s` at most, and frames without a result are sent
        again. Raises InvalidOption at once, then Unavailable, and what `frames` raises.

        >>> for result in client.detect_stream(camera(), "shapes", newest_only=True): ...
        """
        messages = messages_of(model, newest_only, in_order, window, options)
        forks.check()
        method = self._services.stub("detection").DetectStream
        patience_s = options.get("timeout_s", calls.DETECT_TIMEOUT_S)
        shown = self._credentials.metadata
        return FrameStream(method, messages, frames, patience_s, self._proxy, shown).results()

    def detect_many(
        self,
        images: Images,
        model: str,
        *,
        window: int = many.WINDOW,
        progress: many.Progress | None = None,
        **options: Unpack[DetectOptions],
    ) -> Generator[ImageAnswer, None, None]:
        """Runs a model on many images, `window` calls at a time, and iterates over the answers in
        order: `detections`, or `error` of an image that failed, which ends no other.

        `images` is a folder, a pattern such as "photos/**/*.jpg", or an iterable of what `detect`
        takes; it is read as there is room for calls. A refusal for want of room is asked again
        until the image's `timeout_s`. `progress` is called with how many were answered, and of how
        many (0: not known). Leaving the iteration cancels the rest.

        >>> for answer in client.detect_many("photos/", model="shapes"):
        ...     print(answer.name, answer.detections or answer.error)
        """
        return many.answers(ManyCalls(images, model, window, options), self._start, progress)

    def detect_video(
        self,
        source: str | Path | int,
        model: str,
        *,
        track: bool = False,
        window: int | None = None,
        jpeg_quality: int | None = None,
        lost_s: float = video.LOST_S,
        progress: many.Progress | None = None,
        **options: Unpack[DetectOptions],
    ) -> Generator[FrameAnswer, None, None]:
        """Runs a model on a video file, a camera (its number) or the address of a stream, and
        iterates over the answers in order. Needs the extra `video`.

        Of a file every frame is asked, `window` calls at a time (default 8). Of a live source the
        newest frame is asked whenever a call has ended (`window` 1): older ones are dropped and
        counted. One that breaks off is opened again, until nothing came for `lost_s` seconds; then
        VideoNotReadable is raised. `track` numbers the objects from frame to frame in `tracker_id`
        (extra `tracking`). Frames are sent as they are; with `jpeg_quality` (1..100) in a tenth of
        the bytes, and with other pixels.
        """
        how = VideoOptions(track, window, jpeg_quality, lost_s)
        requests.refuse_unknown("detect_video", options, DetectOptions)
        opened = partial(FrameCalls, source, model, how, options)
        return video.answers(opened, self._start, progress)

    def register(
        self,
        name: str,
        path: str | Path,
        *,
        wait: bool = True,
        progress: Progress | None = None,
        timeout_s: float = UPLOAD_TIMEOUT_S,
        **options: Unpack[RegisterOptions],
    ) -> ModelVersion:
        """Uploads a model file (.pt or .onnx) and makes it the next version of `name`. Of a folder
        that a training wrote (runs/detect/train) it takes weights/best.pt.

        The args.yaml and results.csv of a training are kept with the version as `metadata`. The
        options are those of `RegisterOptions`, such as `image_size` and `class_names`. With
        wait, returns when the import is READY or FAILED (see `state`, `reason`). `progress` is
        called with the current step and its fraction.
        """
        return self._run(
            uploads.register(
                name, path, wait=wait, progress=progress, timeout_s=timeout_s, **options
            )
        )

    register_uri = _flow(fetched.register_uri)
    upload = _flow(uploads.upload)
    build = _flow(uploads.build)
    plan_fleet = _flow(applying.plan_fleet)
    apply_fleet = _flow(applying.apply_fleet)
    export_fleet = _flow(exporting.export_fleet)

    models = _call(labelling.models)
    model = _call(calls.model)
    load = _call(calls.load)
    unload = _call(calls.unload)
    delete = _call(rule_calls.delete)
    sweep = _call(uploads.sweep)
    set_residency = _call(calls.set_residency)
    set_labels = _call(labelling.set_labels)
    set_placement = _call(calls.set_placement)
    set_batching = _call(calls.set_batching)
    set_variant = _call(calls.set_variant)

    aliases = _call(alias_records.aliases)
    alias = _call(alias_records.alias)
    set_alias = _call(alias_records.set_alias)
    promote = _call(alias_records.promote)
    rollback = _call(alias_records.rollback)
    delete_alias = _call(alias_records.delete_alias)
    family = _call(family_records.family)
    set_family = _call(family_records.set_family)

    start_rollout = _call(rollout_records.start_rollout)
    rollouts = _call(rollout_records.rollouts)
    rollout = _call(rollout_records.rollout)
    abort_rollout = _call(rollout_records.abort_rollout)
    disagreements = _call(rollout_records.disagreements)

    changeover = _call(calls.changeover)
    set_schedule = _call(schedule_calls.set_schedule)
    schedules = _call(schedule_calls.schedules)
    delete_schedule = _call(schedule_calls.delete_schedule)

    workers = _call(calls.workers)
    drain_worker = _call(calls.drain_worker)
    fleet = _call(calls.fleet)
    statistics = _call(calls.statistics)
    bench = _stream(calls.bench)

    events = _stream(calls.events)
    plan_load = _call(calls.plan_load)
    explain_model = _call(calls.explain_model)
    explain_request = _call(calls.explain_request)

    create_key = _call(api_keys.create_key)
    list_keys = _call(api_keys.list_keys)
    rotate_key = _call(api_keys.rotate_key)
    revoke_key = _call(api_keys.revoke_key)
    create_join_token = _call(joined_processes.create_join_token)
    certificates = _call(joined_processes.certificates)
    revoke_certificate = _call(joined_processes.revoke_certificate)
    set_gate = _flow(rule_calls.set_gate)
    clear_gate = _call(rule_calls.clear_gate)
    set_store_rule = _call(rule_calls.set_store_rule)
    rules = _call(rule_calls.rules)
    set_watch = _call(watch_records.set_watch)
    watches = _call(watch_records.watches)
    delete_watch = _call(watch_records.delete_watch)
    alerts = _call(alert_records.alerts)
    alert_rules = _call(alert_records.alert_rules)
    resolve_alert = _call(alert_records.resolve_alert)
    silence_alerts = _call(alert_records.silence_alerts)
    alert_silences = _call(alert_records.alert_silences)
    end_silence = _call(alert_records.end_silence)
    set_alert_threshold = _call(alert_records.set_alert_threshold)
    set_webhook = _call(alert_records.set_webhook)
    webhooks = _call(alert_records.webhooks)
    delete_webhook = _call(alert_records.delete_webhook)
    test_webhook = _call(alert_records.test_webhook)
    set_tenant = _call(tenant_records.set_tenant)
    list_tenants = _call(tenant_records.list_tenants)
    usage = _call(tenant_records.usage)
    delete_tenant = _call(tenant_records.delete_tenant)

    def _send(self, call: Call[Answer]) -> Answer:
        send = self._services.method(call)
        try:
            with forks.calling():
                reply = send(
                    call.request,
                    timeout=max(call.timeout_s, 0.001),
                    metadata=self._credentials.metadata(),
                )
        except grpc.RpcError as error:
            raise error_from_rpc(error, self._proxy) from None
        return call.read(reply)

    def _start(self, call: Call[Answer]) -> PendingCall[Answer]:
        send = self._services.method(call)
        with contextlib.ExitStack() as mark:
            mark.enter_context(forks.calling())
            future = send.future(
                call.request,
                timeout=max(call.timeout_s, 0.001),
                metadata=self._credentials.metadata(),
            )
            return PendingCall(future, call, self._proxy, mark.pop_all())

    def _run(self, flow: Flow[Answer]) -> Answer:
        """Runs a flow's steps; an error of one is raised inside the flow, which may go on."""
        with contextlib.closing(flow):
            try:
                step = next(flow)
                while True:
                    try:
                        result = self._do(step)
                    except Exception as error:
                        step = flow.throw(error)
                    else:
                        step = flow.send(result)
            except StopIteration as end:
                answer: Answer = end.value
                return answer

    def _do(self, step: Call[Any] | Sleep | FileWork) -> Any:
        if isinstance(step, Call):
            return self._send(step)
        if isinstance(step, FileWork):
            return step.run()
        time.sleep(step.seconds)
        return None

    def _open(self, call: StreamCall[Answer]) -> Iterator[Answer]:
        forks.check()
        stream = self._services.method(call)(
            call.request, timeout=call.timeout_s, metadata=self._credentials.metadata()
        )
        return _replies(stream, call, self._proxy)


def _channel(address: str, credentials: grpc.ChannelCredentials | None) -> grpc.Channel:
    options = transport.client_options(address)
    if credentials is None:
        return grpc.insecure_channel(address, options=options)
    return grpc.secure_channel(address, credentials, options=options)


def _replies(stream: Any, call: StreamCall[Answer], proxy: str) -> Iterator[Answer]:
    try:
        for message in stream:
            yield call.read(message)
    except grpc.RpcError as error:
        raise error_from_rpc(error, proxy) from None
    finally:
        stream.cancel()
