"""Reads a sheet of an Excel or OpenDocument workbook, as a CSV file."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from eventjobs.demo.csv.convert_workbook import CPU_S_MAX, MEMORY_MAX
from eventjobs.demo.csv.encoding import CsvError, clip

#: How workbooks begin: as ZIP archives, or as OLE files.
_BEGINNINGS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")
#: A program of its own.
_CONVERTER = Path(__file__).with_name("convert_workbook.py")
_CHECK_S = 0.2
_LIMITS = (
    f"The workbook needs more than {MEMORY_MAX // 2**30} GB of memory, "
    f"{CPU_S_MAX} s, or more space than there is; export the sheet as CSV."
)
_ERRORS = {
    "password": ("excel_password", "The workbook has a password; save it without one."),
    "broken": ("excel_broken", "This is no whole workbook: {message}"),
    "too_large": ("excel_too_large", _LIMITS),
    "empty": ("csv_empty", "The workbook has no sheet with rows."),
    "no_sheet": ("excel_no_sheet", "The workbook has no sheet of this name; it has: {sheets}"),
}


class Sheet(NamedTuple):
    """A sheet as a CSV file, its name, and the number of other sheets."""

    path: Path
    name: str
    others: int

    @property
    def note(self) -> str:
        text = f"This is a workbook; its sheet {clip(self.name, 40)!r} was read."
        return f"{text} Others were not: {self.others}." if self.others else text


def is_workbook(source: Path) -> bool:
    """Whether the file begins as a workbook does."""
    with source.open("rb") as file:
        return file.read(4) in _BEGINNINGS


def read_sheet(source: Path, sheet: str, workspace: Path, check: Callable[[], None]) -> Sheet:
    """The sheet named *sheet*, or the first visible one with rows, as a file in *workspace*.

    Another process reads it, within limits of its own. *check* is called now and then, and may
    raise to stop the work. Raises CsvError.
    """
    target = workspace / "sheet.csv"
    command = [sys.executable, "-P", str(_CONVERTER), str(source), str(target), sheet]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:  # noqa: S603  no shell
        try:
            output = _output_of(process, check)
        finally:
            process.kill()
    outcome: dict[str, Any] = (
        json.loads(output) if process.returncode == 0 else {"error": "too_large"}
    )
    if error := outcome.get("error"):
        code, text = _ERRORS[error]
        raise CsvError(code, text.format(**{"message": "", "sheets": "", **outcome}))
    return Sheet(target, outcome["sheet"], outcome["others"])


def _output_of(process: "subprocess.Popen[bytes]", check: Callable[[], None]) -> bytes:
    while True:
        check()
        try:
            return process.communicate(timeout=_CHECK_S)[0]
        except subprocess.TimeoutExpired:
            continue
