"""JSON lines: each whole, and on file when it is written."""

import errno
import json
import os
from pathlib import Path

import pytest

from brainseg_cli.io.lines import LinesWriter, to_json


def test_a_line_is_on_file_when_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "up" / "x.jsonl"
    with LinesWriter(path) as lines:
        assert path.read_bytes() == b""
        lines.write({"a": 1, "name": "Åsa 患", "none": None})
        assert path.read_text(encoding="utf-8") == '{"a": 1, "name": "Åsa 患", "none": null}\n'
        lines.write({"a": 2})
        assert len(path.read_text(encoding="utf-8").splitlines()) == 2
    with pytest.raises(ValueError, match="with"):
        LinesWriter(path).write({})


def test_lines_are_added_to_those_that_are_there(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    with pytest.raises(KeyboardInterrupt), LinesWriter(path) as lines:
        lines.write({"a": 1})
        raise KeyboardInterrupt
    with LinesWriter(path) as lines:
        assert lines.is_open
        lines.write({"a": 2})
    assert path.read_text() == '{"a": 1}\n{"a": 2}\n' and list(tmp_path.iterdir()) == [path]


def test_half_a_line_gets_no_other_end(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"a": 1}\n{"a":')
    with LinesWriter(path) as lines:
        lines.write({"a": 2})
    assert path.read_text() == '{"a": 1}\n{"a":\n{"a": 2}\n'


def test_a_name_that_is_no_text_is_escaped_and_comes_back() -> None:
    name = os.fsdecode(b"a\xff\n.png")
    line = to_json({"image": name, "other": "é"})
    assert line.isascii() and "\n" not in line and json.loads(line)["image"] == name
    assert to_json({"a": [1, "é"]}, indent=2) == '{\n  "a": [\n    1,\n    "é"\n  ]\n}'
    with pytest.raises(ValueError, match="JSON"):
        to_json({"a": float("nan")})


@pytest.mark.parametrize("written", [0, 5])
def test_on_a_full_disk_no_part_of_a_line_stays(tmp_path: Path, written: int) -> None:
    """As a write does that finds no room, or some: nothing written, or less than all of it."""
    path = tmp_path / "x.jsonl"
    with LinesWriter(path) as lines:
        lines.write({"a": 1})
        real = lines._file
        assert real is not None

        class Full:
            tell, truncate, seek = real.tell, real.truncate, real.seek

            def write(self, data: bytes) -> int:
                if not written:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                assert real is not None
                return real.write(data[:written])

        lines._file = Full()  # type: ignore[assignment]
        with pytest.raises(OSError, match="No space left") as raised:
            lines.write({"a": 2})
        assert raised.value.filename == str(path)
        assert path.read_text() == '{"a": 1}\n'
        lines._file = real
        lines.write({"a": 3})
    assert path.read_text() == '{"a": 1}\n{"a": 3}\n'
