import pytest

from geodino.world.scene import scene


@pytest.fixture(scope="session")
def town():
    """Halls, houses, wood, water and fields from the air."""
    return scene(0, height=420, width=420, top=-250, left=-300)


@pytest.fixture(scope="session")
def country():
    """Four by four kilometres from space."""
    return scene(3, height=400, width=400, sensor="s2")
