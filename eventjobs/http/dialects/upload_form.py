"""A form with one file, which passes through piece by piece and is never whole in memory."""

from collections.abc import AsyncIterator

from aiohttp import web
from multipart import (
    MultipartError,
    MultipartSegment,
    ParserLimitReached,
    PushMultipartParser,
    parse_options_header,
)

from eventjobs.errors import TooLarge
from eventjobs.http.dialects.file_types import ContentCheck, base_name, suffix_of
from eventjobs.http.request_body import check_encoding, check_length, chunks
from eventjobs.http.request_errors import BadForm, FileEmpty, FileMissing, UnsupportedMediaType
from eventjobs.service import Service

#: The field with the file.
FILE = "file"
FIELDS_MAX = 32
#: Bytes of a form besides its file: other fields, headers of parts, boundaries.
EXTRA_BYTES_MAX = 65_536
BOUNDARY_CHARS_MAX = 70  # RFC 2046, 5.1.1
_AS_BY_CURL = "send a form with a file in the field `file`, as by curl -F file=@NAME"


class UploadForm:
    """The form in the body of *request*. Its fields are complete once *content* has ended.

    Raises UnsupportedMediaType where the body is no form, BadForm, and TooLarge.
    """

    def __init__(self, service: Service, request: web.Request) -> None:
        settings = service.settings
        self._service = service
        self._request = request
        self._bytes_max = settings.upload_bytes_max
        self._suffixes = settings.upload_suffixes
        kind, options = parse_options_header(request.headers.get("Content-Type", ""))
        if kind != "multipart/form-data":
            raise UnsupportedMediaType(_AS_BY_CURL)
        boundary = options.get("boundary", "")
        if not 0 < len(boundary) <= BOUNDARY_CHARS_MAX or not boundary.isascii():
            raise BadForm("Content-Type has no usable boundary")
        check_encoding(request)
        check_length(request, self._bytes_max + EXTRA_BYTES_MAX)
        self._parser = PushMultipartParser(boundary, max_segment_count=FIELDS_MAX + 1)
        #: The name of the file, without folders.
        self.file_name = ""
        #: The other fields, as text.
        self.fields: dict[str, str] = {}
        self._size = 0
        self._extra_bytes = 0
        #: The part that is read: the check of the file, or the content of another field.
        self._check: ContentCheck | None = None
        self._value = bytearray()
        self._field = ""

    async def content(self) -> AsyncIterator[bytes]:
        """The pieces of the file, while the whole form is read.

        Raises BadForm, FileMissing, FileEmpty, FileDamaged, FileProtected, UnsupportedMediaType,
        TooLarge, and as *chunks*.
        """
        try:
            async for chunk in chunks(self._service, self._request):
                self._extra_bytes += len(chunk)
                for event in self._parser.parse(bytes(chunk)):
                    if isinstance(event, MultipartSegment):
                        self._begin(event)
                    elif event is None:
                        self._end()
                    elif self._check is None:
                        self._value += event
                    else:
                        self._take(self._check, event)
                        yield event
                if self._extra_bytes > EXTRA_BYTES_MAX:
                    raise TooLarge(f"the form has more than {EXTRA_BYTES_MAX} bytes besides a file")
            self._parser.close()
        except ParserLimitReached as error:
            raise TooLarge(f"the form is too large: {error}") from error
        except MultipartError as error:
            raise BadForm(f"the form is broken: {error}") from error
        if not self.file_name:
            raise FileMissing(_AS_BY_CURL)

    def _begin(self, part: MultipartSegment) -> None:
        name = part.name or ""
        if name in self.fields or (name == FILE and self.file_name):
            raise BadForm(f"the field {name!r} comes twice; one file is sent at a time")
        if name != FILE:
            if part.filename is not None:
                raise BadForm(f"a file is sent in the field {FILE!r}, not in {name!r}")
            self._field = name
            return
        self.file_name = base_name(part.filename or "")
        if not self.file_name:
            raise FileMissing("the field `file` has no file with a name: " + _AS_BY_CURL)
        suffix = suffix_of(self.file_name)
        if self._suffixes and suffix not in self._suffixes:
            listed = ", ".join(self._suffixes)
            raise UnsupportedMediaType(f"the name of a file ends with one of: {listed}")
        self._check = ContentCheck(suffix)

    def _take(self, check: ContentCheck, piece: bytes) -> None:
        self._extra_bytes -= len(piece)
        self._size += len(piece)
        if self._size > self._bytes_max:
            raise TooLarge(f"an uploaded file has at most {self._bytes_max} bytes")
        check.feed(piece)

    def _end(self) -> None:
        if self._check is not None:
            if self._size == 0:
                raise FileEmpty
            self._check.finish()
            self._check = None
            return
        try:
            self.fields[self._field] = self._value.decode()
        except UnicodeDecodeError as error:
            raise BadForm(f"the field {self._field!r} is not UTF-8") from error
        self._value.clear()
