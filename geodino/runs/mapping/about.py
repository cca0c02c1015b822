"""What a map says about its making."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from geodino import __version__
from geodino.infer.seams import SeamSums
from geodino.io.cog.journal import Committed, read_parts
from geodino.runs.mapping.maps import Map
from geodino.runs.mapping.planned import Planned

Parts = Mapping[int, Committed]
"""The finished parts of a map or table, by number."""


def committed_of(one: Map) -> Parts:
    """Return the finished supertiles of a map, by number."""
    found = {part.number: part for part, _ in read_parts(one.parts)}
    return {number: found[number] for number in sorted(found)}


def counts_of(parts: Parts) -> Counter[str]:
    """Return the numbers of pixels that a map's product counts."""
    return sum((Counter(part.facts["counts"]) for part in parts.values()), Counter())


def seams_of(parts: Parts) -> SeamSums:
    """Return how much the borders of chips show in a map."""
    return sum((SeamSums(**part.facts["seams"]) for part in parts.values()), SeamSums())


def job_tags(
    *, command: str, model: str, sha256: str, chip: int, overlap: int, gsd_m: float | None
) -> dict[str, str]:
    """Return what all products of a job say of their making.

    Args:
        command: that repeats the job.
        model: name of the model.
        sha256: hash of its weights.
        chip: side of a chip, pixels.
        overlap: pixels that chips share.
        gsd_m: ground sampling distance the model was shown, metres; None is the raster's.
    """
    found = {
        "GEODINO_VERSION": __version__,
        "GEODINO_COMMAND": command,
        "GEODINO_MODEL": model,
        "GEODINO_MODEL_SHA256": sha256,
        "GEODINO_CHIP_SIZE": str(chip),
        "GEODINO_OVERLAP": str(overlap),
    }
    return found if gsd_m is None else {**found, "GEODINO_GSD": f"{gsd_m:g}"}


def made_tags(
    made: Sequence[tuple[Planned, Parts]], *, command: str, model: str, sha256: str
) -> dict[str, str]:
    """Return what a product says: none of it depends on how the work was shared or interrupted.

    Args:
        made: the rasters it was made of, each with its finished parts.
        command: see above, as what follows.
        model: see above.
        sha256: see above.
    """
    chip, overlap, gsd_m = (made[0][0].key[name] for name in ("chip", "overlap", "gsd_m"))
    found = job_tags(
        command=command, model=model, sha256=sha256, chip=chip, overlap=overlap, gsd_m=gsd_m
    )
    precision = made[0][0].key["precision"]
    if precision != "float32":
        found["GEODINO_PRECISION"] = precision
    origins = [origin for one, _ in made for origin in one.source.origins]
    found["GEODINO_SOURCE"] = "; ".join(Path(origin.path).name for origin in origins)
    found["GEODINO_SOURCE_SHA256"] = "; ".join(_hash(one, parts) for one, parts in made)
    times = sorted({origin.time or "" for origin in origins})
    if times[0]:
        found["GEODINO_ACQUIRED"] = times[0] if len(times) == 1 else f"{times[0]}/{times[-1]}"
    return found


def map_tags(
    made: Sequence[tuple[Map, Parts]], *, command: str, model: str, sha256: str
) -> dict[str, str]:
    """Return the tags of a map; arguments as of :func:`made_tags`."""
    found = made_tags(made, command=command, model=model, sha256=sha256)
    seams = sum((seams_of(parts) for _, parts in made), SeamSums())
    if seams.score is not None:
        found["GEODINO_SEAM_SCORE"] = f"{seams.score:.4f}"
    return found


def _hash(one: Planned, parts: Parts) -> str:
    """Return a hash of the pixels of a raster that were used."""
    digest = hashlib.sha256()
    for number in one.numbers:
        if number in parts:
            digest.update(f"{number} {parts[number].digest}\n".encode())
    return digest.hexdigest()
