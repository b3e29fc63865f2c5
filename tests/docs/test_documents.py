"""Every Python block of the documents runs as it stands, pasted into an empty folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.programs import DOCUMENTS, Program, programs, run
from tests.support.rust_peers import BUILD_TIMEOUT, WORKSPACE
from tests.support.rust_peers import program as rust_program
from tests.support.start_methods import ROOT

GUIDE = ROOT / "docs" / "rust.md"
"""Its Python half needs the other half, built."""
PROGRAMS = [program for document in DOCUMENTS for program in programs(document)]


@pytest.mark.timeout(BUILD_TIMEOUT)
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: f"{program.document.name}:{program.line}")
def test_program(program: Program, tmp_path: Path) -> None:
    for name, content in program.files.items():
        (tmp_path / name).write_text(content)
    if program.document == GUIDE:
        (tmp_path / "count-words").symlink_to(rust_program("guide"))
    source = tmp_path / "program.py"
    source.write_text(program.source)
    output = run(source, tmp_path)
    if program.output is not None:
        assert output == program.output


def test_the_rust_half_of_the_guide_is_what_is_built() -> None:
    source = (WORKSPACE / "guide" / "src" / "main.rs").read_text()
    assert f"```rust\n{source}```\n" in GUIDE.read_text()


def test_the_readme_has_programs() -> None:
    assert any(program.document.name == "README.md" for program in PROGRAMS)


def write(folder: Path, *lines: str) -> Path:
    document = folder / "document.md"
    document.write_text("\n".join(lines) + "\n")
    return document


def test_blocks_become_programs(tmp_path: Path) -> None:
    document = write(
        tmp_path,
        *("```python", "a = 1", "```", "text", "```python", "# continues", "assert a", "```"),
        *("```sh", "make", "```", "```python", "# file: x.py", "b = 2", "```", "  ```python", "  import x", "  ```"),
    )
    first, second = programs(document)
    assert first.source == "a = 1\n# continues\nassert a\n"
    assert (first.line, first.files) == (1, {})
    assert second.source == "import x\n"
    assert second.files == {"x.py": "# file: x.py\nb = 2\n"}


def test_a_text_block_after_a_program_is_its_output(tmp_path: Path) -> None:
    document = write(
        tmp_path,
        *("```python", "print(1)", "```", "It prints:", "```text", "1", "```", "```text", "no output", "```"),
        *("```python", "a = 1", "```", "```sh", "make", "```", "```text", "no output", "```"),
    )
    first, second = programs(document)
    assert first.output == "1\n"
    assert second.output is None


@pytest.mark.parametrize(
    ("lines", "error"),
    [
        (("```python notest", "a = 1", "```"), "would not be tested"),
        (("```py", "a = 1", "```"), "would not be tested"),
        (("```python", "# continues", "```"), "no program here to continue"),
        (("```python", "# file: x.py", "```"), "no program comes after"),
        (("```python", "# file: x.py", "```", "```text", "1", "```"), "no program here that could print"),
        (
            ("```python", "a = 1", "```", "```text", "1", "```", "```python", "# continues", "```"),
            "comes after all of its blocks",
        ),
        (("```python", "a = 1"), "not closed"),
    ],
)
def test_a_block_that_would_not_run_is_refused(lines: tuple[str, ...], error: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=error):
        programs(write(tmp_path, *lines))
