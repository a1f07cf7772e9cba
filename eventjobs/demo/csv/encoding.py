"""Finds the encoding of a file, and refuses files that are not text."""

import codecs
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

from charset_normalizer import from_bytes
from charset_normalizer.utils import identify_sig_or_bom

from eventjobs.errors import JobError

HEAD_BYTES = 64 * 2**10
#: The legacy encodings that are recognized. The first wins where a short text fits several.
LEGACY = (
    "cp1252", "cp1251", "cp932", "gb18030", "big5", "cp949",
    "cp1250", "cp1253", "cp1254", "cp1255", "cp1256", "koi8_r",
)  # fmt: skip
_OTHER_KINDS = (
    ("csv_binary", rb"\x1f\x8b", "a gzip archive"),
    ("csv_binary", rb"%PDF-", "a PDF document"),
    ("csv_binary", rb"PAR1", "a Parquet file"),
    ("csv_other_format", rb"(?i)\s*<(!doctype html|html|\?xml)", "an HTML or XML document"),
    ("csv_other_format", rb"\s*(\{\"|\[\{)", "a JSON document"),
)
_CONTROLS = bytes(set(range(1, 32)) - set(b"\t\n\v\f\r\x1a\x1b\x1c\x1d\x1e\x1f"))


class CsvError(JobError):
    """The file cannot be read as CSV, however often."""

    def __init__(self, code: str, message: str, *, line: int | None = None) -> None:
        super().__init__(code, message, retryable=False, details=line and {"line": line})


def detect_encoding(source: Path, check: Callable[[], None]) -> str:
    """The encoding of *source*: by its byte order mark, as UTF-8, or by its letters.

    *check* is called now and then, and may raise to stop the work. Raises CsvError for no text.
    """
    with source.open("rb") as file:
        head = file.read(HEAD_BYTES)
    if not head.strip(b"\r\n\t \xef\xbb\xbf\xff\xfe"):
        raise CsvError("csv_empty", "The file has no content: not even a header line.")
    marked, mark = identify_sig_or_bom(head)
    if marked in ("utf_16", "utf_32"):
        return marked.replace("_", "-")
    _refuse_other_kinds(head.removeprefix(mark))
    invalid, valid = _non_ascii_lines(source, check)
    # Other encodings hardly ever look like UTF-8: a few odd bytes do not make it another one.
    if marked or not invalid or valid > len(invalid):
        return "utf-8-sig" if marked else "utf-8"
    # Bytes that Windows-1252 does not define would rule it out, however rare they are.
    usual = [line for line in invalid if not re.search(rb"[\x81\x8d\x8f\x90\x9d]", line)]
    sample = b"".join(usual if len(usual) > len(invalid) / 2 else invalid)
    matches = from_bytes(sample, cp_isolation=list(LEGACY))
    if not (best := matches.best()):
        return LEGACY[0]
    # Where no language is recognized, all encodings without odd letters are as likely.
    equal = [best] if best.coherence else [each for each in matches if each.chaos <= best.chaos]
    likely = {name for match in equal for name in match.could_be_from_charset}
    return next(name for name in LEGACY if name in likely)


def _non_ascii_lines(source: Path, check: Callable[[], None]) -> tuple[list[bytes], int]:
    """Some of the lines that are not UTF-8, and how many others are not ASCII."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    invalid: list[bytes] = []
    valid = 0
    with source.open("rb") as file:
        for number, line in enumerate(iter(partial(file.readline, HEAD_BYTES), b"")):
            if number % 100_000 == 0:
                check()
            try:
                valid += not line.isascii() and bool(decoder.decode(line))
            except UnicodeDecodeError:
                decoder.reset()
                invalid += [line[:200]] if len(invalid) < 500 else []
    return invalid, valid


def _refuse_other_kinds(head: bytes) -> None:
    controls = len(head) - len(head.translate(None, _CONTROLS))
    # A header may begin with these letters. A binary file has unreadable bytes as well.
    is_binary = controls > 0 or b"\0" in head or not head.isascii()
    for code, start, kind in _OTHER_KINDS:
        if re.match(start, head) and (is_binary or code != "csv_binary"):
            raise CsvError(code, f"This is {kind}; export it as CSV first.")
    if b"\0" not in head and controls > len(head) * 0.05:
        raise CsvError("csv_not_text", "This is not text: it has too many control characters.")


def clip(text: str, chars_max: int) -> str:
    """*text* on one line, no longer than *chars_max*; an ellipsis says that something is cut."""
    line = " ".join(text[: chars_max * 4].split())
    return line if len(line) <= chars_max else line[: chars_max - 1] + "…"
