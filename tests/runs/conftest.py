"""Small sources and one finished debug run that many tests look at."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from canopy_support import write_backbone
from tests_support import textured, write_tile

from geodino.runs.pretrain import PretrainJob, pretrain
from geodino.runs.train import Training


@pytest.fixture(scope="session")
def tiles(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tiles")
    for number in range(6):
        write_tile(folder / f"t{number}.tif", textured(number))
    return folder


@pytest.fixture(scope="session", autouse=True)
def reports() -> Iterator[Callable[[], AbstractContextManager[None]]]:
    """Within ``reports()`` runs end with their report; elsewhere not: its plots cost a short run
    more than its training. Runs in processes of their own always draw it.
    """
    draw, drawn = Training._report, []
    patch = pytest.MonkeyPatch()
    patch.setattr(Training, "_report", lambda training: draw(training) if drawn else {})

    @contextmanager
    def within() -> Iterator[None]:
        drawn.append(True)
        try:
            yield
        finally:
            drawn.pop()

    yield within
    patch.undo()


@pytest.fixture(scope="session")
def backbone(tmp_path_factory) -> Path:
    """An untrained model of uint8 red, green and blue."""
    return write_backbone(tmp_path_factory.mktemp("backbone"))


@pytest.fixture(scope="session")
def debug_run(tiles, reports, tmp_path_factory) -> Path:
    """A finished run of the debug recipe, with its report."""
    out = tmp_path_factory.mktemp("runs") / "debug"
    with reports():
        pretrain(PretrainJob(tiles=str(tiles), out=out, recipe="debug", device="cpu", quiet=True))
    return out
