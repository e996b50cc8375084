"""What a control plane notes of answers: which are compared with which, and what is kept."""

from dataclasses import replace

import numpy as np

from control_plane.rollout.gathered import (
    IMAGES_KEPT,
    MAX_IMAGE_BYTES,
    MAX_KEPT_BYTES,
    Answer,
    Gathered,
    found_in,
    topic_of,
)
from control_plane.types.rollout.progress import Rollout, RolloutPlan
from yolopool.evaluation.agreement.matching import MAX_OBJECTS, RENAMED
from yolopool.v1 import detection_pb2, types_pb2

ONE = Rollout("r", 3, 4, RolloutPlan(keep_images=True), "ann", "", 0.0, 0.0)
NAMES = ("car", "bus")


def reply(ms: float = 10.0, count: int = 1, right: float = 0.0) -> detection_pb2.DetectResponse:
    return detection_pb2.DetectResponse(
        detections=[
            detection_pb2.Detection(
                class_id=1,
                class_name="bus",
                confidence=0.75,
                box=types_pb2.Box(
                    x_min=10 + right, y_min=100 * place, x_max=60 + right, y_max=100 * place + 50
                ),
            )
            for place in range(count)
        ],
        image_width=640,
        image_height=480,
        timing=detection_pb2.Timing(
            queue_ms=500, load_wait_ms=70, inference_ms=ms, decode_ms=1, postprocess_ms=0.5
        ),
    )


def test_a_canary_answer_is_compared_with_the_newest_stable_one_and_each_once() -> None:
    one = Gathered().of(ONE, NAMES)
    one.live(4, Answer(False, reply()))  # nothing to compare it with
    one.live(3, Answer(False, reply(5.0)))
    one.live(3, Answer(False, reply(10.0)))
    assert one.evidence.requests == 0
    one.live(4, Answer(True))
    one.live(4, Answer(False, reply()))
    assert one.evidence.requests == 1
    assert one.evidence.failed.tolist() == [0, 1]
    assert one.evidence.images == 0  # they are of other images


def test_time_is_the_worker_s_own_without_waiting() -> None:
    assert Answer(False, reply(10.0)).ms == 11.5
    assert Answer(True).ms == 0.0


def test_answers_about_one_image_are_compared_box_by_box() -> None:
    one = Gathered().of(ONE, NAMES)
    one.beside(Answer(False, reply(count=2)), Answer(False, reply(count=1)), b"jpeg")
    one.beside(Answer(False, reply()), Answer(True), b"jpeg")
    assert (one.evidence.requests, one.evidence.images) == (2, 1)
    assert one.evidence.objects[0].sum() == 2
    assert one.evidence.objects[1].sum() == 1
    assert [kept.encoded for kept in one.images] == [b"jpeg"]


def test_only_the_worst_images_are_kept_and_only_if_allowed() -> None:
    one = Gathered().of(ONE, NAMES)
    for count in range(30):
        one.beside(Answer(False, reply(count=count)), Answer(False, reply(count=1)), b"%d" % count)
    assert len(one.images) == IMAGES_KEPT
    sizes = [kept.size for kept in one.images]
    assert sizes == sorted(sizes, reverse=True)
    assert one.images[0].encoded == b"0"
    one.beside(Answer(False, reply(0)), Answer(False, reply(9)), b"x" * (MAX_IMAGE_BYTES + 1))
    assert max(len(kept.encoded) for kept in one.images) < 10
    private = Gathered().of(replace(ONE, plan=RolloutPlan()), NAMES)
    private.beside(Answer(False, reply(count=2)), Answer(False, reply()), b"jpeg")
    assert not private.images


def test_images_that_both_agree_on_are_not_kept() -> None:
    one = Gathered().of(ONE, NAMES)
    one.beside(Answer(False, reply()), Answer(False, reply()), b"jpeg")
    assert not one.images


def test_each_step_begins_anew_and_keeps_its_images() -> None:
    gathered = Gathered()
    first = gathered.of(ONE, NAMES)
    first.beside(Answer(False, reply(count=2)), Answer(False, reply()), b"jpeg")
    assert gathered.of(ONE) is first
    second = gathered.of(replace(ONE, step=1), NAMES)
    assert second.evidence.requests == 0
    assert len(second.images) == 1
    assert topic_of(ONE) != topic_of(replace(ONE, step=1))


def test_rollouts_that_no_alias_has_are_forgotten() -> None:
    gathered = Gathered()
    gathered.of(ONE)
    gathered.of(replace(ONE, id="other"))
    gathered.keep_only(frozenset({"other"}))
    assert gathered.look("r") is None
    assert gathered.look("other") is not None


def test_of_many_rollouts_the_newest_keep_their_images() -> None:
    gathered, most = Gathered(), MAX_KEPT_BYTES // (IMAGES_KEPT * MAX_IMAGE_BYTES)
    ids = [f"r{number}" for number in range(most + 2)]
    for id_ in ids:
        one = gathered.of(replace(ONE, id=id_), NAMES)
        for _ in range(IMAGES_KEPT):
            image = bytes(MAX_IMAGE_BYTES)
            one.beside(Answer(False, reply()), Answer(False, reply(right=9.0)), image)
    gathered.keep_only(frozenset(ids))
    kept = [id_ for id_ in ids if (held := gathered.look(id_)) and held.images]
    assert kept == ids[-most:]


def test_classes_go_by_id_and_name() -> None:
    found = found_in(reply(), NAMES)
    assert found.classes.tolist() == [1]
    assert found_in(reply(), ("car", "lorry")).classes.tolist() == [RENAMED + 1]
    assert found.boxes.tolist() == [[10, 0, 60, 50]]


def test_of_many_objects_the_most_confident_are_compared() -> None:
    assert len(found_in(reply(count=MAX_OBJECTS + 50), NAMES)) == MAX_OBJECTS


def test_the_class_of_an_image_is_one_object_as_large_as_it() -> None:
    answer = detection_pb2.DetectResponse(image_width=64, image_height=32, task="classify")
    answer.classification.top.add(class_id=1, class_name="bus", probability=0.5)
    answer.classification.top.add(class_id=0, class_name="car", probability=0.25)
    found = found_in(answer, NAMES)
    assert found.boxes.tolist() == [[0, 0, 64, 32]]
    assert np.allclose(found.scores, [0.5])
    assert found.classes.tolist() == [1]
