"""One raster of a user's, from a path or an xarray array, for a map in memory."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from os import PathLike, fspath
from typing import TYPE_CHECKING

from geodino.errors import SourceError
from geodino.geo.contract import InputContract
from geodino.infer.chips import Raster
from geodino.infer.ground import Regrid
from geodino.io.data_array import open_array
from geodino.io.raster import HandlePool
from geodino.runs.mapping.maps import regrid_of
from geodino.runs.sources import Meeting, offer_of, open_sources

if TYPE_CHECKING:
    import xarray


@contextmanager
def one_raster(
    image: "str | PathLike[str] | xarray.DataArray",
    contract: InputContract,
    how: Meeting,
    *,
    overrides: Sequence[str] = (),
) -> Iterator[tuple[Raster, Regrid | None]]:
    """Yield a raster that fits a model, and the grid the model is shown where that is another.

    Args:
        image: a raster, or an array (band, y, x) of stored values.
        contract: of the model.
        how: what the user says about it.
        overrides: ``data.KEY=VALUE``, how a file is read.

    Raises:
        SourceError: it cannot be read, the path names several, or the array is no image.
        BandError: a band that was asked for is not there.
        ContractError: it is not what the model was trained on.
    """
    if not isinstance(image, str | PathLike):
        opened = open_array(image, valid=contract.valid, fill=contract.mean, choose=how.bands)
        raster = Raster(name=opened.name, grid=opened.grid, read=opened.read)
        offer = offer_of(raster, opened.bands, opened.dtype, contract, how)
        contract.check(offer, accept=how.accept)
        yield raster, _regrid(raster, how)
        return
    path = fspath(image)
    with HandlePool() as pool:
        found = open_sources([path], contract, how, pool=pool, overrides=overrides)
        if len(found.sources) > 1:
            raise SourceError(
                f"{path} holds {len(found.sources)} rasters; an array holds one. Name one of them, "
                "or write all of them with geodino.embed(...) or geodino.predict(...)."
            )
        raster = found.sources[0].raster
        yield raster, _regrid(raster, how)


def _regrid(raster: Raster, how: Meeting) -> Regrid | None:
    return None if how.gsd_m is None else regrid_of(raster.grid, how.gsd_m, name=raster.name)
