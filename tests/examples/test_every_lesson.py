"""Every lesson runs without a warning, draws, closes with its numbers, and is in the syllabus."""

import subprocess
import sys

import pytest
from lessons import EXAMPLES, LESSONS, run

SYLLABUS = (EXAMPLES / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda path: path.stem)
def test_lesson_draws_and_closes_with_the_numbers_that_it_found(lesson, cpu_only):
    found, printed, pictures = run(lesson.name[:2])
    closing = printed.splitlines()[-len(found) :]
    assert closing == [f"{name}: {value:.7g}" for name, value in found.items()]
    assert f"{lesson.stem}.svg" in pictures


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda path: path.stem)
def test_lesson_opens_as_a_notebook(lesson):
    lines = lesson.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "# %% [markdown]"
    assert lines[1].startswith(f"# # Lesson {int(lesson.name[:2])}: ")
    assert sum(line == "# %%" for line in lines) >= 3


def test_the_syllabus_lists_every_lesson_with_its_picture():
    names = [lesson.stem for lesson in LESSONS]
    assert [name for name in names if f"({name}.py)" not in SYLLABUS] == []
    assert [name for name in names if f"pictures/{name}.svg" not in SYLLABUS] == []
    assert [name for name in names if not (EXAMPLES / "pictures" / f"{name}.svg").exists()] == []


def test_there_are_23_lessons():
    assert [lesson.name[:2] for lesson in LESSONS] == [f"{n:02}" for n in range(1, 24)]


def test_a_lesson_is_a_program_that_refuses_what_it_does_not_know(tmp_path):
    command = [sys.executable, LESSONS[0], "--quik"]
    program = subprocess.run(command, cwd=tmp_path, capture_output=True, encoding="utf-8")
    assert program.returncode == 2
    assert "unrecognized arguments: --quik" in program.stderr
