"""What a replica is expected to take of a device."""

import pytest

from worker.packs.pack import Pack
from worker.replicas.replica import Assignment, Replica
from yolopool.server.state_machine import Life
from yolopool.v1 import types_pb2
from yolopool.v1.pack_pb2 import PackManifest
from yolopool.v1.worker_pb2 import PackLocation
from yolopool.vocabulary import INPUT_BYTES_PER_PIXEL, ReplicaState

WEIGHTS, ACTIVATIONS = 1000, 2_000_000
# Bytes of a pixel in a pass: two of activations, and the input.
PIXEL = 2 + INPUT_BYTES_PER_PIXEL


def replica(backend: str, test: int, fixed_batch: int = 0) -> Replica:
    order = Assignment(
        "a@1", "a", 1, types_pb2.VersionSettings(), PackLocation(), "fp32", 4, pinned=False
    )
    made = Replica(order, Life("a@1", ReplicaState.WARM), pinned=False)
    manifest = PackManifest(
        backend=backend, weights_bytes=WEIGHTS, activation_bytes_per_megapixel=ACTIVATIONS
    )
    manifest.self_test.height = manifest.self_test.width = test
    manifest.onnx.batch = fixed_batch
    made.pack, made.shape = Pack("digest", manifest, b"", ()), (32, 32)
    made.limit_batch(4)
    return made


@pytest.mark.parametrize(
    ("test", "fixed_batch", "pixels"),
    [(0, 0, 32 * 32), (16, 0, 32 * 32), (64, 0, 64 * 64), (64, 2, 2 * 64 * 64)],
)
def test_a_pass_of_a_graph_that_is_loading_comes_beside_those_of_others(
    test: int, fixed_batch: int, pixels: int
) -> None:
    claim = replica("onnx", test, fixed_batch).expected()
    assert claim.weights_bytes == WEIGHTS
    assert claim.workspace_bytes == 4 * 32 * 32 * PIXEL
    # The file and the runtime's copy of it, and the larger of the first pass and the self-test.
    assert claim.transient_bytes == 2 * WEIGHTS + pixels * PIXEL


def test_what_was_measured_holds_and_the_pass_still_comes() -> None:
    measured = replica("onnx", 0)
    measured.measured = types_pb2.Footprint(
        weights_bytes=7, workspace_bytes=8, private_bytes=9, max_batch=4
    )
    claim = measured.expected()
    assert (claim.weights_bytes, claim.workspace_bytes, claim.private_bytes) == (7, 8, 9)
    assert claim.transient_bytes == 2 * WEIGHTS + 32 * 32 * PIXEL


def test_other_models_run_their_first_pass_in_their_turn() -> None:
    assert replica("torch", 64).expected().transient_bytes == 0
