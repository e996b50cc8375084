"""Which image ends the workers that take it, by what several of them had in hand."""

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


def test_nothing_is_looked_at_while_nobody_was_lost() -> None:
    assert Poison(KEEP_S).is_empty(0.0)


def test_what_two_exits_have_in_common_is_guilty() -> None:
    poison = Poison(KEEP_S)
    lose(poison, "one", 0.0, p="poison", a="cat", b="dog")
    poison.exited("one", frozenset("pab"), 0.1)
    lose(poison, "two", 1.0, p="poison", a="cat", n="fish")
    assert poison.culprit(image("poison")) is None
    # The cat waited for its turn, the fish was new.
    poison.exited("two", frozenset("pn"), 1.1)
    assert poison.culprit(image("poison")) == image("poison")
    assert not poison.is_implicated("two", "a")


def test_of_two_in_common_nobody_can_tell() -> None:
    poison = Poison(KEEP_S)
    for incarnation in ("one", "two"):
        lose(poison, incarnation, 0.0, p="poison", a="cat")
        poison.exited(incarnation, frozenset("pa"), 0.0)
    assert poison.culprit(image("poison")) is None
    lose(poison, "three", 1.0, p="poison")
    poison.exited("three", frozenset("p"), 1.0)
    assert poison.culprit(image("poison")) == image("poison")


def test_the_first_exit_may_be_told_after_the_second() -> None:
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


def test_what_a_convict_ended_is_held_against_no_other() -> None:
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


def test_one_exit_is_no_proof_whoever_sent_the_image() -> None:
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


def test_an_end_from_outside_implicates_nobody() -> None:
    poison = Poison(KEEP_S)
    lose(poison, "one", 0.0, a="cat")
    poison.exited("one", frozenset(), 0.1)
    lose(poison, "one", 0.2, b="dog")  # told later
    assert poison.is_empty(0.2)


def test_an_image_that_ends_io_processes_of_a_worker_that_lives_is_guilty() -> None:
    poison = Poison(KEEP_S)
    # Told before or after it is known here that they were lost.
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


def test_without_a_word_of_the_supervisor_nobody_is_implicated_for_long() -> None:
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


def test_what_is_poison_for_one_version_is_none_for_another() -> None:
    poison = Poison(KEEP_S)
    poison.lost("one", "p", Image(VERSION, "cat"), 0.0)
    poison.exited("one", frozenset("p"), 0.0)
    poison.lost("two", "q", Image(OTHER, "cat"), 1.0)
    poison.exited("two", frozenset("q"), 1.0)
    assert poison.culprit(Image(OTHER, "cat")) is None
    assert poison.culprit(Image(VERSION, "cat")) is None
    poison.quarantine(Image(VERSION, "cat"), 10.0)
    assert poison.refused_for_s(Image(OTHER, "cat"), 4.0) == 0.0


def test_a_version_whose_images_are_convicted_one_after_the_other_is_at_fault() -> None:
    poison = Poison(KEEP_S)
    assert not poison.quarantine_image(image("cat"), 600.0)
    assert not poison.quarantine_image(image("cat"), 600.0)
    assert not poison.quarantine_image(Image(OTHER, "dog"), 600.0)
    assert poison.quarantine_image(image("dog"), 600.0)


def test_an_answer_between_says_that_it_was_the_images() -> None:
    poison = Poison(KEEP_S)
    assert not poison.quarantine_image(image("cat"), 600.0)
    poison.works(VERSION)
    assert not poison.quarantine_image(image("dog"), 600.0)
    poison.answered(image("fish"))  # of a suspect
    assert not poison.quarantine_image(image("bird"), 600.0)


def test_convictions_of_long_ago_do_not_count() -> None:
    poison = Poison(KEEP_S)
    assert not poison.quarantine_image(image("cat"), 600.0)
    assert poison.is_empty(600.0)
    assert not poison.quarantine_image(image("dog"), 1200.0)


IMAGES = st.lists(st.sampled_from("abcdefgh"), max_size=8)


@given(crashes=st.lists(st.tuples(IMAGES, st.sampled_from("abcdefgh"), IMAGES), max_size=8))
def test_the_innocent_are_never_convicted(
    crashes: list[tuple[list[str], str, list[str]]],
) -> None:
    """One image is poison: each exit has it in hand, with any others that have not been lost
    before, and at most one suspect; whoever else was lost waited for its turn.
    """
    poison, known = Poison(KEEP_S), {"poison"}
    for number, (new, suspect, waiting) in enumerate(crashes):
        incarnation, now = str(number), float(number)
        # The poison itself is the suspect, from the second time on.
        in_hand = {one for one in new if one not in known} | {"poison"}
        if number == 0:
            in_hand.add(suspect)
        for one in {*in_hand, *waiting}:
            poison.lost(incarnation, one, image(one), now)
        poison.exited(incarnation, frozenset(in_hand), now)
        known |= in_hand
        for one in known | {*waiting}:
            assert poison.culprit(image(one)) in (None, image("poison"))
        assert poison.culprit(image("poison")) == (image("poison") if number else None)
