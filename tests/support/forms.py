"""Forms with files, as bodies of requests."""

BOUNDARY = "form-of-a-test"
FORM_TYPE = f"multipart/form-data; boundary={BOUNDARY}"


def part(disposition: str, content: bytes, *headers: str) -> bytes:
    """A part of a form with this Content-Disposition."""
    lines = [f"--{BOUNDARY}", f"Content-Disposition: form-data; {disposition}", *headers, "", ""]
    return "\r\n".join(lines).encode() + content + b"\r\n"


def form_of(*parts: bytes) -> bytes:
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


def file_part(name: str, content: bytes, field: str = "file") -> bytes:
    kind = "Content-Type: application/octet-stream"
    return part(f'name="{field}"; filename="{name}"', content, kind)


def form_with_file(name: str, content: bytes) -> bytes:
    return form_of(file_part(name, content))
