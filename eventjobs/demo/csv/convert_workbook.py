"""Converts a sheet of a workbook to CSV: a program of its own, so that limits hold for it alone.

A workbook is read whole into memory, and a small one may hold gigabytes. It imports nothing of
eventjobs, and so starts fast.
"""

import csv
import errno
import json
import resource
import sys
import zipfile
from collections.abc import Iterable
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Any

from python_calamine import (
    CalamineWorkbook,
    PasswordError,
    SheetTypeEnum,
    SheetVisibleEnum,
)

MEMORY_MAX = 2 * 2**30
CPU_S_MAX = 120
OUTPUT_BYTES_MAX = 4 * 2**30

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_OLE = b"\xd0\xcf\x11\xe0"
#: The stream of an encrypted workbook in an OLE file, by the name in its directory.
_ENCRYPTED = "EncryptedPackage".encode("utf-16-le")
#: The formats of ZIP archives, by a file in them.
_IN_ARCHIVES = {"xl/workbook.bin": ".xlsb", "xl/workbook.xml": ".xlsx", "content.xml": ".ods"}


def suffix_of(source: Path) -> str:
    """The end that the name of the workbook should have. The library goes by the name.

    Raises PasswordError, and ValueError for an archive that is no workbook.
    """
    with source.open("rb") as file:
        if file.read(len(_OLE)) == _OLE:
            if _ENCRYPTED in file.read():
                raise PasswordError
            return ".xls"
    with zipfile.ZipFile(source) as archive:
        names = set(archive.namelist())
    for name, suffix in _IN_ARCHIVES.items():
        if name in names:
            return suffix
    raise ValueError("the archive has no workbook")


def text_of(cell: Any) -> str:
    """A cell as CSV has it: whole numbers without a point, dates as ISO 8601."""
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if isinstance(cell, float):
        return str(int(cell)) if cell.is_integer() and abs(cell) < 2**53 else repr(cell)
    if isinstance(cell, datetime):
        return cell.isoformat(" ")
    if isinstance(cell, date | time):
        return cell.isoformat()
    if isinstance(cell, timedelta):
        return str(cell)
    return str(cell).replace("\0", "")


def write_rows(rows: Iterable[list[Any]], target: Path) -> int:
    """Write *rows* that have a value; returns their number."""
    count = 0
    with target.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        for row in rows:
            texts = [text_of(cell) for cell in row]
            if any(texts):
                writer.writerow(texts)
                count += 1
    return count


def convert(source: Path, target: Path, sheet: str) -> dict[str, Any]:
    """Write *sheet*, or the first one that has rows, to *target*; returns what was read."""
    named = target.with_suffix(suffix_of(source))
    named.symlink_to(source.resolve())
    with CalamineWorkbook.from_path(named) as workbook:
        names = [
            each.name
            for each in workbook.sheets_metadata
            if each.typ == SheetTypeEnum.WorkSheet and each.visible == SheetVisibleEnum.Visible
        ]
        if sheet and sheet not in workbook.sheet_names:
            return {"error": "no_sheet", "sheets": names[:20]}
        for name in [sheet] if sheet else names:
            rows = write_rows(workbook.get_sheet_by_name(name).iter_rows(), target)
            if rows:
                return {"sheet": name, "rows": rows, "others": len(names) - (name in names)}
    return {"error": "empty"}


def main(source: str, target: str, sheet: str) -> None:
    """Print what was read, or why nothing was, as one line of JSON."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_MAX, MEMORY_MAX))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S_MAX, CPU_S_MAX))
    resource.setrlimit(resource.RLIMIT_FSIZE, (OUTPUT_BYTES_MAX, OUTPUT_BYTES_MAX))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        outcome = convert(Path(source), Path(target), sheet)
    except PasswordError:
        outcome = {"error": "password"}
    except BaseException as error:  # noqa: BLE001  a panic of the library is no Exception
        too_large = isinstance(error, MemoryError) or getattr(error, "errno", None) in _NO_SPACE
        message = (str(error) or type(error).__name__)[:500]
        outcome = {"error": "too_large" if too_large else "broken", "message": message}
    sys.stdout.write(json.dumps(outcome))


if __name__ == "__main__":
    main(*sys.argv[1:])
