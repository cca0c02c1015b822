"""``DataArray.geodino``: features of an array where the array already is."""

from collections.abc import Sequence
from os import PathLike, fspath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import xarray

    from geodino.api.model import Model


class Accessor:
    """What geodino does with a DataArray; reached as ``array.geodino``."""

    def __init__(self, array: "xarray.DataArray") -> None:
        self._array = array

    def embed(
        self,
        model: "Model | str | PathLike[str]",
        *,
        bands: Sequence[str | int] | None = None,
        scale: float | None = None,
        accept: Sequence[str] = (),
        gsd_m: float | None = None,
        chip: int | None = None,
        overlap: int | None = None,
        batch: int | None = None,
        precision: str = "auto",
        device: str = "auto",
    ) -> "xarray.DataArray":
        """Return dense features ``embedding (band, y, x)`` with the array's CRS.

        Args:
            model: what ``geodino.load`` returns, or a run or model folder.
            bands: see ``geodino.load(...).embed``, as all that follow.
            scale: see there.
            accept: see there.
            gsd_m: see there.
            chip: see there.
            overlap: see there.
            batch: see there.
            precision: see there.
            device: see there.

        Raises:
            geodino.errors.GeodinoError: a mistake the caller can mend.
        """
        return _opened(model).embed(
            self._array,
            bands=bands,
            scale=scale,
            accept=accept,
            gsd_m=gsd_m,
            chip=chip,
            overlap=overlap,
            batch=batch,
            precision=precision,
            device=device,
        )

    def predict(
        self,
        model: "Model | str | PathLike[str]",
        *,
        bands: Sequence[str | int] | None = None,
        scale: float | None = None,
        accept: Sequence[str] = (),
        gsd_m: float | None = None,
        chip: int | None = None,
        overlap: int | None = None,
        batch: int | None = None,
        precision: str = "auto",
        symmetries: str = "none",
        applicability: bool = False,
        device: str = "auto",
    ) -> "xarray.DataArray":
        """Return the canopy height ``height (band, y, x)`` on the array's grid, metres.

        Args:
            model: what ``geodino.load`` returns, or a run or model folder with a canopy head.
            bands: see ``geodino.load(...).predict``, as all that follow.
            scale: see there.
            accept: see there.
            gsd_m: see there.
            chip: see there.
            overlap: see there.
            batch: see there.
            precision: see there.
            symmetries: see there.
            applicability: see there.
            device: see there.

        Raises:
            geodino.errors.GeodinoError: a mistake the caller can mend.
        """
        return _opened(model).predict(
            self._array,
            bands=bands,
            scale=scale,
            accept=accept,
            gsd_m=gsd_m,
            chip=chip,
            overlap=overlap,
            batch=batch,
            precision=precision,
            symmetries=symmetries,
            applicability=applicability,
            device=device,
        )

    def features(self) -> "xarray.DataArray":
        """Return features as numbers: int8 of ``geodino embed`` times its ``scale_factor``.

        Arrays without that coordinate are returned as they are.
        """
        if "scale_factor" not in self._array.coords:
            return self._array
        restored = self._array * self._array["scale_factor"]
        return restored.drop_vars("scale_factor").rename(self._array.name)


def _opened(model: "Model | str | PathLike[str]") -> "Model":
    from geodino.api import load

    return load(fspath(model)) if isinstance(model, str | PathLike) else model
