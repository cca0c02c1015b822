"""The table of what a model says of whole images."""

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32

from geodino import __version__
from geodino.data.loader import default_threads
from geodino.data.parallel import in_order
from geodino.errors import RunError, SourceError
from geodino.files import replacing
from geodino.geo.outlines import outlines
from geodino.geo.windows import Window
from geodino.infer.chips import Pixels
from geodino.io.geoparquet import write_geoparquet
from geodino.io.object_table import WGS84
from geodino.models.precision import multiplying_in
from geodino.runs.device import compute_type
from geodino.runs.predict.images import ImageTask
from geodino.runs.predict.job import PredictJob
from geodino.runs.progress import JobProgress
from geodino.runs.sources import Source

_BATCH = 64
_LARGEST = 4096 * 4096
"""Pixels of an image that is looked at whole."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answers:
    """One table of what is said of all images of a job."""

    job: PredictJob
    task: ImageTask
    images: tuple[Source, ...]
    device: torch.device
    notes: tuple[str, ...] = ()
    """What the user should know of how it is made."""

    @classmethod
    def plan(
        cls, job: PredictJob, task: ImageTask, images: Sequence[Source], *, device: torch.device
    ) -> "Answers":
        """Plan it.

        Raises:
            RunError: the table exists.
            SourceError: an image is too large to be seen whole.
        """
        if job.out.exists() and not job.overwrite:
            raise RunError(
                f"{job.out} exists: nothing was changed. Choose another --out, or add --overwrite."
            )
        for one in images:
            grid = one.raster.grid
            if grid.height * grid.width > _LARGEST:
                raise SourceError(
                    f"{one.path} has {grid.width} x {grid.height} px: {task.name} sees each image "
                    "whole, as it learnt from them. Cut it into tiles of that size (gdal_retile.py), "
                    "or train `geodino finetune segmentation` for a class at every pixel."
                )
        return cls(job=job, task=task, images=tuple(images), device=device)

    def card(self) -> dict[str, str]:
        """Say what will be made."""
        loaded = self.task.loaded
        size = loaded.model.image_size
        return {
            "images": f"{len(self.images)}, seen at {'their own size' if size is None else f'{size} px'}",
            "model": f"{self.task.name}: {self.task.what}; licence {loaded.license}",
            "output": f"a row for each image, with the probability of {', '.join(loaded.classes)}",
        }

    def write(self, threads: Executor) -> dict[str, Any]:
        """Look at all images and write the table; return what is to be told.

        Raises:
            SourceError: an image cannot be read.
            RunError: the table cannot be written, or the model gives values that are not finite.
        """
        said = self._said()
        names = self._names(said)
        self._write(said, names)
        counts = Counter(one for found in names for one in found)
        classes = {name: counts[name] for name in self.task.loaded.classes if counts[name]}
        pixels = sum(one.raster.grid.height * one.raster.grid.width for one in self.images)
        return {"classes": classes, "pixels": pixels}

    @torch.inference_mode()
    def _said(self) -> Float32[np.ndarray, "n k"]:
        """The probability of each class of each image; NaN where no pixel is valid."""
        model = self.task.loaded.model.to(self.device).eval()
        how = self.job.how
        dtype = compute_type(how.precision, self.device)
        found = np.full((len(self.images), model.classes), np.nan, np.float32)
        with JobProgress("images", len(self.images), quiet=self.job.quiet) as bar:
            for numbers, pixels, valid in self._batches():
                values = torch.from_numpy(pixels).to(self.device).float()
                used = torch.from_numpy(valid).to(self.device)
                with multiplying_in(dtype, self.device):
                    seen = model.probabilities(values * (how.scale or 1.0), used)
                if not torch.isfinite(seen).all():
                    raise RunError(
                        f"{self.task.name} gives values that are not finite: its weights hold NaN or "
                        "infinity, or the pixels overflow. Check the checkpoint and --scale."
                    )
                found[numbers] = seen.cpu().numpy()
                bar.advance(len(numbers))
        return found

    def _batches(self) -> Iterator[tuple[list[int], np.ndarray, np.ndarray]]:
        """Images with a valid pixel, neighbours of one size together."""
        most = self.job.how.batch or _BATCH
        held: list[tuple[int, Pixels]] = []
        threads = default_threads()
        with closing(in_order(_whole, self.images, threads=threads, ahead=most)) as read:
            for number, (pixels, valid) in enumerate(read):
                if held and (len(held) == most or held[0][1][0].shape != pixels.shape):
                    yield _stacked(held)
                    held = []
                if valid.any():
                    held.append((number, (pixels, valid)))
        if held:
            yield _stacked(held)

    def _names(self, said: Float32[np.ndarray, "n k"]) -> list[list[str]]:
        """The class of each image, or its classes; none where nothing could be seen."""
        classes = self.task.loaded.classes
        if self.task.has_several:
            least = self.task.least_score(self.job.score)
            return [[classes[i] for i in np.flatnonzero(row >= least)] for row in said]
        return [[] if np.isnan(row).any() else [classes[int(row.argmax())]] for row in said]

    def _write(self, said: Float32[np.ndarray, "n k"], names: Sequence[Sequence[str]]) -> None:
        import geopandas
        import pandas as pd

        columns = {
            "image": pd.array([one.path for one in self.images], dtype="string"),
            "class": pd.array(["; ".join(found) for found in names], dtype="string"),
            "score": said.max(axis=1),
            **{f"p_{name}": said[:, i] for i, name in enumerate(self.task.loaded.classes)},
        }
        if self.job.out.suffix.lower() == ".csv":
            with replacing(self.job.out) as temporary:
                pd.DataFrame(columns).to_csv(temporary, index=False)
            return
        places = outlines([one.raster.grid for one in self.images])
        frame = geopandas.GeoDataFrame(columns, geometry=places, crs=WGS84)
        write_geoparquet(self.job.out, frame, record=self._about())

    def _about(self) -> dict[str, Any]:
        task = self.task
        return {
            "GEODINO_VERSION": __version__,
            "GEODINO_COMMAND": self.job.command(),
            "GEODINO_MODEL": task.name,
            "GEODINO_MODEL_SHA256": task.sha256,
            "GEODINO_LICENSE": task.license,
            "GEODINO_CLASSES": list(task.loaded.classes),
        }


def _whole(image: Source) -> Pixels:
    return image.raster.read(Window(0, 0, image.raster.grid.height, image.raster.grid.width))


def _stacked(held: Sequence[tuple[int, Pixels]]) -> tuple[list[int], np.ndarray, np.ndarray]:
    pixels, valid = zip(*(one for _, one in held), strict=True)
    return [number for number, _ in held], np.stack(pixels), np.stack(valid)
