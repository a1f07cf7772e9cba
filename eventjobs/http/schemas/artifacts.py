"""Bodies about uploaded files."""

from eventjobs.http.schemas.response_model import ResponseModel


class UploadedFile(ResponseModel):
    """A file that is here now, under the name of its content."""

    sha256: str
    size: int
