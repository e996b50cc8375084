"""The client's side of a stream: by hand, and against every order of events, losses included."""

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from yolopool.client.streams.outbox import SETTLED_S, Outbox


def outbox(newest_only: bool = False, window: int = 4) -> Outbox[str]:
    return Outbox(newest_only, window)


def take(one: Outbox[str], *frames: str) -> None:
    for frame in frames:
        assert one.may_take
        one.take(frame, 0.0)


def send_all(one: Outbox[str]) -> list[int]:
    sent = []
    while (outgoing := one.next(0.0)) is not None:
        sent.append(outgoing.number)
    return sent


def test_no_more_is_taken_than_the_window() -> None:
    one = outbox(window=2)
    take(one, "a", "b")
    assert not one.may_take
    assert send_all(one) == [0, 1]
    assert not one.may_take
    assert one.answered(0) is not None
    assert one.may_take


def test_a_frame_without_an_answer_is_sent_again_in_its_place() -> None:
    one = outbox()
    take(one, "a", "b", "c")
    assert send_all(one) == [0, 1, 2]
    assert one.answered(1) is not None
    one.lost()
    take(one, "d")
    assert send_all(one) == [0, 2, 3]
    assert one.answered(1) is None  # it was answered before


def test_a_busy_reader_finds_one_answer_and_no_heap_of_old_ones() -> None:
    one = outbox(newest_only=True)
    take(one, "a")
    assert send_all(one) == [0]  # for him to find
    take(one, "b", "c", "d")
    assert send_all(one) == []
    assert one.answered(0) is not None
    assert send_all(one) == [3]
    one.reader_waits_since = -1.0
    take(one, "e")
    assert send_all(one) == [4]


def test_a_reader_who_only_fetches_what_is_there_does_not_wait() -> None:
    one = outbox(newest_only=True)
    take(one, "a")
    send_all(one)
    take(one, "b")
    one.reader_waits_since = 0.0  # the answer to "a" is there, and he is about to take it
    assert send_all(one) == []
    assert one.again_s(0.0) == SETTLED_S
    assert one.next(SETTLED_S) is not None
    assert one.again_s(SETTLED_S) is None


def test_no_more_than_a_window_grows_old_on_a_slow_wire() -> None:
    one = outbox(newest_only=True, window=2)
    one.reader_waits_since = -1.0
    sent = []
    for frame in "abcde":
        take(one, frame)
        sent += send_all(one)
    assert sent == [0, 1]
    one.received(1, [0])
    assert send_all(one) == [4]  # the newest
    assert one.answered(4) is not None
    assert one.dropped(4) == 4


def test_of_live_frames_only_the_newest_is_sent_again() -> None:
    one = outbox(newest_only=True)
    one.reader_waits_since = -1.0
    take(one, "a")
    send_all(one)
    take(one, "b")
    send_all(one)
    one.lost()
    assert send_all(one) == [1]
    one.lost()
    take(one, "c")
    assert send_all(one) == [2]


def test_it_is_done_when_all_is_answered() -> None:
    one = outbox()
    take(one, "a")
    one.ended = True
    states = [(one.sent_all, one.done)]
    for step in (lambda: send_all(one), one.lost, lambda: send_all(one), lambda: one.answered(0)):
        step()
        states.append((one.sent_all, one.done))
    assert states == [
        (False, False), (True, False), (False, False), (True, False), (True, True),
    ]  # fmt: skip


class AnyOrder(RuleBasedStateMachine):
    """A server that keeps its promise, over connections that are lost at any time."""

    @initialize(newest_only=st.booleans(), window=st.integers(1, 5))
    def open(self, newest_only: bool, window: int) -> None:
        self.one: Outbox[int] = Outbox(newest_only, window)
        self.taken = 0
        self.at_server: list[int] = []
        self.received = 0
        self.got: list[int] = []

    @precondition(lambda self: self.one.may_take)
    @rule()
    def take(self) -> None:
        self.one.take(self.taken, 0.0)
        self.taken += 1

    @rule(waits=st.booleans())
    def reader(self, waits: bool) -> None:
        self.one.reader_waits_since = -1.0 if waits else None

    @rule()
    def send(self) -> None:
        outgoing = self.one.next(0.0)
        if outgoing is None:
            return
        assert outgoing.number == outgoing.frame
        self.received += 1
        if self.one.newest_only:
            assert outgoing.number == self.taken - 1
            del self.at_server[1:]  # one on its way, and the newest
        self.at_server.append(outgoing.number)

    @precondition(lambda self: self.at_server)
    @rule()
    def answer(self) -> None:
        number = self.at_server.pop(0)
        before = self.got[-1] if self.got else -1
        assert self.one.answered(number) is not None
        self.got.append(number)
        self.tell()
        if self.one.newest_only:
            assert self.one.dropped(number) == number + 1 - len(self.got)
        else:
            assert self.one.dropped(number) == 0
            assert number == before + 1

    @rule()
    def tell(self) -> None:
        self.one.received(self.received, self.at_server)

    @rule()
    def lose(self) -> None:
        self.one.lost()
        self.at_server.clear()
        self.received = 0

    @invariant()
    def little_is_held(self) -> None:
        held = len(self.one._waiting) + len(self.one._sent)
        # On the wire, at the server, and the newest here.
        assert held <= self.one.window + (3 if self.one.newest_only else 0)
        assert self.got == sorted(set(self.got))

    def teardown(self) -> None:
        """However it went, the frames that are left are answered, the newest at least."""
        if not hasattr(self, "one"):
            return
        self.one.ended, self.one.reader_waits_since = True, -1.0
        for _ in range(3 * self.taken + 3):
            self.tell()
            self.send()
            if self.at_server:
                self.answer()
        assert self.one.done
        assert self.taken == 0 or self.got[-1] == self.taken - 1


TestAnyOrder = AnyOrder.TestCase
