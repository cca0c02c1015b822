"""Features beside labels, part by part, as probes take them."""

from collections.abc import Sequence
from copy import copy
from functools import lru_cache
from typing import Any

import numpy as np

from geodino import seeds
from geodino.data.labelled.sets import PARTS, LabelledSet, PartName
from geodino.evals.features import Features
from geodino.evals.probes.linear import linear_inputs
from geodino.evals.probes.maps import Items, Part
from geodino.evals.probes.table import Probe, Problem
from geodino.models.pooling import FeatureName

_KEPT = 512
"""Maps of labels that stay in memory."""


def has_maps(data: LabelledSet) -> bool:
    """Whether every pixel has a label of its own."""
    if data.facts.kind != "regression":
        return data.facts.kind == "segmentation"
    label = data.label(data.parts["test"][0])
    return isinstance(label, np.ndarray) and label.ndim == 2


class Problems:
    """Features cut into parts beside their labels."""

    def __init__(self, data: LabelledSet, *, seed: int) -> None:
        self._data, self.seed = data, seed
        self._rows: dict[PartName, np.ndarray] = {}
        start = 0
        for part in PARTS:
            count = len(data.parts.get(part, ()))
            self._rows[part] = np.arange(start, start + count)
            start += count
        self._labels = {part: labels_of(data, part) for part in PARTS}

    def drawn_with(self, seed: int) -> "Problems":
        """Return the same features and labels, with another seed for what probes draw."""
        other = copy(self)
        other.seed = seed
        return other

    def of(self, features: Any, *, metric: Any = "cosine", views: Any = None) -> Problem:
        """Return the problem of some features, one row an image."""
        facts = self._data.facts
        parts = {
            part: Part(features=_Rows(features, rows), labels=self._labels[part])
            if np.ndim(features) > 2
            else Part(features=np.asarray(features[rows]), labels=self._labels[part])
            for part, rows in self._rows.items()
        }
        return Problem(
            kind=facts.kind,
            train=parts["train"],
            val=parts["val"],
            test=parts["test"],
            generator=seeds.rng(self.seed, "probe"),
            classes=len(facts.classes),
            background=facts.background,
            metric=metric,
            views=views,
        )

    def of_vectors(
        self, features: Features, kind: FeatureName, probe: Probe
    ) -> tuple[Problem, int]:
        """Return the problem of a kind of vectors; DINO's linear probe sees several at once."""
        if probe.name == "linear-sgd" and kind == "concat":
            rows, views = linear_inputs(features.blocks, features.mean_patch)
            return self.of(rows, views=views), rows.shape[1]
        chosen = features.named(kind)
        return self.of(chosen), chosen.shape[1]


class _Rows:
    """Some rows of an array that may lie in a file."""

    def __init__(self, items: Any, rows: np.ndarray) -> None:
        self._items, self._rows = items, rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, place: int, /) -> Any:
        return self._items[int(self._rows[place])]


class _Maps:
    """Labels that are maps, read when they are asked for; the last ones stay in memory."""

    def __init__(self, data: LabelledSet, keys: Sequence[str]) -> None:
        self._keys = keys
        self._read = lru_cache(maxsize=_KEPT)(data.label)

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, place: int, /) -> Any:
        return self._read(self._keys[place])


def labels_of(data: LabelledSet, part: PartName) -> Items:
    """Return the labels of a part; maps are read when they are asked for."""
    keys = data.parts.get(part, ())
    if not keys:
        return np.zeros(0)
    if has_maps(data):
        return _Maps(data, keys)
    return np.asarray([data.label(key) for key in keys])
