"""The Rust crate ipc-channel, Rust to Rust, measured by a program of its own."""

import os
import subprocess
from collections.abc import Callable
from typing import Final

from ipc_channel.bench.subject import Effort, Figures, Unavailable

__all__ = ["Rust", "by_rust_peer"]

_VERSION: Final = "0.23.1"
"""What benchmarks/rust-peer/Cargo.toml asks for."""
_TIMEOUT: Final = 200.0


class Rust:
    """The crate whose concepts this package has."""

    key = "rust"
    title = "Rust crate ipc-channel"
    column = "Rust crate"

    def version(self) -> str:
        return _VERSION

    def missing(self, program: str | None) -> str | None:
        if program is None:
            return "not built: `make bench` does"
        if not os.access(program, os.X_OK):
            return f"there is no program {program}"
        return None


def by_rust_peer(subject: str) -> Callable[[Effort], Figures]:
    """Measures by the program's subject of that name."""

    def measure(effort: Effort) -> Figures:
        if effort.rust_peer is None:
            raise Unavailable("not built: `make bench` does")
        # It shares our process group, so whoever ends this measurement ends that process too.
        done = subprocess.run(
            [effort.rust_peer, subject, str(effort.seconds)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            timeout=_TIMEOUT,
            check=True,
        )
        figures: Figures = {}
        for line in done.stdout.splitlines():
            name, _, value = line.partition("\t")
            figures[name] = float(value)
        return figures

    return measure
