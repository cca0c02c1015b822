"""The whole page, made from invented values: complete, safe, small, readable by machines."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pytest

from geodino.report.content import (
    BandRow,
    Data,
    Evaluation,
    Features,
    Head,
    Histogram,
    Neighbours,
    Picture,
    Place,
    Probes,
    Repeat,
    Report,
    Sample,
    Score,
)
from geodino.report.curves import training_of
from geodino.report.page import render

EVIL = "<script>alert('1')</script>&\"$x$.tif"


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)


def picture(caption=EVIL, side=160):
    return Picture(rgb=noise(side, side, 3), alt=f"Chip of {EVIL}", caption=caption)


def square(west, south, side=0.01):
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]])
    return side * corners + np.array([west, south])


def data(*, tiles=3, bands=3, samples=2):
    names = [EVIL if i == 0 else f"B{i:02d}" for i in range(bands)]
    rng = np.random.default_rng(0)
    return Data(
        facts=(("source", f"/data/{EVIL}"), ("GSD", "0.6 m")),
        place=Place(
            outlines=tuple(square(*rng.uniform((5, 45), (15, 55))) for _ in range(tiles)),
            tiles=tiles,
            without=0,
        ),
        bands=tuple(
            BandRow(name=n, meaning="", mean=9.0, std=2.0, low=0.0, high=255.0, valid_share=0.9)
            for n in names
        ),
        histograms=tuple(
            Histogram(
                band=n, edges=np.linspace(0, 256, 65), counts=rng.integers(0, 99, 64), beyond=0.1,
                mean=9.0,
            )
            for n in names
        ),
        histograms_of="Values of 9 pixels.",
        samples=tuple(Sample(chip=picture(), crops=(picture(),) * 6) for _ in range(samples)),
        samples_of="Chips.",
        decisions=(f"{EVIL} is read as data",),
        unusable=((f"/data/{EVIL}", "cut off"),),
    )  # fmt: skip


def rows(steps):
    rng = np.random.default_rng(1)
    return [
        {
            "step": s, "phase": "pretrain", "time": float(s), "lr": 1e-3 * s, "weight_decay": 0.04,
            **{f"loss/{n}": float(v) for n, v in zip(("total", "dino", "ibot"), rng.random(3), strict=True)},
            **{f"health/h{i}": float(rng.random()) for i in range(6)},
            "images_per_s": float(rng.random()),
        }
        for s in range(steps)
    ]  # fmt: skip


def features(*, tiles=2, steps=3, patches=8, dim=16):
    rng = np.random.default_rng(2)
    return Features(
        probes=Probes(
            pictures=tuple(picture("") for _ in range(tiles)),
            valid=np.ones((tiles, patches * 4, patches * 4), dtype=bool),
            steps=tuple(range(0, 100 * steps, 100)),
            patches=tuple(
                rng.normal(size=(tiles, dim, patches, patches)).astype(np.float32)
                for _ in range(steps)
            ),
        ),
        probes_missing="",
        neighbours=(Neighbours(query=picture(), nearest=(picture(),) * 6),) * 3,
        neighbours_of="By cosine.",
    )


def evaluation():
    scores = [
        Score(encoder=e, method="knn5", features="cls", value=v, low=v - 0.05, high=v + 0.05,
              is_model=e == "model")
        for e, v in (("model", 0.7), ("random weights", 0.6))
    ]  # fmt: skip
    return Evaluation(
        title=EVIL, metric="accuracy", protocol="10 classes.", scores=tuple(scores),
        verdicts=(("knn5 on cls", "above random weights"),), alarms=(EVIL,),
    )  # fmt: skip


def report(**parts):
    return Report(
        **{
            "head": Head(
                name=EVIL, summary=(f"A model of {EVIL}.",), alarms=(), figures=(("tiles", "3"),)
            ),
            "data": data(),
            "training": training_of(rows(20)),
            "features": features(),
            "evaluations": (evaluation(),),
            "evaluate_with": "geodino evaluate --model RUN",
            "repeat": Repeat(
                commands=("geodino pretrain --tiles 'my tiles'",), facts=(("seed", "0"),),
                versions=(("torch", "2.13"),), recipe="train: {seed: 0}", license="apache-2.0.",
            ),
            **parts,
        }
    )  # fmt: skip


class Outline(HTMLParser):
    """Tags, as far as a reader or a screen reader cares."""

    VOID = frozenset({"meta", "img", "br"})

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.text = [], [], {}
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open:
            self.text.setdefault(self.open[-1], []).append(data)

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


@pytest.fixture(scope="module")
def page():
    return render(report())


@pytest.fixture(scope="module")
def outline(page):
    return Outline(page)


def test_every_tag_that_opens_closes(outline):
    assert outline.open == []


def test_the_page_needs_nothing_else(page, outline):
    assert not {"script", "link", "iframe", "object", "base"} & {tag for tag, _ in outline.tags}
    for attribute in re.findall(r'\s(?:src|href|xlink:href)="([^"]{0,20})', page):
        assert attribute.startswith(("data:image/", "#")), attribute
    outside = set(re.findall(r"https?://[^\s\"'<]+", page))
    assert outside <= {"http://www.w3.org/1999/xlink"}
    assert re.findall(r"url\((?!#)", page) == []
    (policy,) = [m["content"] for m in outline.all("meta") if "http-equiv" in m]
    assert "default-src 'none'" in policy


def test_names_never_become_markup(page, outline):
    assert "<script>" not in page
    assert outline.all("script") == []
    assert any(EVIL in text for text in outline.text["h1"])
    assert EVIL in outline.all("img")[0]["alt"]


def test_pictures_have_words_and_tables_have_captions(outline):
    assert outline.all("img")
    assert all(image["alt"] for image in outline.all("img"))
    assert all(image["width"] and image["height"] for image in outline.all("img"))
    plots = [svg for svg in outline.all("svg") if svg.get("class") == "plot"]
    assert plots
    assert all(plot["aria-label"] and plot["role"] == "img" for plot in plots)
    assert len(outline.all("table")) == len(outline.all("caption"))
    assert all("scope" in head for head in outline.all("th"))
    assert outline.all("html") == [{"lang": "en"}]


def test_no_name_is_given_twice(outline):
    names = [attrs["id"] for _, attrs in outline.tags if "id" in attrs]
    assert len(names) == len(set(names))


def test_links_inside_the_page_lead_somewhere(outline):
    names = {attrs["id"] for _, attrs in outline.tags if "id" in attrs}
    assert {a["href"].removeprefix("#") for a in outline.all("a")} <= names
    assert {"data", "training", "features", "probes", "repeat"} <= names


def test_headings_do_not_skip_a_level(outline):
    levels = [int(tag[1]) for tag, _ in outline.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert all(b <= a + 1 for a, b in pairwise(levels))


def test_the_same_report_gives_the_same_characters(page):
    assert render(report()) == page


def test_light_dark_and_paper_each_have_their_colours(page):
    assert "prefers-color-scheme: dark" in page
    assert "@media print" in page
    used = set(re.findall(r"var\((--[a-z-]+)\)", page))
    light = page[page.index(":root") : page.index("@media (prefers")]
    assert {name for name in used if f"{name}:" not in light} == set()


def test_alarms_come_before_anything_else():
    head = replace(report().head, alarms=("3 steps were skipped.",))
    text = render(report(head=head))
    assert text.index("3 steps were skipped.") < text.index("<dl") < text.index('id="data"')
    assert "No alarm" not in text
    assert "No alarm" in render(report())


def test_what_is_missing_is_said():
    empty = report(
        data=replace(
            data(samples=0), place=Place(outlines=(), tiles=0, without=3), histograms=(),
            histograms_of="No histograms: gone.", samples_of="No samples: gone.", decisions=(),
            unusable=(),
        ),
        training=training_of([]),
        features=Features(
            probes=None, probes_missing="No snapshot.", neighbours=(), neighbours_of="No model."
        ),
        evaluations=(),
    )  # fmt: skip
    text = render(empty)
    Outline(text)
    for said in ("none of the tiles has a place", "No histograms: gone.", "No samples: gone.",
                 "No step has been written", "No snapshot.", "No model.",
                 "geodino evaluate --model RUN"):  # fmt: skip
        assert said in text


def test_schedules_that_never_change_are_named_not_drawn(page):
    assert "The same at every step: weight decay 0.04." in page


def test_a_big_run_stays_below_five_megabytes():
    big = report(
        data=data(tiles=20_000, bands=24, samples=5),
        training=training_of(rows(20_000)),
        features=features(tiles=8, steps=8, patches=40, dim=64),
        evaluations=(evaluation(),) * 4,
    )
    assert len(render(big).encode()) < 5_000_000
