"""Segmentation of images that the model sees at another resolution: learnt coarse, judged fine."""

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from canopy_support import write_backbone
from PIL import Image
from segmentation_support import CLASSES, run, write_world

from geodino.errors import ContractError, RecipeError, SourceError
from geodino.geo.grid import Grid
from geodino.geo.windows import Window
from geodino.io.raster import HandlePool
from geodino.metrics.segmentation import pixel_confusion
from geodino.models.segmentation_folder import load_segmentation
from geodino.runs.finetune import FinetuneJob
from geodino.runs.finetune.recorder import FinetuneRecorder
from geodino.runs.finetune.segmentation.prepare import PREPARATION
from geodino.runs.finetune.segmentation.scene import look
from geodino.runs.predict import PredictJob, predict

FINER, SIDE = 3, 64
PARTS = ("train", "train", "train", "val", "test", "test")
FEW = ("sampling.crop=32", "train.steps=6", "validation.every=6", "checkpoint.every=3")


def write_parts(world, folder, *, finer=1, crs=True):
    """Corners of the scenes in folders of parts; ``finer`` repeats pixels on the same ground."""
    for what in ("images", "classes"):
        for part, path in zip(PARTS, sorted((world / what).glob("*.tif")), strict=True):
            with rasterio.open(path) as file:
                pixels, profile = file.read()[:, :SIDE, :SIDE], file.profile
            pixels = pixels.repeat(finer, axis=1).repeat(finer, axis=2)
            profile.update(
                height=pixels.shape[1], width=pixels.shape[2], crs=profile["crs"] if crs else None,
                transform=profile["transform"] @ Affine.scale(1 / finer),
            )  # fmt: skip
            target = folder / what / part / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            with rasterio.open(target, "w", **profile) as file:
                file.write(pixels)
    return folder


@pytest.fixture(scope="module")
def coarse(tmp_path_factory):
    root = tmp_path_factory.mktemp("coarse")
    return write_parts(write_world(root / "flat"), root / "parts")


@pytest.fixture(scope="module")
def fine(coarse, tmp_path_factory):
    return write_parts(coarse.parent / "flat", tmp_path_factory.mktemp("fine"), finer=FINER)


@pytest.fixture(scope="module")
def gsd_m(coarse):
    """What a pixel of the coarse images is on the ground: 0.6 m of the map, and a little."""
    with rasterio.open(next((coarse / "images/train").glob("*.tif"))) as file:
        grid = Grid(str(file.crs), file.transform, file.width, file.height)
    return float(np.mean(grid.gsd_m))


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    return write_backbone(tmp_path_factory.mktemp("backbone"))


@pytest.fixture(scope="module")
def done(fine, backbone, gsd_m, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "fine"
    return out, run(fine, backbone, out, *FEW, f"gsd_m={gsd_m}")


def scene_of(world, model, out, *overrides):
    job = FinetuneJob(
        task="segmentation", images=str(world / "images"), labels=str(world / "classes"), out=out,
        recipe="debug-segmentation", overrides=(f"labels.classes={CLASSES}", *overrides),
    )  # fmt: skip
    return look(PREPARATION.prepare(job, str(model), HandlePool()))


def test_crops_of_repeated_pixels_seen_at_the_first_resolution_are_those_of_the_first(
    coarse, fine, backbone, gsd_m, tmp_path
):
    more = ("sampling.crop=32", "sampling.balance=0.5", "sampling.augment=turns")
    first = scene_of(coarse, backbone, tmp_path, *more)
    second = scene_of(fine, backbone, tmp_path, *more, f"gsd_m={gsd_m}")
    assert second.prepared.source.raster(second.windows.keys[0]).grid.width == FINER * SIDE
    under = second.prepared.source.under(second.windows.keys[0], Window(8, 16, 32, 24))
    found = (under.top, under.left, under.height, under.width)
    np.testing.assert_allclose(found, np.multiply(FINER, (8, 16, 32, 24)), atol=2)
    np.testing.assert_array_equal(first.windows.counts, second.windows.counts)
    pairs = zip(first.feed().batches(0, 4), second.feed().batches(0, 4), strict=True)
    for one, other in pairs:
        for name in ("pixels", "valid", "classes", "known"):
            assert torch.equal(getattr(one, name), getattr(other, name)), name
    assert len({int(n) for n in one.classes.unique()}) > 1


def test_the_run_is_scored_on_the_pixels_of_the_labels_as_its_model_predicts_them(
    done, fine, gsd_m, tmp_path
):
    out, facts = done
    loaded = load_segmentation(out / "model")
    assert loaded.extra["gsd_m"] == gsd_m
    assert loaded.contract.gsd_m == pytest.approx((gsd_m, gsd_m))
    counts = np.zeros((5, 5), dtype=np.int64)
    number = np.array([0, 1, 2, 3, 4, 0, 4], dtype=np.uint8)
    for path in sorted((fine / "images/test").glob("*.tif")):
        target = tmp_path / path.name
        predict(
            PredictJob(rasters=(str(path),), model=str(out), out=target, device="cpu", quiet=True)
        )
        with (
            rasterio.open(target) as said,
            rasterio.open(fine / "classes/test" / path.name) as file,
        ):
            assert said.shape == (SIDE * FINER, SIDE * FINER)
            assert said.tags()["GEODINO_GSD"] == f"{gsd_m:g}"
            predicted, truth = said.read(1), number[file.read(1)]
        counts += pixel_confusion(truth, predicted, classes=5)
    assert facts["reported_on"] == "test"
    assert counts.sum() == 2 * (SIDE * FINER) ** 2
    np.testing.assert_array_equal(facts["test"]["confusion"], counts)
    shares = np.diagonal(counts) / (counts.sum(0) + counts.sum(1) - np.diagonal(counts)).clip(1)
    occurs = counts.sum(0) + counts.sum(1) > 0
    assert facts["test"]["scores"]["model"]["miou"]["value"] == pytest.approx(shares[occurs].mean())
    assert f"resampled to {gsd_m:g} m" in (out / "report.html").read_text()


def test_floors_know_the_images_as_they_are(done, fine, backbone, tmp_path):
    _, facts = done
    plain = run(fine, backbone, tmp_path / "own", *FEW, "accept=[gsd]")
    name = "most frequent class"
    assert plain["test"]["scores"][name]["miou"] == facts["test"]["scores"][name]["miou"]
    assert load_segmentation(tmp_path / "own/model").extra["gsd_m"] is None
    assert plain["test"]["confusion"] != facts["test"]["confusion"]


def test_a_run_that_was_stopped_ends_as_one_that_was_not(
    fine, backbone, gsd_m, done, tmp_path, monkeypatch
):
    keep = FinetuneRecorder.keep

    class Killed(BaseException):
        pass

    def kill_at_three(self, trainer, module):
        keep(self, trainer, module)
        if trainer.global_step == 3:
            raise Killed

    monkeypatch.setattr(FinetuneRecorder, "keep", kill_at_three)
    with pytest.raises(Killed):
        run(fine, backbone, tmp_path / "halved", *FEW, f"gsd_m={gsd_m}")
    monkeypatch.setattr(FinetuneRecorder, "keep", keep)
    again = run(fine, backbone, tmp_path / "halved", resume=True)
    assert {name: again[name] for name in ("test", "val")} == {
        name: done[1][name] for name in ("test", "val")
    }
    one, other = (load_segmentation(p / "model").model for p in (done[0], tmp_path / "halved"))
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


def pictures(root, *, side=96):
    """LoveDA's folders: no place on the Earth, but 0.3 m a pixel by the set's own word."""
    generator = np.random.default_rng(0)
    for part, number in (("Train", 1), ("Val", 2)):
        mask = generator.integers(0, 8, size=(side // 16, side // 16)).repeat(16, 0).repeat(16, 1)
        picture = np.stack([mask * 30] * 3, axis=-1)
        for name, array in (("images_png", picture), ("masks_png", mask)):
            (root / part / "Urban" / name).mkdir(parents=True)
            Image.fromarray(array.astype(np.uint8)).save(
                root / part / "Urban" / name / f"{number}.png"
            )
    return root


def test_pictures_of_a_known_resolution_are_resampled_without_a_place(backbone, tmp_path):
    root = pictures(tmp_path / "loveda")
    job = FinetuneJob(
        task="segmentation", images=str(root), out=tmp_path / "run", recipe="debug-segmentation",
        overrides=("gsd_m=0.6",),
    )  # fmt: skip
    scene = look(PREPARATION.prepare(job, str(backbone), HandlePool()))
    source, key = scene.prepared.source, "val/Urban/2"
    assert (source.grid(key).height, source.grid(key).width) == (48, 48)
    mask = np.asarray(Image.open(root / "Val/Urban/masks_png/2.png"))[::2, ::2]
    seen = source.seen_label(key, Window(0, 0, 48, 48))
    np.testing.assert_array_equal(seen, np.where(mask == 0, 255, mask.astype(int) - 1))
    job = FinetuneJob(
        task="segmentation", images=str(tmp_path), labels=str(tmp_path), out=tmp_path / "run",
        recipe="debug-segmentation", overrides=("labels.layout=isaid", "gsd_m=0.6"),
    )  # fmt: skip
    for name, folder in (
        ("P1.png", "images"),
        ("P1_instance_color_RGB.png", "Semantic_masks/images"),
    ):
        for part in ("train", "val"):
            path = tmp_path / part / folder / name
            path.parent.mkdir(parents=True)
            Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(path)
    with pytest.raises(SourceError, match="iSAID declares no ground sampling distance"):
        PREPARATION.prepare(job, str(backbone), HandlePool())


def test_what_cannot_be_resampled_or_does_not_fit_is_said(fine, coarse, backbone, tmp_path):
    out = tmp_path / "out"
    lost = write_parts(coarse.parent / "flat", tmp_path / "lost", crs=False)
    with pytest.raises(SourceError, match=r"\(and 5 more\) has no place on the Earth .* gsd_m out"):
        run(lost, backbone, out, "gsd_m=0.6", labels=str(lost / "classes"))
    with pytest.raises(ContractError, match=r"trained on 0\.6 m(.|\n)*--gsd is gsd_m"):
        run(fine, backbone, out)
    with pytest.raises(ContractError, match="gsd: a pixel of the file is 6 m"):
        run(fine, backbone, out, "gsd_m=6.0")
    with pytest.raises(RecipeError, match="gsd_m"):
        run(fine, backbone, out, "gsd_m=0")
    assert not out.exists()
