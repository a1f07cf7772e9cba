"""Which encoding a file is in, and the same text as UTF-8.

A file that is not UTF-8 is converted into the workspace piece by piece, so its size does not
matter. What is not text at all is refused, by name where the kind of file is known.
"""

import codecs
from collections.abc import Callable
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path

PIECE_BYTES = 2**20
HEAD_BYTES = 64 * 2**10

_BOMS = (  # UTF-32 first: its mark begins with that of UTF-16.
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_SIGNATURES = (
    (b"PK\x03\x04", "an Excel workbook or another ZIP archive"),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard archive"),
    (b"7z\xbc\xaf", "a 7-Zip archive"),
    (b"%PDF-", "a PDF document"),
    (b"PAR1", "a Parquet file"),
    (b"ARROW1", "an Arrow file"),
    (b"SQLite format 3", "an SQLite database"),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
)
_DOCUMENTS = (
    (b"<!doctype html", "an HTML page"),
    (b"<html", "an HTML page"),
    (b"<?xml", "an XML document"),
    (b'{"', "a JSON document"),
    (b"[{", "a JSON document"),
)
_CONTROLS = bytes(sorted({*range(1, 32)} - set(b"\t\n\v\f\r\x1a\x1b\x1c\x1d\x1e\x1f")))


class CsvError(Exception):
    """The file cannot be read as CSV; *code* is for programs, the message for people."""

    def __init__(self, code: str, message: str, *, line: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.line = line


@dataclass(slots=True)
class Survey:
    """What one pass over the bytes of a UTF-8 text tells about its shape."""

    quotes: bool = False
    one_record_a_line: bool = True  # no lone carriage returns and no unit separators
    blank_lines_at_end: int = 0


@dataclass(frozen=True, slots=True)
class TextFile:
    """A file that is known to be UTF-8, with or without a byte order mark."""

    path: Path
    encoding: str
    survey: Survey
    notes: tuple[str, ...] = ()

    def open(self) -> TextIOWrapper:
        return self.path.open(encoding="utf-8-sig", newline="")


def as_utf8(source: Path, workspace: Path, report: Callable[[float], None]) -> TextFile:
    """*source* itself when it is UTF-8, else a converted copy. Raises CsvError."""
    with source.open("rb") as file:
        head = file.read(HEAD_BYTES)
    blank = not head.strip(b"\r\n\t \xef\xbb\xbf\xff\xfe\0")
    if blank and len(head) < HEAD_BYTES:
        if b"\0" in head and not head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise _binary(1)
        raise CsvError("csv_empty", "The file has no content: not even a header line.")
    encoding = next((name for mark, name in _BOMS if head.startswith(mark)), "utf-8")
    if encoding in ("utf-8", "utf-8-sig"):
        _refuse_other_kinds(head)
        try:
            return TextFile(source, encoding, _survey(source, report))
        except UnicodeDecodeError:
            encoding = "cp1252"
    copy = workspace / "utf-8.csv"
    _convert(source, copy, encoding, report)
    note = f"The file is not UTF-8; it was read as {_NAMES[encoding]}."
    return TextFile(copy, encoding, _survey(copy, report), (note,))


_NAMES = {"cp1252": "Windows-1252 (Western European)", "utf-16": "UTF-16", "utf-32": "UTF-32"}


def _refuse_other_kinds(head: bytes) -> None:
    readable = b"\0" not in head and len(head.translate(None, _CONTROLS)) == len(head)
    for signature, kind in _SIGNATURES:
        # Four letters alone may begin a header; a binary file has unreadable bytes as well.
        if head.startswith(signature) and not (readable and head.isascii()):
            raise CsvError("csv_binary", f"This is {kind}, not a CSV file; export it as CSV first.")
    opening = head.removeprefix(codecs.BOM_UTF8).lstrip()[:20].lower()
    for start, kind in _DOCUMENTS:
        if opening.startswith(start):
            raise CsvError("csv_other_format", f"This is {kind}, not a CSV file.")
    controls = len(head) - len(head.translate(None, _CONTROLS))
    if b"\0" not in head and controls > len(head) * 0.05:
        raise CsvError(
            "csv_not_text", "This is not text: too many of its characters are control characters."
        )


def _survey(path: Path, report: Callable[[float], None]) -> Survey:
    """Read all of *path* once. Raises UnicodeDecodeError when it is not UTF-8."""
    survey = Survey()
    decoder = codecs.getincrementaldecoder("utf-8")()
    size, read, lines, end = max(1, path.stat().st_size), 0, 1, b""
    with path.open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            if piece.endswith(b"\r"):
                piece += file.read(1)
            if (zero := piece.find(b"\0")) >= 0:
                raise _binary(lines + piece.count(b"\n", 0, zero))
            decoder.decode(piece)
            survey.quotes = survey.quotes or b'"' in piece
            if b"\x1f" in piece or piece.count(b"\r") != piece.count(b"\r\n"):
                survey.one_record_a_line = False
            lines += piece.count(b"\n")
            end = piece[-HEAD_BYTES:] if len(piece) >= HEAD_BYTES else (end + piece)[-HEAD_BYTES:]
            read += len(piece)
            report(read / size)
    decoder.decode(b"", final=True)
    tail = end[len(end.rstrip(b"\r\n")) :]
    survey.blank_lines_at_end = max(0, tail.count(b"\n") - 1)
    return survey


def _convert(source: Path, target: Path, encoding: str, report: Callable[[float], None]) -> None:
    decoder = codecs.getincrementaldecoder(encoding)()
    size, read, line = max(1, source.stat().st_size), 0, 1
    with source.open("rb") as reader, target.open("w", encoding="utf-8", newline="") as writer:
        try:
            while piece := reader.read(PIECE_BYTES):
                text = decoder.decode(piece)
                line += text.count("\n")
                writer.write(text)
                read += len(piece)
                report(read / size)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError as error:
            line += error.object.count(b"\n", 0, error.start)
            tried = "not valid " + _NAMES[encoding]
            if encoding == "cp1252":
                tried = "neither UTF-8 nor Windows-1252"
            raise CsvError(
                "csv_not_text", f"This is not text: line {line:,} is {tried}.", line=line
            ) from error


def _binary(line: int) -> CsvError:
    return CsvError(
        "csv_binary", f"This is not a text file: there is a NUL byte on line {line:,}.", line=line
    )


def clip(text: str, chars_max: int) -> str:
    """*text* on one line, no longer than *chars_max*; an ellipsis says that something is cut."""
    line = " ".join(text[: chars_max * 4].split())
    return line if len(line) <= chars_max else line[: chars_max - 1] + "…"
