"""Random programs: senders, receivers, moves, forks, kills and handles, in any order, against a simple model.

A failure says the seed, the shape and the steps; ``python -m tests.lanes.programs SEED STEPS`` finds a smaller one.
"""

from __future__ import annotations

import random

import pytest

from tests.lanes.programs import Channel, Message, Part, Program, ProgramError, Shape, run_programs
from tests.support.start_methods import run


@pytest.mark.parametrize("typed", [True, False], ids=["typed", "pickled"])
@pytest.mark.parametrize("first", [0, 1000])
def test_programs_with_short_backlogs(first: int, typed: bool) -> None:
    """Broken by whatever no other test has thought of: loss, a message twice, order, ends of streams, leaks."""
    assert run("subprocess", run_programs, first, 3, Shape(60, typed, long_backlogs=False), timeout=50)


@pytest.mark.parametrize("typed", [True, False], ids=["typed", "pickled"])
def test_programs_with_long_backlogs(typed: bool) -> None:
    """Broken as the test above, where nothing limits what is unread."""
    assert run("subprocess", run_programs, 2000, 4, Shape(60, typed), timeout=50)


@pytest.mark.parametrize("typed", [True, False], ids=["typed", "pickled"])
def test_programs_with_bounded_channels(typed: bool) -> None:
    """Broken as the tests above, and by room that is not what the model says."""
    assert run("subprocess", run_programs, 3000, 4, Shape(60, typed, bounded=True), timeout=50)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("bounded", [False, True], ids=["unbounded", "bounded"])
@pytest.mark.parametrize("typed", [True, False], ids=["typed", "pickled"])
def test_many_programs(typed: bool, bounded: bool) -> None:
    """Broken as the tests above, by programs that are rarer. The seed is another one each time."""
    first = random.SystemRandom().randrange(1 << 30)
    assert run("subprocess", run_programs, first, 400, Shape(150, typed, bounded=bounded), timeout=3500)


# The model sees what it is there to see


def _model(rows: list[list[int]], after: list[int], doubtful: int | None = None) -> tuple[Program, Channel]:
    channel = Channel(0, None)
    part = Part([[Message(number, 1) for number in row] for row in rows])
    part.doubtful = [message for row in part.rows for message in row if message.number == doubtful]
    channel.unread = [part, *(Part([[Message(number, 1)]]) for number in after)]
    return Program(0, Shape()), channel


@pytest.mark.parametrize(
    ("came", "right"),
    [
        ([1, 2, 3, 4, 9], True),
        ([1, 3, 2, 4, 9], True),
        ([3, 4, 1, 2, 9], True),
        ([2, 1, 3, 4, 9], False),
        ([1, 2, 3, 9, 4], False),
        ([1, 2, 3, 3], False),
        ([1, 2, 3, 9], False),
        ([9], False),
        ([1, 2, 3, 4, 9, 9], False),
        ([1, 2, 3, 4, 9, 10], False),
    ],
)
def test_the_model_knows_what_may_come(came: list[int], right: bool) -> None:
    """Broken by a model that accepts what it should not."""
    program, channel = _model([[1, 2], [3, 4]], [9])
    if right:
        for number in came:
            program.pop(channel, number)
        assert program.empty(channel)
        return
    with pytest.raises(ProgramError):
        for number in came:
            program.pop(channel, number)


@pytest.mark.parametrize("came", [[1, 2, 3, 4, 9], [1, 3, 4, 9]])
def test_the_model_knows_what_a_killed_process_may_have_sent(came: list[int]) -> None:
    """Broken by a model that demands, or never takes, the last message of a process that was killed."""
    program, channel = _model([[1, 2], [3, 4]], [9], doubtful=2)
    assert channel.certain() == 4
    for number in came:
        assert not program.empty(channel)
        program.pop(channel, number)
    assert program.empty(channel)
    with pytest.raises(ProgramError):
        program.pop(channel, 2)
