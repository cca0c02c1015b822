"""The table of the objects in the rasters of a job."""

import json
import shutil
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from geodino import __version__
from geodino.data.labelled.classes import Colour, default_colours
from geodino.errors import SourceError
from geodino.geo.windows import bounding
from geodino.infer.boxes import Boxes
from geodino.infer.cover import chip_group
from geodino.io.cog.parts import parts_folder
from geodino.io.item import item_path
from geodino.io.map_item import MapProduct, write_table_item
from geodino.io.object_table import COLUMNS, WGS84, Objects, crs_of, write_objects
from geodino.io.qml import style_path, write_box_style
from geodino.report.box_quicklook import write_box_quicklook
from geodino.report.quicklook import SIDE, quicklook_path
from geodino.runs.mapping.about import Parts, made_tags
from geodino.runs.mapping.maps import JOB_TAG, shared_key
from geodino.runs.mapping.parts import Room, check_parts, is_done, render
from geodino.runs.mapping.show import job_card
from geodino.runs.predict.boxes import BoxTask
from geodino.runs.predict.job import PredictJob
from geodino.runs.predict.overview import overview
from geodino.runs.predict.searched import JOB_PROPERTY, Searched, plan_search
from geodino.runs.sources import Source


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """One table of the objects in all rasters of a job."""

    job: PredictJob
    task: BoxTask
    rasters: tuple[Searched, ...]
    crs: str | None
    """Of the geometry."""

    notes: tuple[str, ...]
    """What the user should know of how it is made."""

    @classmethod
    def plan(
        cls, job: PredictJob, task: BoxTask, sources: Sequence[Source], *, device: torch.device
    ) -> "Table":
        """Plan it.

        Raises:
            RecipeError: chips that do not fit the model, or a score that it never gives.
            ContractError: a resolution is asked of a raster that has none.
            SourceError: the area cannot be read, or a raster has no place on the Earth for GeoJSON.
        """
        crs, notes = _placed(job, sources)
        size = task.detection.extra.get("size")
        if size is not None and task.gsd(job.gsd_m) is None:
            own = (
                f"{task.name} learnt from images resized to {size} px, but rasters are looked at in"
            )
            notes = (*notes, f"{own} their own pixels: --gsd shows it others")
        chip, score = task.chip(job.how.chip), task.least_score(job.score)
        key = shared_key(
            job,
            model=task.sha256,
            chip=chip,
            overlap=task.overlap(job.overlap, chip=chip),
            group=chip_group(job.how.batch, chip=chip, device=device),
            gsd_m=task.gsd(job.gsd_m),
            device=device,
        )
        key |= {"score": score, "rasters": [source.name for source in sources]}
        finder = task.finder(device, job.how, least_score=score)
        beside = [item_path(job.out), style_path(job.out)]
        # Of several rasters there is no one picture.
        beside += [quicklook_path(job.out)] if len(sources) == 1 else []
        rasters = [plan_search(job, one, finder, key=key, beside=beside) for one in sources]
        return cls(job=job, task=task, rasters=tuple(rasters), crs=crs, notes=notes)

    def card(self) -> dict[str, str]:
        """Say what will be made."""
        task, first = self.task, self.rasters[0]
        return job_card(
            self.rasters,
            model=f"{task.name}: {task.what} ({', '.join(task.classes)}); licence {task.license}",
            group=first.search.cover.group,
            output=f"a row for each object of a score of {first.key['score']:g} or more, in "
            f"{self.crs or 'no CRS'}",
        )

    def write(self, threads: Executor) -> dict[str, Any]:
        """Look at what is left, and join it to the table; return what is to be told.

        Raises:
            SourceError: a block cannot be read; what was done stays.
            RunError: the output exists or cannot be written, parts are missing, or memory does not
                suffice.
        """
        job = self.job
        if all([is_done(one, job) for one in self.rasters]):  # noqa: C419  (each may refuse)
            return {"pixels": 0}
        check_parts(self.rasters, job)
        pixels = 0 if job.assemble else render(self.rasters, job, threads, room=Room(job))
        return {**({} if job.shard is not None else self._joined(threads)), "pixels": pixels}

    def _joined(self, threads: Executor) -> dict[str, Any]:
        """Write the table and what lies beside it."""
        made = [(one, one.committed()) for one in self.rasters]
        found = [one.boxes(committed, iou=self.task.iou) for one, committed in made]
        pairs = zip(self.rasters, found, strict=True)
        about, table = self._about(made), [self._objects(one, boxes) for one, boxes in pairs]
        counts = Counter(name for one in table for name in one.names)
        picture = self._drawn(self.rasters[0], found[0], threads) if len(found) == 1 else None
        self._describe(about, rows=counts.total(), picture=picture)
        # The table goes last, and the parts after it, so that a job interrupted meanwhile is known
        # to be unfinished.
        write_objects(self.job.out, table, crs=self.crs, record=about)
        shutil.rmtree(parts_folder(self.job.out))
        classes = {name: counts[name] for name in self.task.classes if counts[name]}
        return {"objects": counts.total(), "classes": classes}

    def _objects(self, one: Searched, boxes: Boxes) -> Objects:
        return Objects(
            raster=one.source.path,
            grid=one.source.raster.grid,
            xyxy=boxes.xyxy,
            names=[self.task.classes[number] for number in boxes.classes.tolist()],
            scores=boxes.scores,
        )

    def _drawn(self, one: Searched, boxes: Boxes, threads: Executor) -> Path | None:
        """Draw what was found over what was looked at."""
        if not one.numbers:
            return None
        windows = [one.window(number) for number in one.numbers]
        part = bounding(windows)
        under = overview(
            one.source.raster, self.task.contract.bands, part, side=SIDE, threads=threads
        )
        return write_box_quicklook(
            self.job.out,
            under.values,
            under.valid,
            under.placed(boxes.xyxy),
            boxes.classes,
            list(self._colours.items()),
        )

    @property
    def _colours(self) -> dict[str, Colour]:
        names = self.task.classes
        return dict(zip(names, default_colours(len(names)), strict=True))

    def _about(self, made: Sequence[tuple[Searched, Parts]]) -> dict[str, Any]:
        """Return what the table says of its making."""
        job, task = self.job, self.task
        return {
            **made_tags(made, command=job.command(), model=task.name, sha256=task.sha256),
            "GEODINO_LICENSE": task.license,
            "GEODINO_CLASSES": list(task.classes),
            "GEODINO_LEAST_SCORE": self.rasters[0].key["score"],
            "GEODINO_CONTRACT": json.loads(task.contract.to_json()),
            JOB_TAG: self.rasters[0].identity,
        }

    def _describe(self, about: dict[str, Any], *, rows: int, picture: Path | None) -> None:
        """Write style and STAC item."""
        job, task, key = self.job, self.task, self.rasters[0].key
        product = MapProduct(
            path=job.out,
            title=task.title,
            model=task.name,
            model_sha256=task.sha256,
            model_item=task.item,
            model_license=task.license,
            sources=tuple(one.source.path for one in self.rasters),
            source_sha256=about["GEODINO_SOURCE_SHA256"],
            times=tuple(one.source.time for one in self.rasters),
            software=__version__,
            command=about["GEODINO_COMMAND"],
            chip_size=key["chip"],
            overlap=key["overlap"],
            seam_score=None,
            quicklook=picture,
            style=write_box_style(job.out, self._colours),
            more={
                "geodino:classes": list(task.classes),
                "geodino:least_score": key["score"],
                JOB_PROPERTY: self.rasters[0].identity,
            },
        )
        grids = [one.source.raster.grid for one in self.rasters]
        write_table_item(product, grids, columns=COLUMNS, rows=rows)


def _placed(job: PredictJob, sources: Sequence[Source]) -> tuple[str | None, tuple[str, ...]]:
    """Return the CRS of the table, and what is to be said of it.

    Raises:
        SourceError: a raster has no place on the Earth, and the table is in longitude and latitude.
    """
    grids = [source.raster.grid for source in sources]
    crs = crs_of(grids, job.out)
    if crs is None:
        return None, ("no raster has a CRS: geometry is in the coordinates of their transforms",)
    if crs != WGS84 or {grid.crs for grid in grids} == {WGS84}:
        return crs, ()
    for source in sources:
        if source.raster.grid.footprint_wgs84() is None:
            why = "GeoJSON is" if job.out.suffix.lower() == ".geojson" else "several CRSs need"
            raise SourceError(
                f"{source.path} has no place on the Earth, but {why} longitude and latitude: give it "
                "its CRS (gdal_edit -a_srs), or write a .parquet of it alone, in its pixels."
            )
    return crs, (f"geometry is in longitude and latitude ({WGS84})",)
