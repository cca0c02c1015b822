"""From what a user calls labels to an index of them: rasters or footprints."""

from pathlib import Path

from geodino.data.labels.config import LabelsConfig
from geodino.data.labels.footprints import FootprintIndex, footprint_index, is_vector
from geodino.data.labels.index import LabelIndex, label_index
from geodino.data.metadata import Progress


def open_labels(
    src: str | Path,
    config: LabelsConfig,
    *,
    threads: int,
    progress: Progress | None = None,
) -> LabelIndex | FootprintIndex:
    """Index labels: footprints where ``src`` is a vector file, else rasters.

    Args:
        src: any source of tiles, or a vector file.
        config: what is declared about it; ``kind`` overrules the file's ending.
        threads: how many files are opened at once.
        progress: told after each file.

    Raises:
        SourceError: nothing to read, or no usable label.
        BandError: an undeclared unit or band, or heights that can hardly be true.
    """
    are_footprints = is_vector(src) if config.kind == "auto" else config.kind == "footprints"
    if are_footprints:
        return footprint_index(src, config)
    return label_index(src, config, threads=threads, progress=progress)
