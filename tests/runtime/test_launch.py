"""A stage that several processes build together, as torchrun starts them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from submission.store import Stage, Store


def launch(program: str, folder: Path, *arguments: Path) -> subprocess.CompletedProcess[str]:
    """Run a program in two processes."""
    (folder / "program.py").write_text(program, encoding="utf-8")
    words = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
    words += [str(folder / "program.py"), *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": os.getcwd(), "OMP_NUM_THREADS": "1"}
    return subprocess.run(words, capture_output=True, text=True, env=environment, timeout=240)


BUILT = """
import os
import sys
from pathlib import Path

from submission.store import Stage, Store
from submission.launch import obtain_together

def make(out):
    raise AssertionError("built again")

stage = Stage(name="finetune", revision=1, options={}, inputs={})
folder = obtain_together(Store(root=Path(sys.argv[1])), stage, make)
Path(sys.argv[2], os.environ["RANK"]).write_text(str(folder))
"""


def test_where_there_is_nothing_to_build_the_others_go_home(tmp_path: Path) -> None:
    stage = Stage(name="finetune", revision=1, options={}, inputs={})
    folder = Store(root=tmp_path).obtain(stage, lambda out: (out / "x").touch())
    (tmp_path / "answers").mkdir()  # a file each: what two processes print to one pipe may run together
    done = launch(BUILT, tmp_path, tmp_path, tmp_path / "answers")
    assert done.returncode == 0, done.stderr
    answers = {path.name: path.read_text(encoding="utf-8") for path in (tmp_path / "answers").iterdir()}
    assert answers == {"0": str(folder), "1": "None"}
    assert done.stderr.count("cached") == 1
