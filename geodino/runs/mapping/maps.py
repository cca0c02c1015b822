"""The maps of a job: for each raster where it goes, how it is cut, and what identifies it."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import rasterio
import torch
from rasterio.errors import RasterioIOError

from geodino import __version__
from geodino.data.loader import default_threads
from geodino.errors import ContractError, SourceError
from geodino.geo.grid import Grid
from geodino.geo.windows import Window
from geodino.infer.chips import Raster, patch_grid
from geodino.infer.cover import Cover
from geodino.infer.engine import Predictor
from geodino.infer.ground import Regrid
from geodino.infer.render import Product, Rendering
from geodino.io.area import Area
from geodino.io.cog.journal import Committed
from geodino.io.cog.layout import Layer, Layout
from geodino.io.cog.parts import PartsWriter
from geodino.io.zarr.write import attributes_of, refuse_rotated
from geodino.runs.device import compute_type
from geodino.runs.mapping.job import MapJob
from geodino.runs.mapping.memory import Need, need
from geodino.runs.mapping.planned import Planned
from geodino.runs.sources import Source

JOB_TAG = "GEODINO_JOB"
"""Tag that says which job made a map: a map of the same job need not be made again."""

P = TypeVar("P", bound=Planned)


@dataclass(frozen=True, kw_only=True)
class Map(Planned):
    """One raster and the map that is made of it; its parts are supertiles."""

    files: Mapping[str, Path]
    """Where each layer goes, by its name; the first is the map."""

    rendering: Rendering
    fit: str | None = None
    """Hash of what was fitted before the map is made; parts of two fits do not mix."""

    @property
    def path(self) -> Path:
        """The map."""
        return next(iter(self.files.values()))

    @property
    def written(self) -> tuple[Path, ...]:
        """Its layers, and what lies beside them."""
        return (*self.files.values(), *self.beside)

    @property
    def parts_key(self) -> dict[str, Any]:
        """What its parts must agree on."""
        return self.key if self.fit is None else {**self.key, "fit": self.fit}

    @property
    def layers(self) -> tuple[Layer, ...]:
        """What is stored."""
        return self.rendering.product.layers

    @property
    def layout(self) -> Layout:
        """How it is cut."""
        return self.rendering.layout

    @property
    def outside(self) -> list[int]:
        """Supertiles that hold nothing wanted."""
        return sorted(set(range(len(self.layout))) - set(self.numbers))

    @property
    def stride(self) -> int:
        """Pixels of the raster per pixel of the map, along each axis."""
        return self.rendering.predictor.stride

    def made_by(self) -> str | None:
        """Return which job made the file or store where the map goes."""
        if self.path.is_dir():
            said = attributes_of(self.path).get(JOB_TAG)
            return said if isinstance(said, str) else None
        try:
            with rasterio.open(self.path) as there:
                made: str | None = there.tags().get(JOB_TAG)
        except RasterioIOError:
            return None
        return made

    def pixels(self, numbers: Sequence[int] | None = None) -> int:
        """Return how many pixels of the raster some supertiles, or all, go through."""
        chosen = self.numbers if numbers is None else numbers
        return sum(self.layout.window(number).area for number in chosen) * self.stride**2

    def window(self, number: int) -> Window:
        """Return the pixels of the raster under a supertile."""
        return pixels_under(self.layout.window(number), self.stride)

    def digest(self, number: int, *, threads: Executor) -> str:
        """Return the digest of the pixels under a supertile."""
        return self.rendering.digest(number, threads=threads)

    def need(self) -> Need:
        """Return what rendering takes beside the model."""
        bands, itemsize = self.stored()
        return need(self.rendering, bands=bands, itemsize=itemsize)

    def warm_up(self) -> None:
        """Compute one batch of nothing."""
        cover, predictor = self.rendering.cover, self.rendering.predictor
        bands, _ = self.stored()
        predictor(*cover.blank(bands, device=predictor.device))

    def narrowed(self, columns: int) -> "Map":
        """Return the map with at most so many supertiles in memory side by side."""
        return replace(self, rendering=replace(self.rendering, columns=columns))

    @contextmanager
    def begun(self, shard: tuple[int, int]) -> Iterator["_Begun"]:
        """Open the supertiles."""
        with PartsWriter(
            self.parts,
            layout=self.layout,
            layers=self.layers,
            key=self.parts_key,
            shard=shard,
            threads=default_threads(),
        ) as parts:
            yield _Begun(self, parts)


@dataclass(frozen=True, slots=True)
class _Begun:
    """Supertiles that are being made."""

    map: Map
    parts: PartsWriter

    @property
    def committed(self) -> Mapping[int, Committed]:
        return self.parts.committed

    def run(
        self, numbers: Sequence[int], *, threads: Executor, advance: Callable[[int], None]
    ) -> None:
        """Render supertiles and commit each."""
        self.map.rendering.run(
            self.parts,
            numbers,
            threads=threads,
            advance=lambda count: advance(count * self.map.stride**2),
            facts={"source": self.map.content},
        )


def shared_key(
    job: MapJob,
    *,
    model: str,
    chip: int,
    overlap: int,
    group: int,
    gsd_m: float | None,
    device: torch.device,
) -> dict[str, Any]:
    """Return what the pixels of every map of a job depend on.

    Args:
        job: what was asked.
        model: hash of its weights.
        chip: side of a chip, pixels.
        overlap: pixels that chips share.
        group: chips that are computed together.
        gsd_m: ground sampling distance the model is shown, metres; None is the raster's.
        device: that computes.
    """
    return {
        "model": model,
        "version": __version__,
        "chip": chip,
        "overlap": overlap,
        "group": group,
        "gsd_m": gsd_m,
        "device": device.type,
        "scale": job.how.scale,
        "precision": str(compute_type(job.how.precision, device)).removeprefix("torch."),
        "bands": None if job.how.bands is None else list(job.how.bands),
        "data": list(job.overrides),
        "aoi": None if job.aoi is None else hashlib.sha256(job.aoi.read_bytes()).hexdigest(),
    }


def plan_map(
    job: MapJob,
    source: Source,
    predictor: Predictor,
    product: Product,
    *,
    files: Mapping[str, Path],
    key: dict[str, Any],
    beside: Sequence[Path] = (),
    parts_at: Path | None = None,
) -> Map:
    """Plan the map of a raster; only GeoTIFFs have overviews.

    Raises:
        ContractError: a resolution is asked of a raster that has none.
        SourceError: the area cannot be read.
    """
    raster, regrid = seen_by(source, key["gsd_m"])
    if predictor.stride > 1:
        # A map of patches lies on the model's grid: there is no way back to the pixels.
        regrid = None
    else:
        raster = source.raster
    seen = raster.grid if regrid is None else regrid.model
    cover = Cover.of(
        seen.height,
        seen.width,
        chip=key["chip"],
        overlap=key["overlap"],
        align=predictor.align,
        stride=predictor.stride,
        group=key["group"],
    )
    grid = patch_grid(raster.grid, predictor.stride) if predictor.stride > 1 else raster.grid
    layout = Layout.plan(grid, product.layers)
    if job.is_store:
        layout = replace(layout, levels=0)
    area = None if job.aoi is None else Area.on(job.aoi, raster.grid)
    rendering = Rendering(
        raster=raster,
        predictor=predictor,
        product=product,
        cover=cover,
        layout=layout,
        regrid=regrid,
        wanted=None if area is None else area.inside,
    )
    under = [pixels_under(layout.window(n), predictor.stride) for n in range(len(layout))]
    numbers = [
        number
        for number, window in enumerate(under)
        if raster.may_hold(window) and (area is None or area.touches(window))
    ]
    made_of = {"rasters": [one.name for one in source.origins]} if source.members else {}
    return Map(
        source=source,
        files=files,
        beside=tuple(beside),
        parts_at=parts_at,
        rendering=rendering,
        numbers=tuple(numbers),
        key={**key, "seen": [seen.height, seen.width], **made_of},
    )


def seen_by(source: Source, gsd_m: float | None) -> tuple[Raster, Regrid | None]:
    """Return a raster as a model sees it at a resolution, and how the two grids lie.

    Raises:
        ContractError: a resolution is asked of a raster that has none.
    """
    if gsd_m is None:
        return source.raster, None
    regrid = regrid_of(source.raster.grid, gsd_m, name=source.path)
    return regrid.seen(source.raster), regrid


def regrid_of(grid: Grid, gsd_m: float, *, name: str) -> Regrid:
    """Return the grid a model is shown.

    Raises:
        ContractError: the raster has no resolution.
    """
    if grid.gsd_m is None:
        raise ContractError(
            f"{name} has no place on the Earth, so its pixels have no size and cannot be shown at "
            f"{gsd_m:g} m (--gsd, or what the model was made with). Give the raster its CRS and "
            "transform, take another model, or leave --gsd out."
        )
    return Regrid.to_gsd(grid, gsd_m)


def pixels_under(window: Window, stride: int) -> Window:
    """Return the pixels of the raster under a window of its map."""
    return Window(
        *(edge * stride for edge in (window.top, window.left, window.height, window.width))
    )


def refuse_turned(job: MapJob, sources: Sequence[Source]) -> None:
    """Refuse to write a store of a rotated grid, which x and y cannot describe.

    Raises:
        RunError: naming the way out.
    """
    if job.is_store:
        for source in sources:
            refuse_rotated(source.raster.grid)


def refuse_elsewhere(job: MapJob, sources: Sequence[Source]) -> None:
    """Refuse an area that no raster shares a pixel with.

    Raises:
        SourceError: naming the area.
    """
    if job.aoi is None:
        return
    for source in sources:
        grid = source.raster.grid
        if Area.on(job.aoi, grid).touches(Window(0, 0, grid.height, grid.width)):
            return
    what = sources[0].path if len(sources) == 1 else f"any of the {len(sources)} rasters"
    raise SourceError(
        f"--aoi: {job.aoi} lies outside {what}: there is nothing to map. Check the area's CRS, or "
        "name the rasters it lies on."
    )


def with_product(one: Map, product: Product, *, fit: str) -> Map:
    """Return the map with a product that was fitted meanwhile."""
    return replace(one, rendering=replace(one.rendering, product=product), fit=fit)


def share(planned: Sequence[P], shard: tuple[int, int]) -> list[tuple[P, list[int]]]:
    """Return the parts of a shard, raster by raster: a run of neighbours of all there are."""
    number, count = shard
    every = [(i, n) for i, one in enumerate(planned) for n in one.numbers]
    mine = every[len(every) * (number - 1) // count : len(every) * number // count]
    return [(one, [n for j, n in mine if j == i]) for i, one in enumerate(planned)]
