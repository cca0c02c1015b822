"""The page: plots drawn, pictures embedded, one HTML file that needs nothing else."""

from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from geodino.report.content import Curve, Data, Picture, Report, Training
from geodino.report.curves import is_constant
from geodino.report.features import COSINES, tile_maps
from geodino.report.footprints import closer_map, footprint_map
from geodino.report.labels import GROUPS, label_of
from geodino.report.pictures import coloured, data_uri
from geodino.report.plots import curve_plot, histogram_plot, score_plot
from geodino.report.render import rendered
from geodino.report.words import count, number, percent


@dataclass(frozen=True, kw_only=True, slots=True)
class _Panel:
    """A plot with its words."""

    title: str
    text: str
    plot: Markup


@dataclass(frozen=True, kw_only=True, slots=True)
class _Group:
    """Curves that belong together; those that never change are only named."""

    title: str
    panels: tuple[_Panel, ...]
    constants: str


def render(report: Report) -> str:
    """Return the whole page; the same report gives the same text."""
    probes = report.features.probes
    place, closer = _maps(report.data)
    return rendered(
        "page.html.j2",
        filters={
            "count": count,
            "number": number,
            "percent": percent,
            "photo": _photo,
            "map": _map,
        },
        report=report,
        place=place,
        closer=closer,
        histograms=_histograms(report.data),
        groups=_groups(report.training),
        tiles=() if probes is None else tile_maps(probes),
        ramp=Picture(rgb=_ramp(), alt=f"Colours from cosine {COSINES[0]:g} to {COSINES[1]:g}"),
        cosines=COSINES,
        scores=[
            score_plot(e.scores, label=f"Accuracy and interval of every probe, {e.title}")
            for e in report.evaluations
        ],
    )


def _maps(data: Data) -> tuple[Markup | None, Markup | None]:
    """Where the data lie, and the most crowded part of it."""
    if not data.place.outlines:
        return None, None
    tiles = count(data.place.tiles, "tile")
    return (
        footprint_map(data.place, label=f"Map of the footprints of {tiles}"),
        closer_map(data.place, label="Map of the most crowded part"),
    )


def _histograms(data: Data) -> list[_Panel]:
    return [
        _Panel(
            title=h.band,
            text="" if h.beyond == 0 else f"{percent(h.beyond)} of the values lie outside",
            plot=histogram_plot(h, label=f"Histogram of {h.band}, mean {number(h.mean)}"),
        )
        for h in data.histograms
    ]


def _groups(training: Training) -> list[_Group]:
    groups = []
    for title in GROUPS:
        curves = [c for c in training.curves if label_of(c.name).group == title]
        flat = [c for c in curves if is_constant(c) and len(c.values) > 1]
        if curves:
            groups.append(
                _Group(
                    title=title,
                    panels=tuple(_panel(c, training) for c in curves if c not in flat),
                    constants="; ".join(
                        f"{label_of(c.name).title} {number(float(c.values[0]))}" for c in flat
                    ),
                )
            )
    return groups


def _panel(curve: Curve, training: Training) -> _Panel:
    label = label_of(curve.name)
    finite = np.flatnonzero(np.isfinite(curve.values))
    said = "no finite value"
    if len(finite):
        first, last = finite[0], finite[-1]
        said = (
            f"{number(float(curve.values[first]))} at step {curve.steps[first]:,.0f}, "
            f"{number(float(curve.values[last]))} at step {curve.steps[last]:,.0f}"
        )
    return _Panel(
        title=label.title,
        text=label.meaning,
        plot=curve_plot(
            curve, label=f"{label.title}: {said}", log=label.log, phases=training.phases
        ),
    )


def _photo(picture: Picture) -> Markup:
    return _image(picture, data_uri(picture.rgb, kind="photo"))


def _map(picture: Picture) -> Markup:
    return _image(picture, data_uri(picture.rgb, kind="map"))


def _image(picture: Picture, link: str) -> Markup:
    height, width = picture.rgb.shape[:2]
    return Markup('<img src="{}" alt="{}" width="{}" height="{}">').format(
        link, picture.alt, width, height
    )


def _ramp() -> np.ndarray:
    low, high = COSINES
    return coloured(np.linspace(low, high, 120)[None].repeat(8, axis=0), low=low, high=high)
