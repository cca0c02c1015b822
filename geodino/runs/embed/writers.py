"""Where the features of `geodino embed` go: maps as COG or zarr with their pictures, or a table."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from affine import Affine
from jaxtyping import Float, Shaped

from geodino.errors import RunError
from geodino.geo.grid import Grid
from geodino.infer.chips import ContentHash
from geodino.infer.encode import Encoded, Strip
from geodino.infer.preview import COMPONENTS, Preview
from geodino.infer.quantise import NODATA, Quantiser
from geodino.io.cog_rows import CogWriter
from geodino.io.feature_table import FeatureTable
from geodino.io.metadata import Point
from geodino.io.zarr.write import ZarrMap, ZarrWriter
from geodino.runs.embed.job import Work
from geodino.runs.embed.plan import Plan
from geodino.runs.sources import Source


@dataclass(frozen=True, kw_only=True, slots=True)
class Storage:
    """How features are stored."""

    dtype: str
    """``float32``, ``float16`` or ``int8``."""

    dim: int
    quantiser: Quantiser | None
    """For int8."""

    @property
    def nodata(self) -> float:
        """What stands where there is no feature."""
        return float(NODATA) if self.quantiser is not None else float("nan")

    @property
    def scales(self) -> list[float] | None:
        """Per dimension, ``feature = stored * scale``; None where features are stored."""
        return None if self.quantiser is None else [float(s) for s in self.quantiser.scale]

    @property
    def names(self) -> list[str]:
        """Names of the dimensions."""
        return [f"f{i}" for i in range(self.dim)]

    def stored(self, features: Float[np.ndarray, "d ..."]) -> Shaped[np.ndarray, "d ..."]:
        """Return features as they are stored.

        Raises:
            RunError: a feature too large for float16.
        """
        if self.quantiser is not None:
            return self.quantiser.quantise(features)
        if self.dtype == "float16":
            largest = np.nanmax(np.abs(features), initial=0.0)
            if largest > np.finfo(np.float16).max:
                raise RunError(
                    f"A feature of {largest:.3g} is too large for float16 (65,504). "
                    "Choose --dtype float32 or int8."
                )
        return features.astype(self.dtype)


class MapsWriter:
    """Takes strips in the order of the rasters and hands each to the map it belongs to.

    Args:
        planned: maps and their files, groups and pictures.
        storage: how features are stored.
        preview: what pictures are made with; None makes none.
        store: takes all maps; None writes a COG for each.
    """

    def __init__(
        self,
        planned: Plan,
        storage: Storage,
        *,
        preview: Preview | None,
        store: ZarrWriter | None,
    ) -> None:
        self._planned = planned
        self._storage = storage
        self._preview = preview
        self._store = store
        self._of_raster = {
            raster: (number, place)
            for number, found in enumerate(planned.maps)
            for raster, place in zip(found.rasters, found.places, strict=True)
        }

    def write(self, strips: Iterable[Strip], tags: "Tags") -> None:
        """Write all strips; a map is finished when the first strip of the next one comes."""
        current, stack = -1, ExitStack()
        target: CogWriter | ZarrMap | None = None
        picture: CogWriter | None = None
        with stack:
            for strip in strips:
                number, (row, column) = self._of_raster[strip.raster]
                if number != current:
                    self._finish(current, target, picture, tags)
                    stack.close()
                    current, target = number, self._open(number, stack)
                    picture = self._open_picture(number, stack)
                top = row + strip.top
                stored = self._storage.stored(strip.values)
                if isinstance(target, CogWriter):
                    target.write(top, stored, strip.valid)
                elif target is not None and strip.valid.any():
                    target.write(top, column, stored)
                if picture is not None and self._preview is not None:
                    colours = self._preview.colours(strip.values, strip.valid)
                    picture.write(top, colours, strip.valid, left=column)
            self._finish(current, target, picture, tags)

    def _open(self, number: int, stack: ExitStack) -> CogWriter | ZarrMap:
        storage, found = self._storage, self._planned.maps[number]
        if self._store is not None:
            return self._store.add(
                self._planned.groups[number],
                found.grid,
                bands=storage.dim,
                dtype=storage.dtype,
                nodata=storage.nodata,
                scales=storage.scales,
                attributes={"long_name": "features", "AREA_OR_POINT": self._point(number)},
                sharded=len(found.rasters) == 1,
            )
        writer = CogWriter(
            self._planned.files[number],
            grid=found.grid,
            count=storage.dim,
            dtype=storage.dtype,
            nodata=storage.nodata,
            area_or_point=self._point(number),
        )
        return stack.enter_context(writer)

    def _open_picture(self, number: int, stack: ExitStack) -> CogWriter | None:
        if self._preview is None:
            return None
        writer = CogWriter(
            self._planned.pictures[number],
            grid=self._planned.maps[number].grid,
            count=COMPONENTS,
            dtype="uint8",
            nodata=0.0,
            area_or_point=self._point(number),
            colours=True,
        )
        return stack.enter_context(writer)

    def _point(self, number: int) -> Point:
        first = self._planned.maps[number].rasters[0]
        return self._planned.sources[first].area_or_point

    def _finish(
        self,
        number: int,
        target: CogWriter | ZarrMap | None,
        picture: CogWriter | None,
        tags: "Tags",
    ) -> None:
        if target is None:
            return
        of_map = tags.of(self._planned.maps[number].rasters)
        names = self._storage.names
        if isinstance(target, CogWriter):
            target.finish(descriptions=names, tags=of_map, scales=self._storage.scales)
        else:
            target.finish(attributes=of_map)
        if picture is not None and self._preview is not None:
            shares = [
                f"component {i}: {share:.1%} of the variance"
                for i, share in enumerate(self._preview.explained, start=1)
            ]
            picture.finish(descriptions=shares, tags=of_map)


@dataclass(frozen=True, kw_only=True, slots=True)
class Tags:
    """What a product says about its making; the hashes are known when its rasters were read."""

    common: Mapping[str, str]
    sources: Sequence[Source]
    hashes: Sequence[ContentHash]

    def of(self, rasters: Sequence[int]) -> dict[str, str]:
        """Return the tags of a map made from these rasters."""
        paths = [self.sources[i].path for i in rasters]
        times = sorted({self.sources[i].time or "" for i in rasters})
        tags = {
            **self.common,
            "GEODINO_SOURCE": "; ".join(Path(path).name for path in paths),
            "GEODINO_SOURCE_SHA256": "; ".join(self.hashes[i].hexdigest() for i in rasters),
        }
        if times and times[0]:
            tags["GEODINO_ACQUIRED"] = times[0] if len(times) == 1 else f"{times[0]}/{times[-1]}"
        return tags


TABLE_COLUMNS = {
    "chip_id": "string",
    "datetime": "string",
    "gsd_m": "double",
    "source": "string",
    "model": "string",
    "crs": "string",
    "row": "int64",
    "col": "int64",
    "valid_share": "double",
}
"""Columns of the table beside vector, footprint and its bounds; ``row`` and ``col`` are the first
pixel of the chip."""


def write_table(
    table: FeatureTable, results: Iterable[Encoded], work: Work, *, storage: Storage
) -> int:
    """Write a row for each chip with a valid pixel; return how many."""
    cuts = work.cuts
    rows = 0
    for result in results:
        vector = result.pooled(work.job.pool)
        if vector is None:
            continue
        source, cut = work.sources[result.raster], cuts[result.raster]
        grid = source.raster.grid
        window = cut.window(result.row, result.column)
        part = Grid(
            grid.crs,
            grid.transform @ Affine.translation(window.left, window.top),
            width=window.width,
            height=window.height,
        )
        table.append(
            storage.stored(vector),
            part.footprint_wgs84(),
            {
                "chip_id": f"{source.name}_{result.row:05d}_{result.column:05d}",
                "datetime": source.time,
                "gsd_m": None if grid.gsd_m is None else max(grid.gsd_m),
                "source": source.path,
                "model": work.model.name,
                "crs": grid.crs,
                "row": window.top,
                "col": window.left,
                "valid_share": result.share,
            },
        )
        rows += 1
    return rows
