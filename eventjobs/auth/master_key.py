"""One random key in the data directory. All other secrets are derived from it and not stored.

Derived secrets are the same after a restart, so tokens stay valid. No secret is in the log, in a
view or in a backup of either.
"""

import base64
import hashlib
import hmac
import os
import re
from pathlib import Path

from eventjobs.durability import replacement, sync
from eventjobs.errors import SecretKeyUnusable

KEY_BYTES = 32


class MasterKey:
    """Derives secrets by their purpose. The master key gives access to all of them."""

    def __init__(self, master: bytes) -> None:
        self._master = master

    @classmethod
    def open(cls, path: Path) -> "MasterKey":
        """Read the key from *path*; create the file with a new key if there is none. Blocks.

        Only the process that holds the data directory may call this. Raises SecretKeyUnusable for
        a file that is no key, OSError.
        """
        try:
            master = path.read_bytes()
        except FileNotFoundError:
            master = os.urandom(KEY_BYTES)
            with replacement(path) as file:
                file.write(master)
        else:  # the process that created it may have been killed before it was synced
            sync(path)
            sync(path.parent)
        if len(master) != KEY_BYTES:
            raise SecretKeyUnusable(
                f"{path} has {len(master)} bytes, and not {KEY_BYTES}: put it back from a backup; "
                f"if it is lost, `eventjobs new-key --data {path.parent}` makes another"
            )
        return cls(master)

    def derive(self, purpose: str, *parts: str | int) -> bytes:
        """32 secret bytes, different for each purpose and for its parts."""
        pieces = [piece.encode() for piece in (purpose, *map(str, parts))]
        # With their lengths, so that ("ab", "c") differs from ("a", "bc").
        message = b"".join(len(piece).to_bytes(8) + piece for piece in pieces)
        return hmac.digest(self._master, message, hashlib.sha256)

    @property
    def fingerprint(self) -> str:
        """Identifies this key without revealing it."""
        return self.derive("mark").hex()[:32]

    def callback_token(self, job_id: str, attempt: int) -> str:
        """A token that permits reports on this attempt of this job, and nothing else."""
        return f"ej_cb_{attempt}_{self.derive('callback', job_id, attempt).hex()}"

    def attempt_of(self, token: str, job_id: str) -> int | None:
        """The attempt of this job that *token* is valid for; None if it is not genuine."""
        match = re.fullmatch(r"ej_cb_([1-9]\d{0,8})_[0-9a-f]{64}", token, re.ASCII)
        if match is None:
            return None
        attempt = int(match[1])
        return attempt if hmac.compare_digest(token, self.callback_token(job_id, attempt)) else None

    def signing_secret(self, purpose: str, *parts: str | int) -> str:
        """A secret in the form of Standard Webhooks, for the receiver that checks signatures."""
        return f"whsec_{base64.b64encode(self.derive(purpose, *parts)).decode()}"
