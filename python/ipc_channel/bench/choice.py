"""Which subjects to measure, and beside whom."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from ipc_channel.bench.contestants import KEYS
from ipc_channel.bench.subject import OURS, Subject
from ipc_channel.bench.subjects import all_subjects

__all__ = ["ALL", "NONE", "ChoiceError", "choose"]

ALL: Final = "all"
NONE: Final = "none"


class ChoiceError(ValueError):
    """Nothing is called so; the text says what there is."""


def choose(only: Sequence[str], rivals: str) -> list[Subject]:
    """The subjects whose name, key or family has one of the texts in it (all if there are none), for those rivals."""
    subjects = [subject for subject in all_subjects() if not only or any(_named(subject, text) for text in only)]
    if not subjects:
        raise ChoiceError(f"no subject is called {' or '.join(map(repr, only))}; --list shows all of them")
    wanted = _rivals(rivals)
    chosen = [
        replace(subject, measures={key: measure for key, measure in subject.measures.items() if key in wanted})
        for subject in subjects
    ]
    return [subject for subject in chosen if subject.measures]


def _named(subject: Subject, text: str) -> bool:
    text = text.casefold()
    return any(text in name.casefold() for name in (subject.name, subject.key, subject.family))


def _rivals(text: str) -> set[str]:
    if text == ALL:
        return set(KEYS)
    if text == NONE:
        return {OURS}
    wanted = {OURS, *(key.strip() for key in text.split(","))}
    unknown = wanted.difference(KEYS)
    if unknown:
        names = ", ".join(key for key in KEYS if key != OURS)
        raise ChoiceError(f"no rival is called {', '.join(sorted(unknown))}; there are {names}, and all, and none")
    return wanted
