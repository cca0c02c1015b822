"""One root for every mistake a user can mend, and the nearest right name for a wrong one."""

from collections.abc import Iterable
from difflib import get_close_matches


class GeodinoError(Exception):
    """A mistake the user can mend; the message says what was found, expected, and what to do.

    The command line prints the message without a traceback and exits with code 2.
    """


class RecipeError(GeodinoError):
    """A recipe, an override or an option that cannot run."""


class SourceError(GeodinoError):
    """A path, raster or folder that cannot be used as a source of tiles or images."""


class BandError(GeodinoError):
    """Bands, dtypes or units that do not fit together."""


class ContractError(GeodinoError):
    """Data that does not meet the input contract of a model."""


class CheckpointError(GeodinoError):
    """Weights or checkpoints that are damaged or belong to something else."""


class RunError(GeodinoError):
    """A run that cannot start, go on or be repeated as asked."""


def suggest(name: str, known: Iterable[str]) -> str:
    """Return `` Did you mean 'x'?`` for the nearest known name, or an empty string."""
    nearest = get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" Did you mean {nearest[0]!r}?" if nearest else ""
