"""Which image crashes workers, from what several of them had in flight."""

from hypothesis import given
from hypothesis import strategies as st

from control_plane.routing.poison import REPORT_S, Image, Poison
from control_plane.types.version import VersionKey

KEEP_S = 600.0
VERSION, OTHER = VersionKey("m", 1), VersionKey("m", 2)


def image(digest: str) -> Image:
    return Image(VERSION, digest)


def lose(poison: Poison, incarnation: str, now: float, **images: str) -> None:
    for request, digest in images.items():
        poison.lost(incarnation, request, image(digest), now)


def test_no_image_is_hashed_before_a_worker_is_lost() -> None:
    assert Poison(KEEP_S).is_empty(0.0)


def test_the_image_that_two_exits_have_in_common_is_guilty() -> None:
    poison = Poison(KEEP_S)
    lose(poison, "one", 0.0, p="poison", a="cat", b="dog")
    poison.exited("one", frozenset("pab"), 0.1)
    lose(poison, "two", 1.0, p="poison", a="cat", n="fish")
    assert poison.culprit(image("poison")) is None
    # The cat waited in the queue, the fish was new.
    poison.exited("two", frozenset("pn"), 1.1)
    assert poison.culprit(image("poison")) == image("poison")
    assert not poison.is_implicated("two", "a")


def test_two_images_in_common_prove_nothing() -> None:
    poison = Poison(KEEP_S)
    for incarnation in ("one", "two"):
        lose(poison, incarnation, 0.0, p="poison", a="cat")
        poison.exited(incarnation, frozenset("pa"), 0.0)
    assert poison.culprit(image("poison")) is None
    lose(poison, "three", 1.0, p="poison")
    poison.exited("three", frozenset("p"), 1.0)
    assert poison.culprit(image("poison")) == image("poison")


def test_the_first_exit_may_be_reported_after_the_second() -> None:
    poison = Poison(KEEP_S)
    lose(poison, "one", 0.0, p="poison", a="cat")
    lose(poison, "two", 0.2, p="poison")
    poison.exited("two", frozenset("p"), 0.3)
    assert poison.is_recurrent(image("poison"))
    assert not poison.is_reported(image("poison"))
    assert poison.culprit(image("poison")) is None
    poison.exited("one", frozenset("pa"), 0.5)
    assert poison.is_reported(image("poison"))
    assert poison.culprit(image("poison")) == image("poison")


def test_an_exit_that_a_conviction_explains_counts_against_no_other_image() -> None:
    poison = Poison(KEEP_S)
    lose(poison, "one", 0.0, p="poison", a="cat")
    poison.exited("one", frozenset("pa"), 0.1)
    lose(poison, "two", 0.2, q="poison", a="cat")
    poison.exited("two", frozenset("qa"), 0.3)
    lose(poison, "three", 0.4, p="poison")
    poison.exited("three", frozenset("p"), 0.5)
    poison.quarantine_image(image("poison"), 600.0)
    assert not poison.is_implicated("two", "a")
    assert poison.culprit(image("cat")) is None


def test_one_exit_is_no_proof_even_with_two_requests() -> None:
    poison = Poison(KEEP_S)
    lose(poison, "one", 0.0, p="poison", q="poison")
    poison.exited("one", frozenset("pq"), 0.0)
    assert poison.culprit(image("poison")) is None


def test_an_answer_acquits() -> None:
    poison = Poison(KEEP_S)
    lose(poison, "one", 0.0, a="cat")
    poison.exited("one", frozenset("a"), 0.0)
    assert poison.is_suspect(image("cat"))
    poison.answered(image("cat"))
    assert poison.is_empty(0.0)


def test_a_process_stopped_from_outside_implicates_no_image() -> None:
    poison = Poison(KEEP_S)
    lose(poison, "one", 0.0, a="cat")
    poison.exited("one", frozenset(), 0.1)
    lose(poison, "one", 0.2, b="dog")  # noted after the report
    assert poison.is_empty(0.2)


def test_an_image_that_crashes_two_io_processes_of_one_worker_is_guilty() -> None:
    poison = Poison(KEEP_S)
    # The report may come before or after the lost requests are noted here.
    lose(poison, "one", 0.0, p="poison", a="cat", n="fish")
    poison.exited("one", frozenset("pa"), 0.1, io_process="io-1")
    assert poison.culprit(image("poison")) is None
    assert not poison.is_reported(image("fish"))
    poison.answered(image("cat"))
    poison.exited("one", frozenset("q"), 1.0, io_process="io-2")
    lose(poison, "one", 1.1, q="poison")
    assert poison.is_reported(image("poison"))
    assert poison.culprit(image("poison")) == image("poison")
    assert poison.is_recurrent(image("poison"))
    # The worker process itself may end, too.
    poison.exited("one", frozenset("n"), 2.0)
    assert poison.is_reported(image("fish"))
    assert poison.is_suspect(image("fish"))


def test_without_an_exit_report_no_image_is_implicated_for_long() -> None:
    poison = Poison(KEEP_S)
    lose(poison, "one", 0.0, a="cat")
    assert not poison.is_empty(REPORT_S - 0.1)
    assert poison.is_empty(REPORT_S)


def test_quarantine_ends() -> None:
    poison = Poison(KEEP_S)
    poison.quarantine(image("poison"), 10.0)
    assert poison.refused_for_s(image("poison"), 4.0) == 6.0
    assert poison.refused_for_s(image("cat"), 4.0) == 0.0
    assert not poison.is_empty(9.9)
    assert poison.is_empty(10.0)


def test_an_image_is_convicted_for_one_version_alone() -> None:
    poison = Poison(KEEP_S)
    poison.lost("one", "p", Image(VERSION, "cat"), 0.0)
    poison.exited("one", frozenset("p"), 0.0)
    poison.lost("two", "q", Image(OTHER, "cat"), 1.0)
    poison.exited("two", frozenset("q"), 1.0)
    assert poison.culprit(Image(OTHER, "cat")) is None
    assert poison.culprit(Image(VERSION, "cat")) is None
    poison.quarantine(Image(VERSION, "cat"), 10.0)
    assert poison.refused_for_s(Image(OTHER, "cat"), 4.0) == 0.0


def test_a_version_with_two_convicted_images_is_at_fault() -> None:
    poison = Poison(KEEP_S)
    assert not poison.quarantine_image(image("cat"), 600.0)
    assert not poison.quarantine_image(image("cat"), 600.0)
    assert not poison.quarantine_image(Image(OTHER, "dog"), 600.0)
    assert poison.quarantine_image(image("dog"), 600.0)


def test_an_answer_between_two_convictions_clears_the_version() -> None:
    poison = Poison(KEEP_S)
    assert not poison.quarantine_image(image("cat"), 600.0)
    poison.works(VERSION)
    assert not poison.quarantine_image(image("dog"), 600.0)
    poison.answered(image("fish"))  # the answer of a suspect
    assert not poison.quarantine_image(image("bird"), 600.0)


def test_old_convictions_do_not_count() -> None:
    poison = Poison(KEEP_S)
    assert not poison.quarantine_image(image("cat"), 600.0)
    assert poison.is_empty(600.0)
    assert not poison.quarantine_image(image("dog"), 1200.0)


IMAGES = st.lists(st.sampled_from("abcdefgh"), max_size=8)


@given(crashes=st.lists(st.tuples(IMAGES, st.sampled_from("abcdefgh"), IMAGES), max_size=8))
def test_the_innocent_are_never_convicted(
    crashes: list[tuple[list[str], str, list[str]]],
) -> None:
    """One image is poison: each exit has it in flight, with any images that were not lost before,
    and at most one suspect. Other images that were lost waited in the queue.
    """
    poison, known = Poison(KEEP_S), {"poison"}
    for number, (new, suspect, waiting) in enumerate(crashes):
        incarnation, now = str(number), float(number)
        # From the second exit on, the poison itself is the suspect.
        in_flight = {name for name in new if name not in known} | {"poison"}
        if number == 0:
            in_flight.add(suspect)
        for name in {*in_flight, *waiting}:
            poison.lost(incarnation, name, image(name), now)
        poison.exited(incarnation, frozenset(in_flight), now)
        known |= in_flight
        for name in known | {*waiting}:
            assert poison.culprit(image(name)) in (None, image("poison"))
        assert poison.culprit(image("poison")) == (image("poison") if number else None)
