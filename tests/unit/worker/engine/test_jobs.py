"""Jobs: urgent ones at once and in order, idle ones behind batches but not for ever."""

from typing import Any, cast

from worker.concurrency.reply import Reply
from worker.engine.jobs import PATIENCE, Job, JobQueue, Turn


class Kept:
    """A reply that keeps its answer."""

    def __init__(self) -> None:
        self.answers: list[tuple[Any, Exception | None]] = []

    def __call__(self, answer: Any, error: Exception | None) -> None:
        self.answers.append((answer, error))


def a_job(call: Any = None) -> tuple[Job, Kept]:
    kept = Kept()
    return Job(call or (lambda: None), cast(Reply[Any], kept)), kept


def test_jobs_come_in_order_by_turn() -> None:
    jobs = JobQueue()
    (first, _), (second, _), (fair, _), (idle, _) = a_job(), a_job(), a_job(), a_job()
    jobs.add(idle, Turn.IDLE)
    jobs.add(fair, Turn.FAIR)
    jobs.add(first)
    jobs.add(second)
    assert jobs.has_urgent
    assert [jobs.pop_urgent(), jobs.pop_urgent(), jobs.pop_urgent()] == [first, second, None]
    assert [jobs.pop_idle(0.0), jobs.pop_idle(0.0), jobs.pop_idle(0.0)] == [fair, idle, None]


def test_an_idle_job_is_overtaken_by_so_many_batches() -> None:
    jobs = JobQueue()
    for _ in range(PATIENCE):
        jobs.batch_went_first(0.0)  # nobody waits yet
    (first, _), (second, _) = a_job(), a_job()
    jobs.add(first, Turn.IDLE)
    jobs.add(second, Turn.IDLE)
    for _ in range(PATIENCE):
        assert jobs.pop_overdue(0.0) is None
        jobs.batch_went_first(0.0)
    assert jobs.is_patience_over(0.0)
    assert jobs.pop_overdue(0.0) is first
    assert jobs.pop_overdue(0.0) is None, "the next waits anew"
    assert jobs.drain() == (second,)
    assert jobs.drain() == ()


def test_a_fair_job_is_overtaken_for_as_long_as_the_last_one_took() -> None:
    jobs = JobQueue()
    given = [a_job()[0] for _ in range(4)]
    for job in given:
        jobs.add(job, Turn.FAIR)
    assert jobs.pop_overdue(0.0) is None, "not before a batch"
    jobs.batch_went_first(0.0)
    assert jobs.pop_overdue(5.0) is given[0]
    assert jobs.pop_overdue(6.0) is None
    jobs.batch_went_first(7.0)  # the job took two seconds
    assert jobs.pop_overdue(8.9) is None
    jobs.batch_went_first(8.9)
    assert jobs.pop_overdue(9.0) is given[1]
    jobs.batch_went_first(9.5)  # half a second
    assert jobs.pop_overdue(20.0) is given[2], "a batch took longer"
    assert jobs.pop_idle(21.0) is given[3], "no batch can run"


def test_a_job_answers_or_tells_its_error() -> None:
    done, answer = a_job(lambda: 3)
    done.run()
    error = ValueError("injected")

    def fails() -> None:
        raise error

    failed, told = a_job(fails)
    failed.run()
    assert (answer.answers, told.answers) == ([(3, None)], [(None, error)])
