"""``DataArray.geodino``: features of an array where the array already is."""

from collections.abc import Sequence
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import xarray


class Accessor:
    """What geodino does with a DataArray; reached as ``array.geodino``."""

    def __init__(self, array: "xarray.DataArray") -> None:
        self._array = array

    def embed(
        self,
        model: Any,
        *,
        bands: Sequence[str | int] | None = None,
        scale: float | None = None,
        accept: Sequence[str] = (),
        chip: int | None = None,
        batch: int | None = None,
        device: str = "auto",
    ) -> "xarray.DataArray":
        """Return dense features ``embedding (band, y, x)`` with the array's CRS.

        Args:
            model: what ``geodino.load`` returns, or a run or model folder.
            bands: see ``geodino.load(...).embed``, as all that follow.
            scale: see there.
            accept: see there.
            chip: see there.
            batch: see there.
            device: see there.

        Raises:
            geodino.errors.GeodinoError: a mistake the caller can mend.
        """
        from geodino.api import load

        opened = load(fspath(model)) if isinstance(model, str | PathLike) else model
        return opened.embed(
            self._array,
            bands=bands,
            scale=scale,
            accept=accept,
            chip=chip,
            batch=batch,
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
