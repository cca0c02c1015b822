"""Maps of rasters: the functions that mirror ``geodino embed``, ``predict`` and ``change``."""

from collections.abc import Mapping, Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from geodino.api.words import assignments
from geodino.runs.change import ChangeJob
from geodino.runs.change import change as _change
from geodino.runs.embed import EmbedJob
from geodino.runs.embed import embed as _embed
from geodino.runs.mapping.job import parse_memory, parse_shard
from geodino.runs.predict import PredictJob
from geodino.runs.predict import predict as _predict
from geodino.runs.sources import Meeting

_Path = str | PathLike[str]


def embed(
    rasters: _Path | Sequence[_Path],
    model: _Path,
    out: _Path,
    *,
    dtype: str = "float32",
    pca: int = 0,
    pool: str = "mean",
    bands: Sequence[str | int] | None = None,
    scale: float | None = None,
    accept: Sequence[str] = (),
    gsd_m: float | None = None,
    chip: int | None = None,
    overlap: int | None = None,
    batch: int | None = None,
    precision: str = "auto",
    mosaic: str | None = None,
    aoi: _Path | None = None,
    max_memory: str | None = None,
    shard: str | None = None,
    assemble: bool = False,
    resume: bool = False,
    datetime: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    seed: int = 0,
    device: str = "auto",
    overwrite: bool = False,
    strict: bool = False,
    dry_run: bool = False,
    quiet: bool = False,
) -> dict[str, Any]:
    """Write features of rasters as COG, zarr or GeoParquet; ``geodino embed`` as a function.

    Args:
        rasters: folder, glob, raster or tile index, or several of them.
        model: see `load`.
        out: ``FILE.tif``, ``FILE.zarr``, ``FILE.parquet``, or a folder for a GeoTIFF each.
        dtype: ``float32``, ``float16`` (not in GeoTIFF) or ``int8``.
        pca: 3 adds a picture of the first principal components.
        pool: what a row of a table is: ``mean`` of the patch tokens, or ``cls``.
        bands: what to read in the model's order: names, or numbers (the first is 1).
        scale: what stored values are multiplied by before the model.
        accept: differences from the training data to take as they are: ``gsd``, ``units``,
            ``values``.
        gsd_m: metres per pixel that the model is shown, and a patch of which becomes a pixel; None
            is each raster's own.
        chip: side of a chip, pixels; None is that of the training crops.
        overlap: pixels that chips of a map share; None is 64, or half a chip where that is less.
        batch: chips per forward pass; None fits the device.
        precision: what matrices are multiplied in: ``float32``, ``bfloat16``, or ``auto``: bfloat16
            on CUDA.
        mosaic: one map of rasters that overlap: where they do counts the ``first`` of them that is
            valid, the ``last``, the ``newest`` or the ``oldest``.
        aoi: vector file: only its areas are encoded.
        max_memory: what this process may hold, such as ``2GB``; None is half of the machine's.
        shard: ``i/n`` writes part i of n of maps; ``assemble`` joins them.
        assemble: join what the shards wrote.
        resume: go on with maps that were begun.
        datetime: acquisition of all rasters, ISO 8601; None takes each file's own.
        overrides: ``{"data.nodata": 0}``; what ``--set`` takes.
        seed: of what int8 scales and the picture are fitted on.
        device: see `pretrain`.
        overwrite: replace files that are there.
        strict: an unreadable raster stops the job.
        dry_run: validate, say what would be made, stop.
        quiet: say nothing.

    Returns:
        What was written, and what quantisation cost.

    Raises:
        geodino.errors.GeodinoError: a mistake the caller can mend.
    """
    return _embed(
        EmbedJob(
            rasters=_named(rasters),
            model=fspath(model),
            out=Path(out),
            dtype=dtype,
            pca=pca,
            pool=pool,
            how=Meeting.asked(
                bands=bands, scale=scale, accept=accept, chip=chip, batch=batch, precision=precision
            ),
            gsd_m=gsd_m,
            overlap=overlap,
            mosaic=mosaic,
            aoi=None if aoi is None else Path(aoi),
            max_memory=parse_memory(max_memory),
            shard=parse_shard(shard),
            assemble=assemble,
            resume=resume,
            overrides=assignments(overrides),
            datetime=datetime,
            seed=seed,
            device=device,
            overwrite=overwrite,
            strict=strict,
            dry_run=dry_run,
            quiet=quiet,
        )
    )


def predict(
    rasters: _Path | Sequence[_Path],
    model: _Path,
    out: _Path,
    *,
    dtype: str = "float32",
    symmetries: str = "none",
    interval: bool = True,
    applicability: bool = False,
    score: float | None = None,
    bands: Sequence[str | int] | None = None,
    scale: float | None = None,
    accept: Sequence[str] = (),
    gsd_m: float | None = None,
    chip: int | None = None,
    overlap: int | None = None,
    batch: int | None = None,
    precision: str = "auto",
    mosaic: str | None = None,
    aoi: _Path | None = None,
    max_memory: str | None = None,
    shard: str | None = None,
    assemble: bool = False,
    resume: bool = False,
    datetime: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    device: str = "auto",
    overwrite: bool = False,
    strict: bool = False,
    dry_run: bool = False,
    quiet: bool = False,
) -> dict[str, Any]:
    """Map rasters, or find objects in them, with a model that has a head: ``geodino predict``.

    Args:
        rasters: folder, glob, raster or tile index, or several of them.
        model: run or model folder with a head, ``hub:OWNER/NAME``, or ``BACKBONE+HEAD``.
        out: ``FILE.tif``, ``FILE.zarr``, or a folder for a GeoTIFF each; of a model that finds objects
            one table, ``FILE.parquet`` or ``FILE.geojson``.
        dtype: ``float32`` (metres) or ``uint16`` (centimetres).
        symmetries: mean over orientations: ``none``, ``flips`` (4) or ``turns`` (8).
        interval: write bands ``lower`` and ``upper``, where the model is calibrated.
        applicability: write the band ``dissimilarity``: how far the ground is from the training
            ground; above 1 it is unlike nearly all of it.
        score: least score of objects; None is what the model was made with.
        bands: see `embed`, as all of the following that are not explained.
        scale: see `embed`.
        accept: see `embed`.
        gsd_m: metres per pixel that the model is shown; the map keeps the raster's. None is what
            the model was made with.
        chip: side of a chip, pixels; None is what the model was made with.
        overlap: pixels that chips share; None as for ``chip``.
        batch: see `embed`.
        precision: see `embed`.
        mosaic: see `embed`.
        aoi: see `embed`.
        max_memory: see `embed`.
        shard: see `embed`.
        assemble: see `embed`.
        resume: see `embed`.
        datetime: see `embed`.
        overrides: see `embed`.
        device: see `pretrain`.
        overwrite: see `embed`.
        strict: see `embed`.
        dry_run: see `embed`.
        quiet: say nothing.

    Returns:
        What was written, how fast, and of maps how much the borders of chips show.

    Raises:
        geodino.errors.GeodinoError: a mistake the caller can mend.
    """
    return _predict(
        PredictJob(
            rasters=_named(rasters),
            model=fspath(model),
            out=Path(out),
            dtype=dtype,
            symmetries=symmetries,
            interval=interval,
            applicability=applicability,
            score=score,
            how=Meeting.asked(
                bands=bands, scale=scale, accept=accept, chip=chip, batch=batch, precision=precision
            ),
            gsd_m=gsd_m,
            overlap=overlap,
            mosaic=mosaic,
            aoi=None if aoi is None else Path(aoi),
            max_memory=parse_memory(max_memory),
            shard=parse_shard(shard),
            assemble=assemble,
            resume=resume,
            overrides=assignments(overrides),
            datetime=datetime,
            device=device,
            overwrite=overwrite,
            strict=strict,
            dry_run=dry_run,
            quiet=quiet,
        )
    )


def change(
    before: _Path,
    after: _Path,
    model: _Path,
    out: _Path,
    *,
    dtype: str = "float32",
    bands: Sequence[str | int] | None = None,
    scale: float | None = None,
    accept: Sequence[str] = (),
    gsd_m: float | None = None,
    chip: int | None = None,
    overlap: int | None = None,
    batch: int | None = None,
    precision: str = "auto",
    mosaic: str | None = None,
    aoi: _Path | None = None,
    max_memory: str | None = None,
    shard: str | None = None,
    assemble: bool = False,
    resume: bool = False,
    overrides: Mapping[str, Any] | None = None,
    device: str = "auto",
    overwrite: bool = False,
    dry_run: bool = False,
    quiet: bool = False,
) -> dict[str, Any]:
    """Map how much the ground changed between two dates; ``geodino change`` as a function.

    Change is the cosine distance of the frozen features of both dates: 1 - cosine of the two
    tokens of each patch, 0 for the same. A patch is nodata where none of its pixels is valid on
    both dates; the band ``valid`` tells the share of them that are.

    Args:
        before: raster of the earlier date.
        after: raster of the later date, on the same grid up to half a pixel.
        model: see `load`.
        out: ``FILE.tif``, a pixel for each patch.
        dtype: ``float32``, or ``uint8`` (hundredths, scale 0.01).
        bands: see `embed`, as all of the following that are not explained.
        scale: see `embed`.
        accept: see `embed`.
        gsd_m: see `embed`.
        chip: see `embed`.
        overlap: see `embed`.
        batch: see `embed`.
        precision: see `embed`.
        mosaic: see `embed`; of several rasters of a date.
        aoi: see `embed`.
        max_memory: see `embed`.
        shard: see `embed`.
        assemble: see `embed`.
        resume: see `embed`.
        overrides: see `embed`.
        device: see `pretrain`.
        overwrite: see `embed`.
        dry_run: see `embed`.
        quiet: say nothing.

    Returns:
        What was written, and of the valid patches their number and the ``median``, ``p95`` and
        ``p99`` of change.

    Raises:
        geodino.errors.GeodinoError: a mistake the caller can mend.
    """
    return _change(
        ChangeJob(
            rasters=(fspath(before), fspath(after)),
            model=fspath(model),
            out=Path(out),
            dtype=dtype,
            how=Meeting.asked(
                bands=bands, scale=scale, accept=accept, chip=chip, batch=batch, precision=precision
            ),
            gsd_m=gsd_m,
            overlap=overlap,
            mosaic=mosaic,
            aoi=None if aoi is None else Path(aoi),
            max_memory=parse_memory(max_memory),
            shard=parse_shard(shard),
            assemble=assemble,
            resume=resume,
            overrides=assignments(overrides),
            device=device,
            overwrite=overwrite,
            dry_run=dry_run,
            quiet=quiet,
        )
    )


def _named(rasters: _Path | Sequence[_Path]) -> tuple[str, ...]:
    """Return one raster or several as the command line names them."""
    several = [rasters] if isinstance(rasters, str | PathLike) else rasters
    return tuple(fspath(raster) for raster in several)
