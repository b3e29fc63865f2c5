"""Rust programs of ``tests/rust_peers``, built when a test needs one."""

from __future__ import annotations

import functools
import subprocess
from pathlib import Path
from typing import Final, Literal

ROOT: Final = Path(__file__).parents[2]
WORKSPACE: Final = ROOT / "tests" / "rust_peers"
TARGET: Final = ROOT / "target" / "rust_peers"

BUILD_TIMEOUT: Final = 1800
"""Seconds for the timeout of tests that may have to build: on a fresh machine, that is a hundred crates."""

Layout = Literal["postcard", "bincode"]


@functools.cache
def program(name: str) -> Path:
    """The path of a program, built if its sources are newer."""
    manifest = WORKSPACE / "Cargo.toml"
    command = ["cargo", "build", "--locked", "--quiet", "--manifest-path", str(manifest), "--target-dir", str(TARGET)]
    built = subprocess.run([*command, "--package", name], capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    return TARGET / "debug" / name


class Echo:
    """What the real crates make of bytes: a running ``encodings echo``."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [program("encodings"), "echo"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def __enter__(self) -> Echo:
        return self

    def __exit__(self, *exception: object) -> None:
        with self._process:
            assert self._process.stdin is not None
            self._process.stdin.close()
        assert self._process.returncode == 0

    def again(self, layout: Layout, name: str, payload: bytes) -> bytes | None:
        """The bytes of the value of that type for which these bytes stand; None if they stand for none."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{layout} {name} {payload.hex()}\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline().rstrip("\n")
        return None if answer == "refused" else bytes.fromhex(answer)
