"""The tile index as a file, and back."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from geodino.data.members import Member
from geodino.data.recoding import Recoding
from geodino.data.tiles import Part, Quality, Tile, TileIndex
from geodino.geo.bands import Band
from geodino.geo.validity import ReadRule
from geodino.io.index_file import read_index, write_index
from geodino.io.raster import RasterInfo


def save_index(index: TileIndex, path: str | Path) -> None:
    """Write the index as GeoParquet 1.1."""
    tiles = index.tiles
    write_index(
        path,
        grids=[tile.grid for tile in tiles],
        rasters=[_rasters(tile) for tile in tiles],
        columns={
            "path": [tile.path for tile in tiles],
            "gsd_x_m": [tile.gsd_m[0] if tile.gsd_m else None for tile in tiles],
            "gsd_y_m": [tile.gsd_m[1] if tile.gsd_m else None for tile in tiles],
            "dtype": [tile.dtype for tile in tiles],
            "datetime": [tile.datetime for tile in tiles],
            "datetime_from": [tile.datetime_from for tile in tiles],
            "valid_share": [tile.valid_share for tile in tiles],
            "source": [tile.source for tile in tiles],
            "weight": [tile.weight for tile in tiles],
            "bands": [[list(part.bands) for part in tile.parts] for tile in tiles],
            "resampling": [tile.resampling for tile in tiles],
            "quality": [_quality_row(tile.quality) for tile in tiles],
            "recoding": [_recoding_row(tile.recoding) for tile in tiles],
        },
        record={
            "root": index.root,
            "bands": [band.model_dump() for band in index.bands],
            "dtype": index.dtype,
            "rule": index.rule.model_dump(),
            "notes": index.notes,
            "bad": index.bad,
            "declared": index.declared,
            "members": [member.model_dump(mode="json") for member in index.members],
            "homogeneous": index.homogeneous,
        },
    )


def load_index(path: str | Path) -> TileIndex:
    """Read back what :func:`save_index` wrote; the tiles themselves are not looked at.

    Raises:
        SourceError: not such a file.
    """
    grids, rasters, columns, record = read_index(path)
    tiles = []
    for i, (grid, infos) in enumerate(zip(grids, rasters, strict=True)):
        row = {name: values[i] for name, values in columns.items()}
        parts = tuple(
            Part(info, tuple(bands))
            for info, bands in zip(infos[: len(row["bands"])], row["bands"], strict=True)
        )
        gsd = (row["gsd_x_m"], row["gsd_y_m"])
        tiles.append(
            Tile(
                path=row["path"],
                grid=grid,
                parts=parts,
                gsd_m=None if gsd[0] is None or gsd[1] is None else gsd,
                resampling=row["resampling"],
                quality=_quality(row["quality"], infos),
                recoding=_recoding(row["recoding"]),
                datetime=row["datetime"],
                datetime_from=row["datetime_from"],
                valid_share=row["valid_share"],
                source=row.get("source", ""),
                weight=row["weight"],
            )
        )
    return TileIndex(
        root=record["root"],
        tiles=tuple(tiles),
        bands=tuple(Band.model_validate(band) for band in record["bands"]),
        dtype=record["dtype"],
        rule=ReadRule.model_validate(record["rule"]),
        notes=tuple(record["notes"]),
        bad=tuple((path, reason) for path, reason in record["bad"]),
        declared=record.get("declared", {}),
        members=tuple(Member.model_validate(member) for member in record.get("members", ())),
        homogeneous=record.get("homogeneous", 0.0),
    )


def _rasters(tile: Tile) -> list[RasterInfo]:
    """The rasters of a tile, the quality layer's last."""
    layer = [] if tile.quality is None else [tile.quality.part.info]
    return [*(part.info for part in tile.parts), *layer]


def _quality_row(quality: Quality | None) -> dict[str, Any] | None:
    if quality is None:
        return None
    return {
        "encoding": quality.encoding,
        "numbers": list(quality.numbers),
        "bands": list(quality.part.bands),
    }


def _quality(row: Mapping[str, Any] | None, infos: list[RasterInfo]) -> Quality | None:
    if row is None:
        return None
    part = Part(infos[-1], tuple(row["bands"]))
    return Quality(part, row["encoding"], tuple(row["numbers"]))


def _recoding_row(recoding: Recoding | None) -> dict[str, Any] | None:
    if recoding is None:
        return None
    return {
        "dtype": recoding.dtype,
        "gain": list(recoding.gain),
        "bias": list(recoding.bias),
        "decibel": recoding.decibel,
    }


def _recoding(row: Mapping[str, Any] | None) -> Recoding | None:
    if row is None:
        return None
    return Recoding(
        dtype=row["dtype"],
        gain=tuple(row["gain"]),
        bias=tuple(row["bias"]),
        decibel=row["decibel"],
    )
