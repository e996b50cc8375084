"""The client for asyncio: the methods of `Client`, awaited, with the same errors.

`calls` and `uploads` say what each method sends and how its reply is read; this file only sends.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, TypeVar, Unpack

import grpc

from yolopool import transport
from yolopool.client import calls, requests, uploads
from yolopool.client.access import api_keys, joined_processes, tenant_records
from yolopool.client.access.credentials import AsyncTokenSource, Credentials
from yolopool.client.alerts import alert_records
from yolopool.client.calls import Call, Services, StreamCall
from yolopool.client.detections import Detections
from yolopool.client.fleet_file import applying, exporting
from yolopool.client.images import ImageLike
from yolopool.client.labels import labelling
from yolopool.client.media import many, video
from yolopool.client.media.many import Images, ManyCalls
from yolopool.client.media.outcomes import FrameAnswer, ImageAnswer
from yolopool.client.media.video import FrameCalls, VideoOptions
from yolopool.client.model_records import ModelVersion
from yolopool.client.requests import DetectOptions, RegisterOptions
from yolopool.client.rollout import alias_records, family_records, rollout_records, schedule_calls
from yolopool.client.rules import rule_calls
from yolopool.client.sources import fetched, watch_records
from yolopool.client.streams.awaited import AsyncFrameStream, Frames
from yolopool.client.streams.frames import FrameResult, messages_of
from yolopool.client.uploads import UPLOAD_TIMEOUT_S, FileWork, Flow, Progress, Sleep
from yolopool.errors import ForkedProcess
from yolopool.forks import forks
from yolopool.server.exhaustion import check_descriptors
from yolopool.status import error_from_rpc
from yolopool.tls.certificates import credentials_of

P = ParamSpec("P")
Answer = TypeVar("Answer")


def _call(
    make: Callable[P, Call[Answer]],
) -> Callable[Concatenate["AsyncClient", P], Coroutine[Any, Any, Answer]]:
    """The method that sends what `make` makes and returns its answer."""

    async def method(client: "AsyncClient", /, *args: P.args, **kwargs: P.kwargs) -> Answer:
        return await client._send(make(*args, **kwargs))

    calls.describe(method, make)
    return method


def _flow(
    make: Callable[P, Flow[Answer]],
) -> Callable[Concatenate["AsyncClient", P], Coroutine[Any, Any, Answer]]:
    """The method that runs the steps of `make` one after the other."""

    async def method(client: "AsyncClient", /, *args: P.args, **kwargs: P.kwargs) -> Answer:
        return await client._run(make(*args, **kwargs))

    calls.describe(method, make)
    return method


def _stream(
    make: Callable[P, StreamCall[Answer]],
) -> Callable[Concatenate["AsyncClient", P], AsyncIterator[Answer]]:
    """The method that sends what `make` makes and iterates over its replies."""

    def method(
        client: "AsyncClient", /, *args: P.args, **kwargs: P.kwargs
    ) -> AsyncIterator[Answer]:
        return client._open(make(*args, **kwargs))

    calls.describe(method, make, AsyncIterator)
    return method


class AsyncClient:
    """`Client` for asyncio: the same methods, awaited; streams of answers are for `async for`. The
    function that gives the `token` may be awaited, too.

    Use it in an `async with`, or close it.
    """

    def __init__(
        self,
        address: str | None = None,
        api_key: str | None = None,
        ca: str | Path | None = None,
        token: AsyncTokenSource | None = None,
    ) -> None:
        self.address = transport.address_of(address)
        self._credentials = Credentials(api_key, token)
        self._process = os.getpid()
        check_descriptors()
        forks.opened(self)
        self._channel = _channel(self.address, credentials_of(ca))
        self._proxy = transport.proxy_of(self.address, os.environ)
        self._services = Services(self._channel)

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends open calls and the connection."""
        if os.getpid() == self._process:
            await self._channel.close()
            forks.closed(self)

    async def detect(
        self, image: ImageLike, model: str, **options: Unpack[DetectOptions]
    ) -> Detections:
        """As `Client.detect`."""
        return await self._send(calls.detect(image, model, **options))

    def detect_stream(
        self,
        frames: Frames,
        model: str,
        *,
        newest_only: bool = False,
        in_order: bool = True,
        window: int = 8,
        **options: Unpack[DetectOptions],
    ) -> AsyncIterator[FrameResult]:
        """As `Client.detect_stream`, for `async for`. `frames` may be an asynchronous iterator; a
        plain one must not block.
        """
        messages = messages_of(model, newest_only, in_order, window, options)
        self._check_process()
        method = self._services.stub("detection").DetectStream
        patience_s = options.get("timeout_s", calls.DETECT_TIMEOUT_S)
        shown = self._credentials.metadata_async
        return AsyncFrameStream(method, messages, frames, patience_s, self._proxy, shown).results()

    def detect_many(
        self,
        images: Images,
        model: str,
        *,
        window: int = many.WINDOW,
        progress: many.Progress | None = None,
        **options: Unpack[DetectOptions],
    ) -> AsyncGenerator[ImageAnswer, None]:
        """As `Client.detect_many`, for `async for`; images are read on a thread."""
        return many.answers_async(ManyCalls(images, model, window, options), self._send, progress)

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
    ) -> AsyncGenerator[FrameAnswer, None]:
        """As `Client.detect_video`, for `async for`; frames are read on a thread."""
        how = VideoOptions(track, window, jpeg_quality, lost_s)
        requests.refuse_unknown("detect_video", options, DetectOptions)
        opened = partial(FrameCalls, source, model, how, options)
        return video.answers_async(opened, self._send, progress)

    async def register(
        self,
        name: str,
        path: str | Path,
        *,
        wait: bool = True,
        progress: Progress | None = None,
        timeout_s: float = UPLOAD_TIMEOUT_S,
        **options: Unpack[RegisterOptions],
    ) -> ModelVersion:
        """As `Client.register`."""
        return await self._run(
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

    async def _send(self, call: Call[Answer]) -> Answer:
        send = self._services.method(call)
        self._check_process()
        try:
            metadata = await self._credentials.metadata_async()
            reply = await send(call.request, timeout=max(call.timeout_s, 0.001), metadata=metadata)
        except grpc.RpcError as error:
            raise error_from_rpc(error, self._proxy) from None
        return call.read(reply)

    def _check_process(self) -> None:
        if os.getpid() != self._process:
            raise ForkedProcess("this AsyncClient was made before the fork: make one after it")

    async def _run(self, flow: Flow[Answer]) -> Answer:
        """Runs a flow's steps; an error of one is raised inside the flow, which may go on."""
        with contextlib.closing(flow):
            try:
                step = next(flow)
                while True:
                    try:
                        result = await self._do(step)
                    except Exception as error:
                        step = flow.throw(error)
                    else:
                        step = flow.send(result)
            except StopIteration as end:
                answer: Answer = end.value
                return answer

    async def _do(self, step: Call[Any] | Sleep | FileWork) -> Any:
        if isinstance(step, Call):
            return await self._send(step)
        if isinstance(step, FileWork):
            return await asyncio.to_thread(step.run)
        await asyncio.sleep(step.seconds)
        return None

    def _open(self, call: StreamCall[Answer]) -> AsyncIterator[Answer]:
        self._check_process()
        return self._replies(call)

    async def _replies(self, call: StreamCall[Answer]) -> AsyncIterator[Answer]:
        metadata = await self._credentials.metadata_async()
        stream = self._services.method(call)(
            call.request, timeout=call.timeout_s, metadata=metadata
        )
        try:
            async for message in stream:
                yield call.read(message)
        except grpc.RpcError as error:
            raise error_from_rpc(error, self._proxy) from None
        finally:
            stream.cancel()


def _channel(address: str, credentials: grpc.ChannelCredentials | None) -> grpc.aio.Channel:
    options = transport.client_options(address)
    if credentials is None:
        return grpc.aio.insecure_channel(address, options=options)
    return grpc.aio.secure_channel(address, credentials, options=options)
