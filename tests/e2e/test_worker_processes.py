"""Two folders of masks in worker processes: the same report as in one, and nobody left behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from brainseg_cli.io.images import write_mask

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it is threads that measure")
PROGRAM = [sys.executable, "-m", "brainseg_cli"]


@pytest.fixture
def folders(tmp_path: Path, rng: np.random.Generator) -> list[str]:
    for side in ("reference", "prediction"):
        for patient in range(4):
            for at in range(3):
                write_mask(
                    tmp_path / side / f"p{patient}" / f"p{patient}_{at}.png", rng.integers(0, 2, (30, 40), np.uint8)
                )
    return ["eval", "--reference", str(tmp_path / "reference"), "--prediction", str(tmp_path / "prediction")]


def find_children(parent: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


def test_one_process_or_three_the_report_is_the_same(folders: list[str], tmp_path: Path) -> None:
    for workers in (1, 3):
        command = [*PROGRAM, *folders, "-o", str(tmp_path / str(workers)), "--workers", str(workers), "--quiet"]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
    for name in ("summary.json", "slices.csv", "patients.csv", "lesions.csv", "report.html"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "3" / name).read_bytes()


def test_workers_end_with_their_parent(tmp_path: Path) -> None:
    script = (
        "import time\nfrom brainseg_cli.evaluate import open_pool\n"
        "with open_pool(3) as pool:\n    assert pool is not None\n    print('open', flush=True)\n    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None and parent.stdout.readline() == "open\n"
        workers = find_children(parent.pid)
        assert len(workers) == 3
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait()
        deadline = time.monotonic() + 20
        while any(Path(f"/proc/{worker}/stat").exists() for worker in workers) and time.monotonic() < deadline:
            if all(
                Path(f"/proc/{w}/stat").read_text().split()[2] == "Z" for w in workers if Path(f"/proc/{w}").exists()
            ):
                break  # dead, and not yet buried by whoever inherited them
            time.sleep(0.05)
        else:
            assert not any(Path(f"/proc/{worker}/stat").exists() for worker in workers)
