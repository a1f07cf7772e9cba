"""One random key in the data directory; every other secret is derived from it, and stored nowhere.

What is derived is the same after a restart, so a token that was handed out stays good, and no
secret is ever in the log, in a view or in a backup of either.
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
    """Secrets by their purpose. Whoever has the master key can make all of them."""

    def __init__(self, master: bytes) -> None:
        self._master = master

    @classmethod
    def open(cls, path: Path) -> "MasterKey":
        """From the file at *path*, made with a new key when there is none. Blocks.

        Raises SecretKeyUnusable for a file that holds something else, OSError. To be called by the
        one process that holds the data directory.
        """
        try:
            master = path.read_bytes()
        except FileNotFoundError:
            master = os.urandom(KEY_BYTES)
            with replacement(path) as file:
                file.write(master)
        else:  # a key that is lost takes every token with it, and who made it may have been killed
            sync(path)
            sync(path.parent)
        if len(master) != KEY_BYTES:
            raise SecretKeyUnusable(
                f"{path} has {len(master)} bytes, and not {KEY_BYTES}: put it back from a backup; "
                f"if it is lost, `eventjobs new-key --data {path.parent}` makes another"
            )
        return cls(master)

    def derive(self, purpose: str, *parts: str | int) -> bytes:
        """32 bytes that nobody can guess: others for each purpose, and for each of its parts."""
        pieces = [each.encode() for each in (purpose, *map(str, parts))]
        # With their lengths, so that ("ab", "c") is never ("a", "bc").
        told = b"".join(len(each).to_bytes(8) + each for each in pieces)
        return hmac.digest(self._master, told, hashlib.sha256)

    @property
    def fingerprint(self) -> str:
        """Tells this key from others, and nothing about it."""
        return self.derive("mark").hex()[:32]

    def callback_token(self, job_id: str, attempt: int) -> str:
        """Lets its holder report on this attempt of this job, and do nothing else."""
        return f"ej_cb_{attempt}_{self.derive('callback', job_id, attempt).hex()}"

    def attempt_of(self, token: str, job_id: str) -> int | None:
        """The attempt of this job that *token* is good for; None when it was made up."""
        found = re.fullmatch(r"ej_cb_([1-9]\d{0,8})_[0-9a-f]{64}", token, re.ASCII)
        if found is None:
            return None
        attempt = int(found[1])
        return attempt if hmac.compare_digest(token, self.callback_token(job_id, attempt)) else None

    def signing_secret(self, purpose: str, *parts: str | int) -> str:
        """A secret as Standard Webhooks writes it, to be given to whoever checks signatures."""
        return f"whsec_{base64.b64encode(self.derive(purpose, *parts)).decode()}"
