"""The types of uploaded files, what their content begins and ends with, and their names."""

import re
import unicodedata
from collections.abc import Iterable
from pathlib import PurePath

from eventjobs.http.request_errors import FileDamaged, FileProtected, UnsupportedMediaType

#: By the end of the file's name.
MEDIA_TYPES = {
    ".csv": "text/csv",
    ".tsv": "text/tab-separated-values",
    ".txt": "text/plain",
    ".xls": "application/vnd.ms-excel",
    ".xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    ".xlsb": "application/vnd.ms-excel.sheet.binary.macroEnabled.12",
    ".ods": "application/vnd.oasis.opendocument.spreadsheet",
}
TEXTS = frozenset({".csv", ".tsv", ".txt"})
WORKBOOKS = frozenset(MEDIA_TYPES) - TEXTS

_ZIP, _OLE = b"PK\x03\x04", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_OTHER_KINDS = (_ZIP, _OLE, b"%PDF-", b"\x1f\x8b")
#: Texts with NUL bytes in them: UTF-16 and UTF-32.
_WIDE_MARKS = (b"\xff\xfe", b"\xfe\xff", b"\0\0\xfe\xff")
#: The stream of an encrypted workbook in an OLE file, by the name in its directory.
_ENCRYPTED = "EncryptedPackage".encode("utf-16-le")
#: Ends a ZIP archive, followed by a comment of at most 65,535 bytes.
_ZIP_END = b"PK\x05\x06"
_ZIP_END_BYTES = 22 + 65_535
_HEAD_BYTES = 512

#: Begins the tag of a job with the name that its file had.
_NAME_TAG = "file:"
_TAG_CHARS_MAX = 100
_NAME_CHARS_MAX = 128


def media_type_of(name: str) -> str:
    """The media type of a file by its *name*; plain bytes for one that is not known."""
    return MEDIA_TYPES.get(suffix_of(name), "application/octet-stream")


def suffix_of(name: str) -> str:
    """The end of *name* from its last dot on, in lower case."""
    return PurePath(name).suffix.lower()


def base_name(path: str) -> str:
    """The last part of *path*, as any system writes paths, without control characters."""
    base = re.split(r"[/\\]", path)[-1]
    return "".join(each for each in base if unicodedata.category(each)[0] != "C").strip()


def safe_name(base: str) -> str:
    """*base* as the name of an artifact: letters without accents, other characters as `_`."""
    letters = unicodedata.normalize("NFKD", base)
    plain = "".join(each for each in letters if not unicodedata.combining(each))
    name = re.sub(r"[^A-Za-z0-9._ ()+-]", "_", plain)
    suffix = PurePath(name).suffix[: _NAME_CHARS_MAX // 2]
    stem = name.removesuffix(suffix).lstrip("._ ()+-") or "file"
    return stem[: _NAME_CHARS_MAX - len(suffix)] + suffix


def name_tags(base: str) -> tuple[str, ...]:
    """The tag that keeps the name *base*, where the artifact cannot have it."""
    return () if base == safe_name(base) else (f"{_NAME_TAG}{base}"[:_TAG_CHARS_MAX],)


def original_name(tags: Iterable[str]) -> str | None:
    """The name that an uploaded file had, from the tags of its job."""
    return next((each[len(_NAME_TAG) :] for each in tags if each.startswith(_NAME_TAG)), None)


class ContentCheck:
    """Compares the content of a file with the type that its name says, piece by piece.

    It finds what can be seen without reading the file: another kind of file, a workbook that is
    cut off, or one with a password. A job finds out the rest.
    """

    def __init__(self, suffix: str) -> None:
        self._suffix = suffix
        self._head = b""
        #: The last bytes of a workbook.
        self._tail = b""
        self._checked = False

    def feed(self, piece: bytes) -> None:
        """Raises UnsupportedMediaType, FileProtected."""
        if not self._checked:
            self._head += piece[:_HEAD_BYTES]
            if len(self._head) >= _HEAD_BYTES:
                self._check_head()
        if self._suffix in WORKBOOKS:
            window = self._tail + piece
            if self._head.startswith(_OLE) and _ENCRYPTED in window:
                raise FileProtected
            self._tail = window[-_ZIP_END_BYTES:]

    def finish(self) -> None:
        """Raises UnsupportedMediaType, FileDamaged."""
        if not self._checked:
            self._check_head()
        if self._head.startswith(_ZIP) and _ZIP_END not in self._tail:
            raise FileDamaged

    def _check_head(self) -> None:
        self._checked = True
        head, suffix = self._head, self._suffix
        if suffix in WORKBOOKS and not head.startswith((_ZIP, _OLE)):
            raise UnsupportedMediaType(f"this is no workbook, though its name ends with {suffix}")
        is_wide = head.startswith(_WIDE_MARKS)
        if suffix in TEXTS and (head.startswith(_OTHER_KINDS) or (b"\0" in head and not is_wide)):
            raise UnsupportedMediaType(f"this is no text, though its name ends with {suffix}")
