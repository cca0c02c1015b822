"""Small sources and one finished debug run that many tests look at."""

from pathlib import Path

import pytest
from tests_support import textured, write_tile

from geodino.runs.pretrain import PretrainJob, pretrain


@pytest.fixture(scope="session")
def tiles(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tiles")
    for number in range(6):
        write_tile(folder / f"t{number}.tif", textured(number))
    return folder


@pytest.fixture(scope="session")
def debug_run(tiles, tmp_path_factory) -> Path:
    """A finished run of the debug recipe."""
    out = tmp_path_factory.mktemp("runs") / "debug"
    pretrain(PretrainJob(tiles=str(tiles), out=out, recipe="debug", device="cpu", quiet=True))
    return out
