"""Scales and colours of a job, which all of its maps and shards share."""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geodino import files
from geodino.errors import RunError
from geodino.infer.preview import Preview
from geodino.infer.quantise import Loss, Quantiser
from geodino.infer.tokens import TokenProduct
from geodino.runs.embed.job import EmbedJob
from geodino.runs.embed.sample import fit_quantiser, map_sample
from geodino.runs.mapping.maps import Map

_FILE = "fit.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Fit:
    """What is fitted on a sample before anything is written."""

    quantiser: Quantiser | None = None
    loss: Loss | None = None
    """What the scales cost."""

    preview: Preview | None = None

    @property
    def text(self) -> str:
        """Everything, as JSON."""
        told = {
            "scale": None if self.quantiser is None else self.quantiser.scale.tolist(),
            "loss": None if self.loss is None else asdict(self.loss),
            "preview": None
            if self.preview is None
            else {name: np.asarray(v).tolist() for name, v in asdict(self.preview).items()},
        }
        return json.dumps(told)

    @classmethod
    def parse(cls, text: str) -> "Fit":
        """Return what ``text`` was written from, bit for bit."""
        told: dict[str, Any] = json.loads(text)
        scale, loss, preview = told["scale"], told["loss"], told["preview"]
        return cls(
            quantiser=None if scale is None else Quantiser(_floats(scale)),
            loss=None if loss is None else Loss(**loss),
            preview=None
            if preview is None
            else Preview(**{name: _floats(values) for name, values in preview.items()}),
        )

    @property
    def digest(self) -> str:
        """A hash of it."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    def product(self, before: TokenProduct) -> TokenProduct:
        """Return the product with what was fitted."""
        return replace(before, quantiser=self.quantiser, preview=self.preview)

    def facts(self) -> dict[str, Any]:
        """Return what is to be told of it."""
        found: dict[str, Any] = {}
        if self.preview is not None:
            found["explained"] = [round(float(share), 4) for share in self.preview.explained]
        if self.loss is not None:
            found["quantisation"] = asdict(self.loss)
        return found


def fit_maps(maps: Sequence[Map], job: EmbedJob) -> Fit:
    """Fit on a sample of all maps what the job needs.

    Raises:
        SourceError: none of the places drawn holds a valid pixel.
    """
    if not job.pca and job.dtype != "int8":
        return Fit()
    sample = map_sample([one.rendering for one in maps if one.numbers], seed=job.seed)
    quantiser, loss = None, None
    if job.dtype == "int8":
        quantiser, loss = fit_quantiser(
            sample.features, seed=job.seed, is_complete=sample.is_complete
        )
    preview = Preview.fit(sample.features) if job.pca else None
    return Fit(quantiser=quantiser, loss=loss, preview=preview)


def kept_fits(maps: Sequence[Map], left: Sequence[Map], job: EmbedJob) -> dict[Path, Fit]:
    """Return the fit of each map that is not whole, by its path, and keep it with its parts.

    A job that goes on takes what is there. Of several shards the first one that has a fit decides:
    on another machine it might differ in the last bit.

    Args:
        maps: all of the job: what is sampled.
        left: those that are not whole.
        job: what was asked.

    Raises:
        SourceError: none of the places drawn holds a valid pixel.
        RunError: parts are to be joined that have none.
    """
    todo = [one for one in left if one.numbers]
    if not todo or (not job.pca and job.dtype != "int8"):
        return {one.path: Fit() for one in left}
    paths = [one.parts / _FILE for one in todo]
    there = [path for path in paths if path.exists()]
    if job.assemble and len(there) < len(paths):
        lack = next(path for path in paths if path not in there)
        raise RunError(
            f"{lack} is missing: the scales and colours that the parts were made with. Run the "
            "shards that lack, or copy it back."
        )
    text = there[0].read_text(encoding="utf-8") if there else fit_maps(maps, job).text
    text = _claimed(paths[0], text) if not there else text
    kept = {one.path: Fit.parse(_claimed(one.parts / _FILE, text)) for one in todo}
    return {one.path: kept.get(one.path, Fit()) for one in left}


def _claimed(path: Path, text: str) -> str:
    """Write a file unless it is there; return what it holds."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with files.writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8")
        try:
            os.link(temporary, path)  # fails where another process was first
        except FileExistsError:
            pass
        finally:
            temporary.unlink()
    return path.read_text(encoding="utf-8")


def _floats(values: Any) -> NDArray[np.float32]:
    return np.asarray(values, dtype=np.float32)
