"""`examples/all.py` runs every lesson, and tells of those that fail."""

import shutil
import subprocess
import sys

from lessons import EXAMPLES

FIRST = "import lesson\nprint('much')\nlesson.close({'pace': lesson.pace(1, 2, 3)})"


def test_all_lessons_run_also_after_one_that_fails(tmp_path):
    for name in ("all.py", "lesson.py"):
        shutil.copy(EXAMPLES / name, tmp_path)
    for name, text in {"01_first": FIRST, "02_second": "1 / 0", "03_third": "print(3)"}.items():
        (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
    program = subprocess.run(
        [sys.executable, tmp_path / "all.py", "--quick"],
        cwd=tmp_path,
        capture_output=True,
        encoding="utf-8",
    )
    assert "=== 01_first\npace: 1\n=== done" in program.stdout  # the closing lines only
    assert "ZeroDivisionError" in program.stdout
    assert "=== 03_third\n3\n=== done" in program.stdout
    assert program.stdout.endswith("1 failed\nfailed: 02_second\n")
    assert program.returncode == 1
