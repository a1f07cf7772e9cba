"""The types of uploaded files, and the names that they had."""

from collections.abc import Iterable
from pathlib import PurePath

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
#: Begins the tag of a job with the name that its file had.
_NAME_TAG = "file:"


def media_type_of(name: str) -> str:
    """The media type of a file by its *name*; plain bytes for one that is not known."""
    return MEDIA_TYPES.get(suffix_of(name), "application/octet-stream")


def suffix_of(name: str) -> str:
    """The end of *name* from its last dot on, in lower case."""
    return PurePath(name).suffix.lower()


def original_name(tags: Iterable[str]) -> str | None:
    """The name that an uploaded file had, from the tags of its job."""
    return next((each[len(_NAME_TAG) :] for each in tags if each.startswith(_NAME_TAG)), None)
