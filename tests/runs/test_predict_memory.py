"""What `geodino predict` holds does not grow with the height of a raster."""

import sys

import numpy as np
import pytest
import rasterio
from heights_support import save_small_canopy
from process_support import run_python
from rasterio.transform import from_origin
from rasterio.windows import Window
from tests_support import textured

WIDTH, BLOCK = 320, 128

PREDICT = """
import sys
from pathlib import Path
from geodino.io import raster as reading
from geodino.runs.predict import PredictJob, predict
from geodino.runs.mapping.memory import used_memory
from geodino.runs.sources import Meeting

reading._CACHE_BYTES = 1 << 20  # GDAL keeps blocks: with more, of a higher raster more of them
raster, model, out = sys.argv[1:]
how = Meeting(batch=4)
predict(PredictJob(rasters=(raster,), model=model, out=Path(out), how=how, quiet=True, device="cpu"))
print(used_memory())
"""


def sparse(path, height):
    """A raster of which a few blocks exist; the others are nodata and take no room."""
    profile = {
        "driver": "GTiff", "width": WIDTH, "height": height, "count": 3, "dtype": "uint8",
        "nodata": 0, "crs": "EPSG:32632", "transform": from_origin(500_000, 5_400_000, 0.6, 0.6),
        "tiled": True, "blockxsize": BLOCK, "blockysize": BLOCK, "interleave": "pixel",
        "SPARSE_OK": True, "compress": "deflate",
    }  # fmt: skip
    pixels = np.maximum(np.tile(textured(0), (1, 3, 3))[:, :BLOCK, :BLOCK], 1)
    with rasterio.open(path, "w", **profile) as target:
        for top in (0, 2 * BLOCK, (height // BLOCK - 1) * BLOCK):
            target.write(pixels, window=Window(BLOCK, top, BLOCK, BLOCK))
    return path


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_a_raster_twenty_times_as_high_takes_no_more_memory(tmp_path):
    model = save_small_canopy(tmp_path / "model")
    held = {}
    for height in (5_000, 100_000):
        raster, out = sparse(tmp_path / f"{height}.tif", height), tmp_path / f"map{height}.tif"
        done = run_python(PREDICT, raster, model, out)
        assert done.returncode == 0, done.stderr
        held[height] = int(done.stdout) / 2**20
        with rasterio.open(out) as found:
            assert found.height == height
            last = found.read(1, window=Window(0, height // BLOCK * BLOCK - BLOCK, WIDTH, BLOCK))
        assert np.isfinite(last[:, BLOCK : 2 * BLOCK]).all()
        assert np.isnan(last[:, :BLOCK]).all()
    assert held[100_000] < held[5_000] + 32
