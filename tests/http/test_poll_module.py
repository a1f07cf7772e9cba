"""The module for pages that poll, in Node: poll.test.mjs has the tests."""

import subprocess
from pathlib import Path

from tests.conftest import program


def test_the_module_polls_as_it_says() -> None:
    """Its tests need no server, and no time passes in them."""
    tests = Path(__file__).with_name("poll.test.mjs")
    ran = subprocess.run(
        [program("node"), tests], capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.returncode == 0, ran.stdout
    assert "# pass 17\n" in ran.stdout
