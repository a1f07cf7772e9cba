"""Bodies about uploaded files."""

from eventjobs.http.schemas.response_model import ResponseModel


class UploadedFile(ResponseModel):
    """A stored file, named by the SHA-256 of its content."""

    sha256: str
    size: int
