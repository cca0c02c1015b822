import pytest

from geodino.world.scene import scene


@pytest.fixture(scope="session")
def village():
    """Every kind of land cover from the air, with a few houses."""
    return scene(0, height=400, width=400, top=-200, left=-700)


@pytest.fixture(scope="session")
def halls():
    """An industrial quarter."""
    return scene(7, height=400, width=400, top=-600, left=-700)


@pytest.fixture(scope="session")
def country():
    """Four by four kilometres from space."""
    return scene(3, height=400, width=400, sensor="s2")
