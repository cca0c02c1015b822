"""The report of real runs: written with them, afterwards, and when much is missing."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from process_support import run_geodino
from tests_support import textured, write_tile

import geodino.runs.report
from geodino.data.index import load_index
from geodino.errors import CheckpointError, RunError
from geodino.geo.windows import Window
from geodino.runs.evaluate import EvaluateJob, evaluate
from geodino.runs.pretrain import PretrainJob, pretrain
from geodino.runs.record import RunFolder
from geodino.runs.report import read_run, report, write_report
from geodino.runs.report_data import collect_data
from geodino.runs.report_features import collect_features, nearest

CPU = torch.device("cpu")


def copy_of(run: Path, target: Path) -> Path:
    return Path(shutil.copytree(run, target))


def page_of(run: Path) -> str:
    return write_report(RunFolder(run), device=CPU).read_text(encoding="utf-8")


def short_run(tiles: Path, out: Path, *overrides: str) -> dict[str, object]:
    return pretrain(
        PretrainJob(
            tiles=str(tiles), out=out, recipe="debug", device="cpu", quiet=True,
            overrides=("phases.pretrain.steps=2", *overrides),
        )
    )  # fmt: skip


def short_run_with_report(reports, tiles: Path, out: Path) -> dict[str, object]:
    with reports():
        return short_run(tiles, out)


@pytest.fixture(scope="module")
def page(debug_run) -> str:
    return (debug_run / "report.html").read_text(encoding="utf-8")


def test_a_finished_run_has_a_report_that_says_what_happened(page, tiles):
    for said in (
        "vit_nano with patches of 8 px", "6 tiles of 3 bands, uint8 at 0.6 m", "20 of 20 steps",
        "EPSG:32632", str(tiles), "aria-label=\"Map of the footprints of 6 tiles\"", "total loss",
        "patch rank", "step 10", "Nearest neighbours", "geodino evaluate --model",
        "trained from scratch", "prototypes: 256", torch.__version__,
    ):  # fmt: skip
        assert said in page, said
    assert page.count("<img") > 60
    assert len(page.encode()) < 2_000_000


def test_repeating_the_report_gives_the_same_bytes(debug_run, page, tmp_path):
    again = write_report(RunFolder(debug_run), device=CPU, out=tmp_path / "again.html")
    assert again.read_text(encoding="utf-8") == page
    assert (debug_run / "report.html").read_text(encoding="utf-8") == page


def test_snapshots_were_taken_at_every_health_measurement(debug_run):
    assert {path.name for path in (debug_run / "probes").iterdir()} == {
        "crops.safetensors", "step-00000000.safetensors", "step-00000010.safetensors",
        "step-00000020.safetensors",
    }  # fmt: skip


def test_the_last_step_is_measured_whenever_it_comes(tiles, tmp_path):
    short_run(tiles, tmp_path / "run", "health.every=50")
    steps = sorted(path.name for path in (tmp_path / "run" / "probes").glob("step-*"))
    assert steps == ["step-00000000.safetensors", "step-00000002.safetensors"]
    rows = read_run(RunFolder(tmp_path / "run")).rows
    assert [row["step"] for row in rows if "health/cls_rank" in row] == [0, 2]


def test_a_run_that_stopped_is_reported_as_far_as_it_went(debug_run, tmp_path):
    run = copy_of(debug_run, tmp_path / "run")
    shutil.rmtree(run / "model")
    facts = json.loads((run / "run.json").read_text())
    del facts["results"]
    (run / "run.json").write_text(json.dumps(facts))
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run / "metrics.jsonl").write_text("".join(lines[:9]) + '{"step": 9, "pha')
    page = page_of(run)
    assert "The run has not finished: 8 of 20 steps are on record." in page
    assert "No neighbours: the run has no model yet." in page
    assert "No model has been exported yet" in page


def test_a_run_that_has_not_begun_is_reported_too(debug_run, tmp_path):
    run = copy_of(debug_run, tmp_path / "run")
    for folder in ("model", "probes"):
        shutil.rmtree(run / folder)
    for file in ("metrics.jsonl", "log.txt", "report.html"):
        (run / file).unlink()
    facts = json.loads((run / "run.json").read_text())
    del facts["results"]
    (run / "run.json").write_text(json.dumps(facts))
    page = page_of(run)
    assert "0 of 20 steps are on record" in page
    assert "No snapshot of the probe tiles has been saved yet." in page
    assert "No step has been written to metrics.jsonl yet." in page


@pytest.fixture
def run_without_tiles(tmp_path) -> Path:
    tiles = tmp_path / "tiles"
    for number in range(3):
        write_tile(tiles / f"t{number}.tif", textured(number))
    short_run(tiles, tmp_path / "run")
    shutil.rmtree(tiles)
    return tmp_path / "run"


def test_without_its_tiles_a_run_still_has_a_report(run_without_tiles):
    page = page_of(run_without_tiles)
    for said in ("No histograms: ", "No samples: ", "No neighbours: "):
        assert said in page
    assert "t0.tif" in page  # the reason names a file
    assert "patch rank" in page
    assert "Components of probe tile 1 at step 2" in page


def test_tiles_that_could_not_be_used_are_said_up_front(reports, tmp_path):
    tiles = tmp_path / "tiles"
    for number in range(3):
        write_tile(tiles / f"t{number}.tif", textured(number))
    broken = write_tile(tiles / "broken.tif", textured(9))
    broken.write_bytes(broken.read_bytes()[: broken.stat().st_size // 2])
    short_run_with_report(reports, tiles, tmp_path / "run")
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    alarms = page[page.index('class="alarms"') : page.index("<dl")]
    assert "1 file could not be used" in alarms
    assert "broken.tif" in alarms


def test_replaced_tiles_and_changed_code_are_said_too(debug_run, tmp_path):
    run = copy_of(debug_run, tmp_path / "run")
    with (run / "log.txt").open("a") as log:
        for _ in range(2):  # once in each of two sessions
            log.write("2026-01-01 00:00 Tile /a.tif is replaced by others: /a.tif is damaged.\n")
    facts = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**facts, "commit": "abc123-dirty"}))
    page = page_of(run)
    assert "1 tile could not be read while training and gave way to others: /a.tif is" in page
    assert "The code was changed after commit abc123." in page


def test_a_report_that_cannot_be_written_costs_no_training(tiles, reports, tmp_path, monkeypatch):
    def refuse(*_: object, **__: object) -> Path:
        raise RunError("the disk is full.")

    monkeypatch.setattr(geodino.runs.report, "write_report", refuse)
    results = short_run_with_report(reports, tiles, tmp_path / "run")
    assert results["step"] == 2
    assert "report" not in results
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "the report could not be written: the disk is full." in log


def test_our_own_mistakes_stay_visible_after_model_and_results_are_saved(
    tiles, reports, tmp_path, monkeypatch
):
    def fail(*_: object, **__: object) -> str:
        raise ZeroDivisionError

    monkeypatch.setattr(geodino.runs.report, "render", fail)
    with pytest.raises(ZeroDivisionError):
        short_run_with_report(reports, tiles, tmp_path / "run")
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()
    assert "results" in json.loads((tmp_path / "run" / "run.json").read_text())
    assert not (tmp_path / "run" / "report.html").exists()


def test_a_run_that_died_after_its_last_step_is_finished_by_resuming(
    debug_run, tiles, reports, tmp_path, page
):
    run = copy_of(debug_run, tmp_path / debug_run.name)
    (run / "report.html").unlink()
    facts = json.loads((run / "run.json").read_text())
    del facts["results"]
    (run / "run.json").write_text(json.dumps(facts))
    with reports():
        pretrain(PretrainJob(tiles=str(tiles), out=run, resume=True, quiet=True, device="cpu"))
    again = (run / "report.html").read_text(encoding="utf-8")
    assert again.replace(str(run), str(debug_run)) == page


def test_values_under_invalid_pixels_change_nothing(tmp_path):
    parts = []
    for name, fill in (("zero", 0), ("high", 65535)):
        for number in range(4):
            pixels = textured(number, dtype="uint16")
            pixels[:, :40, :50] = fill
            write_tile(tmp_path / name / f"t{number}.tif", pixels, nodata=float(fill))
        out = tmp_path / f"run-{name}"
        short_run(tmp_path / name, out, "data.nodata=tag")
        run = read_run(RunFolder(out))
        facts = {**run.facts, "source": "", "data": {"decisions": ()}}
        data = collect_data(run.folder, run.config, run.index, run.contract, facts)
        features = collect_features(run.folder, run.config, run.index, run.contract, device=CPU)
        parts.append((data, features))
    (data, features), (data2, features2) = parts
    assert [h.counts.tolist() for h in data.histograms] == [
        h.counts.tolist() for h in data2.histograms
    ]
    assert data.facts == data2.facts
    assert data.bands == data2.bands
    for one, two in zip(data.samples, data2.samples, strict=True):
        for a, b in zip((one.chip, *one.crops), (two.chip, *two.crops), strict=True):
            np.testing.assert_array_equal(a.rgb, b.rgb)
    for a, b in zip(features.probes.patches, features2.probes.patches, strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(features.probes.pictures, features2.probes.pictures, strict=True):
        np.testing.assert_array_equal(a.rgb, b.rgb)
    for a, b in zip(features.neighbours, features2.neighbours, strict=True):
        assert [p.caption for p in a.nearest] == [p.caption for p in b.nearest]
    assert any((s.chip.rgb == [120, 124, 128]).all(axis=-1).any() for s in data.samples)


def test_evaluations_in_the_run_folder_are_shown_beside_their_floors(debug_run, tmp_path):
    run, suite = copy_of(debug_run, tmp_path / "run"), tmp_path / "suite"
    for label in range(2):
        for number in range(8):
            pixels = (textured(number, side=32) // 2 + 100 * label).astype("uint8")
            write_tile(suite / f"class{label}" / f"{number}.tif", pixels)
    evaluate(
        EvaluateJob(
            model=str(run), suite=str(suite), out=run / "evaluation", probes=("knn",), quiet=True,
            device="cpu",
        )
    )  # fmt: skip
    (run / "other").mkdir()
    (run / "other" / "results.json").write_text('{"of": "another program"}')
    page = page_of(run)
    assert "suite (evaluation)" in page
    assert "2 classes; images: 12 train, 4 test" in page
    assert "random weights" in page
    assert re.search(r"Best of \d+ probes on suite \(evaluation\): accuracy", page)
    assert "geodino evaluate --model" not in page


def test_a_damaged_evaluation_is_named(debug_run, tmp_path):
    run = copy_of(debug_run, tmp_path / "run")
    result = run / "evaluation" / "sets" / "some" / "result.json"
    result.parent.mkdir(parents=True)
    result.write_text('{"suite": ')
    with pytest.raises(RunError, match=r"result\.json is damaged"):
        page_of(run)


def test_a_damaged_model_is_named(debug_run, tmp_path):
    run = copy_of(debug_run, tmp_path / "run")
    weights = run / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged"):
        page_of(run)


def test_a_damaged_line_of_metrics_is_named(debug_run, tmp_path):
    run = copy_of(debug_run, tmp_path / "run")
    (run / "metrics.jsonl").write_text('{"step": 0, "pha\n{"step": 1}\n')
    with pytest.raises(RunError, match=r"metrics\.jsonl is damaged"):
        page_of(run)


def test_the_command_writes_the_page_where_it_is_told(debug_run, tmp_path):
    out = tmp_path / "page.html"
    done = run_geodino("report", debug_run, "--out", out, "--json", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"report": str(out), "bytes": out.stat().st_size}


def test_a_folder_that_is_no_run_is_one_sentence(tmp_path):
    with pytest.raises(RunError, match=r"is no run folder \(recipe\.yaml, .*missing\)"):
        report(tmp_path, out=None, device="cpu")


def test_neighbours_are_the_largest_cosines_of_chips_elsewhere():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(12, 5)).astype(np.float32)
    places = [(i // 4, Window(0, 30 * (i % 4), 32, 32)) for i in range(12)]  # neighbours overlap
    found = nearest(vectors, places, most=3)
    centred = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    for i in range(12):
        scored = []
        for j in range(12):
            same_tile, apart = i // 4 == j // 4, abs(i % 4 - j % 4)
            if not (same_tile and apart <= 1):  # 30 columns apart, 32 wide
                a, b = centred[i], centred[j]
                scored.append((float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)), j))
        expected = [pair for pair in sorted(scored, reverse=True)[:3] if pair[0] > 0]
        assert [j for j, _ in found[i]] == [j for _, j in expected]
        np.testing.assert_allclose([c for _, c in found[i]], [c for c, _ in expected], rtol=1e-9)


def test_footprints_and_dates_come_from_the_index(debug_run):
    run = read_run(RunFolder(debug_run))
    data = collect_data(run.folder, run.config, run.index, run.contract, run.facts)
    assert data.place.tiles == len(load_index(debug_run / "tiles.parquet").tiles) == 6
    assert dict(data.facts)["dates"] == "not known for any tile"
    longitudes = np.concatenate([outline[:, 0] for outline in data.place.outlines])
    assert 8.9 < longitudes.min() < longitudes.max() < 9.1  # the central meridian of zone 32
