"""Everything that is measured, in the order of the tables."""

from collections.abc import Sequence

from ipc_channel.bench.subject import Subject

__all__ = ["all_subjects"]


def all_subjects() -> Sequence[Subject]:
    """Every subject."""
    from ipc_channel.bench.subjects import (
        backlog,
        channels,
        event_loops,
        idle,
        importing,
        large,
        round_trips,
        rust_programs,
        senders,
        shared_memory,
        streams,
        upstream,
    )

    return (
        *streams.SUBJECTS,
        *round_trips.SUBJECTS,
        *large.SUBJECTS,
        *shared_memory.SUBJECTS,
        *channels.SUBJECTS,
        *senders.SUBJECTS,
        *backlog.SUBJECTS,
        *idle.SUBJECTS,
        *event_loops.SUBJECTS,
        *importing.SUBJECTS,
        *rust_programs.SUBJECTS,
        *upstream.SUBJECTS,
    )
