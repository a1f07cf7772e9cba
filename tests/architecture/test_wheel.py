"""The sdist and the wheel: what they put into site-packages, and that an installed one works."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from email.parser import HeaderParser
from pathlib import Path

import orjson
import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
#: setuptools warns that it compiles nothing where this is set.
NO_BYTECODE = "PYTHONDONTWRITEBYTECODE"
SOURCES = ["pyproject.toml", "README.md", "LICENSE", "eventjobs", "projections", "tools"]

#: The commands of tools/, and their modules.
TOOLS = ["__init__", "audit", "compare_views", "read_log", "replay"]
#: A user's modules, with the names of folders of this repository.
MODULES = {
    "projections.py": "FLAT = 1",
    "tools.py": "HAMMER = 2",
    "tests.py": "EXAM = 3",
    "shop.py": """
from eventjobs import handler
from projections import FLAT
from tests import EXAM
from tools import HAMMER

@handler("add")
async def add(ctx, payload):
    return FLAT + HAMMER + EXAM + payload
""",
}
IMPORT_ALL = """
import importlib, pkgutil, eventjobs
for module in pkgutil.walk_packages(eventjobs.__path__, "eventjobs."):
    if not module.name.endswith("__main__"):
        print(importlib.import_module(module.name).__name__)
"""


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """dist/ of a fresh copy of the checkout: the sdist, and in from_sdist/ the wheel made of it."""
    checkout = tmp_path_factory.mktemp("checkout")
    for name in SOURCES:
        source = ROOT / name
        if source.is_file():
            shutil.copy(source, checkout)
        else:
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source, checkout / name, symlinks=True, ignore=ignored)
    build(checkout, "--sdist", "--wheel", "--outdir", "dist")
    [sdist] = (checkout / "dist").glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(checkout, filter="data")
    build(
        checkout / sdist.name.removesuffix(".tar.gz"), "--wheel", "--outdir", "../dist/from_sdist"
    )
    return checkout / "dist"


def build(folder: Path, *options: str) -> None:
    command = [sys.executable, "-W", "error", "-m", "build", "--no-isolation", *options]
    environment = {name: value for name, value in os.environ.items() if name != NO_BYTECODE}
    run = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout
    assert "warning" not in run.stdout.lower(), run.stdout


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    [wheel] = dist.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel, and the dependencies of the running one."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=True)
    site_packages = packages_of(folder)
    pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python")]
    options = ["--quiet", "--no-deps", "--no-index", "--no-compile", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", *options, wheel], check=True)
    # A .pth file of a folder that is named in a .pth file is not read: the editable eventjobs of
    # the running environment stays out.
    (site_packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return folder


def packages_of(environment: Path) -> Path:
    [site_packages] = environment.glob("lib/python*/site-packages")
    return site_packages


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_the_wheel_of_the_sdist_is_the_wheel_of_the_checkout(dist: Path, wheel: Path) -> None:
    [from_sdist] = dist.glob("from_sdist/*.whl")
    assert contents(from_sdist) == contents(wheel)


def test_the_wheel_has_every_file_of_the_package(wheel: Path) -> None:
    folders = {"eventjobs": ROOT / "eventjobs", "eventjobs/projections": ROOT / "projections"}
    sources = {
        f"{name}/{path.relative_to(folder)}"
        for name, folder in folders.items()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    tools = {f"eventjobs/tools/{name}.py" for name in TOOLS}
    shipped = {name for name in contents(wheel) if ".dist-info/" not in name}
    assert shipped == sources | tools


def test_the_metadata_is_complete(wheel: Path) -> None:
    [text] = (data for name, data in contents(wheel).items() if name.endswith("/METADATA"))
    metadata = HeaderParser().parsestr(text.decode())
    assert metadata["Name"] == "eventjobs"
    assert metadata["License-Expression"] == "MIT"
    assert metadata["License-File"] == "LICENSE"
    assert metadata["Summary"]
    assert metadata["Author"]
    assert metadata["Keywords"]
    assert "Typing :: Typed" in metadata.get_all("Classifier", [])
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert metadata.get_payload() == (ROOT / "README.md").read_text()


def test_site_packages_gets_one_package_and_the_commands(environment: Path, wheel: Path) -> None:
    names = {path.name for path in packages_of(environment).iterdir()}
    names -= {"dependencies.pth", "__pycache__"}
    assert names == {"eventjobs", "-".join(wheel.name.split("-")[:2]) + ".dist-info"}
    commands = {path.name for path in (environment / "bin").glob("eventjobs*")}
    assert commands == set(PROJECT["scripts"])


def test_every_module_can_be_imported(environment: Path) -> None:
    command = [str(environment / "bin" / "python"), "-I", "-W", "error", "-c", IMPORT_ALL]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.stderr == ""
    modules = run.stdout.split()
    assert {"eventjobs.projections.status", "eventjobs.tools.replay"} <= set(modules)


@contextmanager
def serving(eventjobs: Path, folder: Path) -> Iterator[str]:
    """The address of a service with the handlers of *folder*; it has to end well."""
    command = [str(eventjobs), "serve", "--app", "shop:add", "--port", "0", "--data", "data"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.terminate()
    assert process.returncode == 0


def test_a_service_works_beside_modules_of_these_names(environment: Path, tmp_path: Path) -> None:
    for name, source in MODULES.items():
        (tmp_path / name).write_text(source)
    commands = environment / "bin"

    def run(command: str, *arguments: str) -> str:
        process = subprocess.run(
            [commands / command, *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (process.returncode, process.stdout != "") == (0, True), process.stderr
        return process.stdout

    with serving(commands / "eventjobs", tmp_path) as url:
        job = orjson.loads(run("eventjobs", "submit", "add", "4", "--wait", "--json", "--url", url))
        assert job["result"] == 1 + 2 + 3 + 4
        assert "are as the log says" in run("eventjobs-replay", "data", "--check")
    assert "were built anew" in run("eventjobs-replay", "data")
    events = [orjson.loads(line)["type"] for line in run("eventjobs-audit", "data").splitlines()]
    assert events[0] == "JobSubmitted"
    assert events[-1] == "JobCompleted"
    (tmp_path / "jobs").mkdir()
    (tmp_path / f"jobs/{job['job_id'][:-4]}0000.json").write_text('{"status": "queued"}')
    assert run("eventjobs-import", "jobs", "--data", "data").startswith("1 imported")
