"""Bad callers of the gRPC port, by real sockets against a real process: none stops the others."""

import contextlib
import gzip
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import psutil
import pytest

from tests.e2e import h2_frames as h2
from tests.e2e.plane_process import control_plane
from tests.waiting import until
from yolopool.server.limits.message_shape import MAX_PLAIN_BYTES
from yolopool.status import error_from_rpc
from yolopool.v1 import detection_pb2, detection_pb2_grpc
from yolopool.vocabulary import MAX_MESSAGE_BYTES

pytestmark = pytest.mark.e2e

PATIENCE_S, SLOW, CONNECTIONS, CALLS = 2.0, 1000, 1100, 8
MIB = 1024**2
BUDGET, MAX_MEMORY = 30 * MIB, 200 * MIB
DETECT = "/yolopool.v1.DetectionService/Detect"
STREAM = "/yolopool.v1.DetectionService/DetectStream"
RAW = {"request_serializer": None, "response_deserializer": None}
IMAGE = b"\xff\xd8\xff" + bytes(100_000)


@dataclass(frozen=True, slots=True)
class Server:
    address: str
    process: psutil.Process

    def connect(self) -> socket.socket:
        host, _, port = self.address.rpartition(":")
        return socket.create_connection((host, int(port)), timeout=60)

    def channel(self) -> grpc.Channel:
        return grpc.insecure_channel(
            self.address,
            [("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", -1)],
        )

    def reason(self, image: bytes = IMAGE, channel: grpc.Channel | None = None) -> str:
        """Why a Detect of a model that there is not was refused."""
        with contextlib.ExitStack() as stack:
            channel = channel or stack.enter_context(self.channel())
            stub = detection_pb2_grpc.DetectionServiceStub(channel)
            with pytest.raises(grpc.RpcError) as caught:
                stub.Detect(
                    detection_pb2.DetectRequest(model="none", encoded=image),
                    timeout=60,
                    wait_for_ready=True,
                )
        return error_from_rpc(caught.value).reason

    def refusal(self, path: str, message: bytes, **more: Any) -> tuple[str, str]:
        """Code and reason of a call with these bytes as its message."""
        with self.channel() as channel:
            call: Any = channel.unary_unary(path, **RAW)
            with pytest.raises(grpc.RpcError) as caught:
                call(message, timeout=60, **more)
        error = error_from_rpc(caught.value)
        return error.code, error.reason

    @property
    def rss(self) -> int:
        return int(self.process.memory_info().rss)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with control_plane(
        tmp_path_factory.mktemp("plane"),
        grpc_max_connections=CONNECTIONS,
        grpc_max_calls=CALLS,
        grpc_handshake_timeout_s=PATIENCE_S,
        grpc_message_timeout_s=PATIENCE_S,
        grpc_idle_s=PATIENCE_S,
        max_request_memory_bytes=BUDGET,
        max_memory_bytes=MAX_MEMORY,
    ) as (listening, process):
        one = Server(listening["grpc"], process)
        until("the registry was read", lambda: one.reason() == "MODEL_NOT_FOUND")
        yield one


# --- slow callers ---------------------------------------------------------------------------------

CALL = h2.opened() + h2.headers(DETECT)


@pytest.mark.matrix(sample=2)
@pytest.mark.parametrize(
    "begin",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(h2.PREFACE[:11], id="half a preface"),
        pytest.param(h2.PREFACE, id="no settings"),
        pytest.param(h2.opened(), id="no call"),
        pytest.param(CALL[:-20], id="half of the headers"),
        pytest.param(CALL, id="no message"),
        pytest.param(CALL + h2.part_of_message(100_000, b"x" * 10_000), id="half a message"),
        pytest.param(h2.opened() + h2.headers(STREAM), id="a stream that is not opened"),
    ],
)
def test_slow_callers_stop_nobody_and_are_cut_off(server: Server, begin: bytes) -> None:
    files = server.process.num_fds()
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(server.connect()) for _ in range(SLOW)]
        for connection in slow:
            connection.sendall(begin)
        assert server.reason() == "MODEL_NOT_FOUND"
        # All are cut off, although none of them closed its end.
        until("the last is cut off", lambda: server.process.num_fds() <= files + 5, limit_s=60)
    assert server.reason() == "MODEL_NOT_FOUND"


def test_a_peer_that_pings_too_often_is_cut_off(server: Server) -> None:
    with server.connect() as connection:
        connection.sendall(h2.opened() + h2.ping() * 10)
        received = b""
        with contextlib.suppress(ConnectionError):
            while part := connection.recv(65536):
                received += part
    assert b"too_many_pings" in received


# --- too much -------------------------------------------------------------------------------------


def test_more_calls_of_a_connection_wait_and_are_served(server: Server) -> None:
    with server.channel() as channel:
        health: Any = channel.unary_stream("/grpc.health.v1.Health/Watch", **RAW)
        open_ = [health(b"", timeout=60) for _ in range(CALLS - 1)]
        for call in open_:
            next(call)
        assert server.reason(channel=channel) == "MODEL_NOT_FOUND"  # the last place
        open_.append(health(b"", timeout=60))
        next(open_[-1])
        stub = detection_pb2_grpc.DetectionServiceStub(channel)
        request = detection_pb2.DetectRequest(model="none", encoded=IMAGE)
        waiting = stub.Detect.future(request, timeout=60)
        with pytest.raises(grpc.FutureTimeoutError):
            waiting.result(timeout=0.3)
        open_[0].cancel()
        error: Any = waiting.exception()
        assert error_from_rpc(error).reason == "MODEL_NOT_FOUND"


def test_connections_beyond_the_limit_are_closed_and_others_served(server: Server) -> None:
    with server.channel() as channel, contextlib.ExitStack() as stack:
        assert server.reason(channel=channel) == "MODEL_NOT_FOUND"
        for _ in range(CONNECTIONS):
            stack.enter_context(server.connect())
        with server.connect() as late:
            late.settimeout(60)
            with contextlib.suppress(ConnectionError):
                assert late.recv(1) == b""
        assert server.reason(channel=channel) == "MODEL_NOT_FOUND"
    until("there is room again", lambda: server.reason() == "MODEL_NOT_FOUND")


def test_metadata_is_bounded(server: Server) -> None:
    assert (
        server.refusal(DETECT, b"", metadata=[("x", "y" * 20_000)])[1] == "INVALID_MODEL_REFERENCE"
    )
    refused = server.refusal(DETECT, b"", metadata=[("x", "y" * 40_000)])
    assert refused == ("RESOURCE_EXHAUSTED", "MESSAGE_TOO_LARGE")


def test_a_message_that_is_too_large_or_no_message_says_so(server: Server) -> None:
    too_large = bytes(MAX_MESSAGE_BYTES + 1)
    assert server.refusal(DETECT, too_large) == ("RESOURCE_EXHAUSTED", "MESSAGE_TOO_LARGE")
    # Of a method without an image less is taken: 4 MiB and a byte of an unknown field.
    plain = b"\x7a\x81\x80\x80\x02" + bytes(MAX_PLAIN_BYTES + 1)
    said = server.refusal("/yolopool.v1.ModelService/ListModels", plain)
    assert said == ("RESOURCE_EXHAUSTED", "MESSAGE_TOO_LARGE")
    assert server.refusal(DETECT, b"no message") == ("INVALID_ARGUMENT", "INVALID_MESSAGE")


def test_a_packed_message_is_refused_before_it_is_unpacked(server: Server) -> None:
    """Packed, 400 MB of zeros are 400 KB."""
    packed = gzip.compress(bytes(400_000_000), 9)
    before = server.rss
    with server.connect() as connection:
        opening = h2.opened() + h2.headers(DETECT, **{"grpc-encoding": "gzip"})
        connection.sendall(opening + h2.frame(0, 0, 1, b"\1" + len(packed).to_bytes(4, "big")))
        for at in range(0, len(packed), 16384):
            with contextlib.suppress(ConnectionError):
                connection.sendall(h2.more(packed[at : at + 16384]))
        assert server.reason() == "MODEL_NOT_FOUND"
    assert server.rss - before < 100 * MIB


def test_messages_that_never_end_do_not_fill_the_memory(server: Server) -> None:
    """What has come of them is kept by gRPC and is in no budget: it would be 3 GB here."""
    most, size = 0, 100_000_000
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(server.connect()) for _ in range(60)]
        senders = [h2.Sender(one, DETECT, size) for one in connections]
        for _ in range(40):
            for sender in senders:
                with contextlib.suppress(OSError):
                    if sender.sent < size // 2:
                        sender.go_on()
            most = max(most, server.rss)
            time.sleep(0.03)
        assert server.reason() == "MODEL_NOT_FOUND"
        until("their memory is given back", lambda: server.rss < MAX_MEMORY)
    assert most < 5 * MAX_MEMORY


def test_a_caller_who_takes_no_answer_is_cut_off(server: Server) -> None:
    files = server.process.num_fds()
    with server.connect() as connection:
        # It has a window of no byte for the answer.
        windowless = h2.PREFACE + h2.frame(4, 0, 0, b"\0\4" + bytes(4))
        message = b"\0" + bytes(4)
        reflection = "/yolopool.v1.FleetService/GetFleet"
        connection.sendall(windowless + h2.headers(reflection) + h2.frame(0, 1, 1, message))
        until("it is cut off", lambda: server.process.num_fds() <= files)
    assert server.reason() == "MODEL_NOT_FOUND"
