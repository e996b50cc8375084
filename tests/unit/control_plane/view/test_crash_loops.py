"""Who is in a crash loop, and when that is over."""

from control_plane.types.worker import WorkerExit
from control_plane.view.crash_loops import MAX_WORKERS, STEADY_S, CrashLoops


def an_exit(worker: str = "one", in_a_row: int = 1, restart_in_s: float = 4.0) -> WorkerExit:
    said = "starting\nSegmentation fault\n\n"
    return WorkerExit(
        worker, "sim:0", "sim", "signal SIGSEGV", said, in_a_row, 0.5, restart_in_s, 0.0
    )


def test_three_in_a_row_are_a_loop() -> None:
    assert [an_exit(in_a_row=count).is_loop for count in (1, 2, 3, 9)] == [False, False, True, True]


def test_it_is_over_when_a_process_stayed() -> None:
    exits = CrashLoops()
    exits.note(an_exit(), 0.0)
    assert set(exits.current(4.0 + STEADY_S - 0.1)) == {"one"}
    assert not exits.current(4.0 + STEADY_S)


def test_the_last_exit_counts_and_the_oldest_workers_are_forgotten() -> None:
    exits = CrashLoops()
    for number in range(MAX_WORKERS + 1):
        exits.note(an_exit(str(number)), 0.0)
    exits.note(an_exit("1", in_a_row=2), 0.0)
    current = exits.current(0.0)
    assert len(current) == MAX_WORKERS
    assert "0" not in current
    assert current["1"].in_a_row == 2


def test_it_says_how_and_the_last_line() -> None:
    says = str(an_exit(in_a_row=3))
    assert says.startswith("signal SIGSEGV after 0.5 s, 3 in a row")
    assert says.endswith("Segmentation fault")
