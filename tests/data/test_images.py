"""Photographs as a source: indexed by headers, fitted to the chip, the same from shards."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from images_support import encoded, exif, picture, stored, write_pictures, write_tar
from PIL import Image

from geodino.data.config import DataConfig, StatisticsConfig
from geodino.data.cuts import shapes_of
from geodino.data.fit import LONGEST, FittedReader, enlarged, fitted_size, used_part
from geodino.data.index import build_index, load_index, resolve_chip, save_index
from geodino.data.loader import Loader, LoaderConfig
from geodino.data.order import Order, OrderConfig
from geodino.data.sources.find import written_out
from geodino.data.sources.images import find_images
from geodino.data.statistics import measure_source
from geodino.data.tiles import TileReader
from geodino.errors import SourceError
from geodino.io.raster import HandlePool

IMAGES = DataConfig(kind="images")


def index_of(src, config=IMAGES, **options):
    return build_index(str(src), config, threads=2, **options)


def batches(index, *, chip=32, batch=4, first=0, stop=6, threads=2, budget=2**30, seed=0, **more):
    """The batches of some steps; ``budget`` in bytes."""
    config = OrderConfig(
        seed=seed, batch=batch, chip=chip, super_window=64, chips_per_window=4, budget_bytes=budget
    )
    order = Order(shapes_of(index, chip=chip), config)
    how = LoaderConfig(min_valid=0.5, threads=threads, prefetch=2)
    with HandlePool() as pool:
        reader = FittedReader(index, TileReader(index, pool), chip)
        with Loader(order, reader, how, **more) as loader:
            return list(loader.batches(first, stop)), loader.counts


@given(height=st.integers(1, 5000), width=st.integers(1, 5000), chip=st.integers(8, 512))
def test_a_fitted_picture_has_the_chip_as_its_shorter_side_and_is_no_endless_strip(
    height, width, chip
):
    rows, columns = fitted_size(height, width, chip)
    assert min(rows, columns) == chip
    assert max(rows, columns) <= LONGEST * chip
    part = used_part(height, width)
    assert part.bottom <= height
    assert part.right <= width
    assert abs((height - part.bottom) - part.top) <= 1  # the middle
    assert abs((width - part.right) - part.left) <= 1


def test_a_folder_is_indexed_by_headers_with_upright_sizes(tmp_path, monkeypatch):
    array = picture(1, 40, 64)
    for o in (1, 6):
        data = encoded(stored(array, o), "JPEG", exif=exif(o))
        (tmp_path / f"o{o}.jpg").write_bytes(data)
    (tmp_path / "label.txt").write_text("cat")
    monkeypatch.setattr(Image.Image, "load", lambda *_: pytest.fail("a pixel was decoded"))
    index = index_of(tmp_path)
    assert [(t.height, t.width) for t in index.tiles] == [(40, 64)] * 2
    assert [t.path for t in index.tiles] == [str(tmp_path / n) for n in ("o1.jpg", "o6.jpg")]
    assert [b.common_name for b in index.bands] == ["red", "green", "blue"]
    assert index.tiles[0].is_image
    assert "photographs" in index.rule.reasons[0]


def test_small_pictures_are_left_out_or_enlarged_and_counted(tmp_path):
    for name, side in (("tiny", 1), ("small", 40), ("large", 100)):
        (tmp_path / f"{name}.png").write_bytes(encoded(picture(2, side, side), "PNG"))
    index = index_of(tmp_path)
    assert [t.width for t in index.tiles] == [100, 40]
    assert any("1 of 3 pictures are left out" in note for note in index.notes)
    assert enlarged(index.tiles, 64)[0].startswith(
        "1 of 2 pictures are smaller than the chip of 64"
    )
    assert enlarged(index.tiles, 40) == ()
    every = index_of(tmp_path, DataConfig(kind="images", min_side=1))
    assert [t.width for t in every.tiles] == [100, 40, 1]
    (batch,), _ = batches(every, chip=64, stop=1, batch=3)
    assert batch.pixels.shape == (3, 3, 64, 64)
    with pytest.raises(SourceError, match=r"All 3 pictures .* largest shorter side is 100 px"):
        index_of(tmp_path, DataConfig(kind="images", min_side=200))


def test_a_chip_may_be_larger_than_every_picture_and_auto_is_what_nine_in_ten_have(tmp_path):
    write_pictures(tmp_path, 12)
    index = index_of(tmp_path)
    assert resolve_chip(DataConfig(kind="images", chip=300), index, 64) == 300
    assert resolve_chip(IMAGES, index, 512) == 80


def test_unreadable_pictures_are_counted_and_fatal_only_when_strict(tmp_path):
    write_pictures(tmp_path, 4)
    (tmp_path / "zz.jpg").write_bytes(b"nothing")
    index = index_of(tmp_path)
    assert [path for path, _ in index.bad] == [str(tmp_path / "zz.jpg")]
    with pytest.raises(SourceError, match=r"1 of 5 files .* cannot be used, and --strict"):
        index_of(tmp_path, strict=True)
    whole = (tmp_path / "000.jpg").read_bytes()
    (tmp_path / "000.jpg").write_bytes(whole[: -len(whole) // 4])
    said = []
    (*made, _), counts = batches(index_of(tmp_path), on_bad=lambda n, why: said.append((n, why)))
    assert counts.unreadable
    assert len(said) == 1
    assert "000.jpg cannot be read" in said[0][1]
    assert all(batch.valid.all() for batch in made)


def test_keys_of_maps_are_refused_for_photographs(tmp_path):
    write_pictures(tmp_path, 1)
    config = DataConfig(kind="images", bands=("red",), nodata=0.0)
    with pytest.raises(SourceError, match=r"data\.bands, data\.nodata cannot be asked of photog"):
        index_of(tmp_path, config)
    with pytest.raises(SourceError, match="behind a network"):
        index_of("s3://bucket/shards/")


def test_a_shard_gives_one_picture_a_key_and_leaves_the_rest_alone(tmp_path):
    data = [encoded(picture(n, 48, 64), "PNG") for n in range(4)]
    shard = write_tar(
        tmp_path / "0.tar",
        {
            "a/1.mask.png": data[3], "a/1.png": data[0], "a/1.txt": b"a cat",
            "b/1.png": data[1], "b/1.json": b"{}", "b/._2.png": b"no picture",
            "c.left.png": data[2], "c.right.png": data[3],
        },
    )  # fmt: skip
    found = find_images(str(shard), threads=1)
    assert [key.name for key in found.keys] == ["a/1.png", "b/1.png", "c.left.png"]
    assert "2 pictures in shards share the key" in found.notes[0]
    raw = shard.read_bytes()
    parts = [raw[k.start : k.start + (k.size or 0)] for k in found.keys]
    assert parts == data[:3]


def test_patterns_of_shards_are_written_out_and_missing_shards_are_named(tmp_path):
    assert written_out("s/{08..10}.tar") == ["s/08.tar", "s/09.tar", "s/10.tar"]
    assert written_out("{a,b}/{1..2}") == ["a/1", "a/2", "b/1", "b/2"]
    assert written_out("plain") == ["plain"]
    data = encoded(picture(1, 48, 48), "PNG")
    for n in range(3):
        write_tar(tmp_path / f"{n:03d}.tar", {"x.png": data})
    assert len(index_of(tmp_path / "{000..002}.tar").tiles) == 3
    assert len(index_of(tmp_path / "*.tar").tiles) == len(index_of(tmp_path).tiles) == 3
    with pytest.raises(SourceError, match=r"003\.tar does not exist"):
        index_of(tmp_path / "{000..003}.tar")


def test_a_broken_shard_is_bad_and_what_comes_before_the_break_is_used(tmp_path):
    data = {f"{n}.png": encoded(picture(n, 48, 48), "PNG") for n in range(4)}
    shard = write_tar(tmp_path / "0.tar", data)
    raw = shard.read_bytes()
    shard.write_bytes(raw[: raw.index(data["3.png"]) + 10])
    index = index_of(shard)
    assert [t.path for t in index.tiles][:3] == [f"{shard}/{n}.png" for n in range(3)]
    assert any("cannot be read to its end" in why for _, why in index.bad)
    (tmp_path / "1.tar").write_bytes(b"\x1f\x8b" + raw)
    with pytest.raises(SourceError, match="without compression"):
        index_of(tmp_path / "1.tar")


def test_a_shard_and_its_unpacked_folder_give_the_same_batches(tmp_path):
    folder = write_pictures(tmp_path / "folder", 9)
    members = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    write_tar(tmp_path / "shards" / "0.tar", members)
    for one, other in zip(
        batches(index_of(folder))[0], batches(index_of(tmp_path / "shards"))[0], strict=True
    ):
        assert torch.equal(one.pixels, other.pixels)


def test_an_index_comes_back_from_its_file_and_names_pictures_that_changed(tmp_path):
    folder = write_pictures(tmp_path / "p", 3)
    write_tar(folder / "s.tar", {"x.png": encoded(picture(1, 48, 48), "PNG")})
    index = index_of(folder)
    save_index(index, tmp_path / "tiles.parquet")
    assert load_index(tmp_path / "tiles.parquet") == index
    again = build_index(str(tmp_path / "tiles.parquet"), DataConfig(), threads=1)
    assert again.tiles == index.tiles
    before = index.fingerprint()
    assert again.fingerprint() == before
    (tmp_path / "p").rename(tmp_path / "q")
    assert index_of(tmp_path / "q").fingerprint() == before
    (tmp_path / "q" / "000.jpg").write_bytes(encoded(picture(77), "JPEG"))
    assert index_of(tmp_path / "q").fingerprint() != before


@pytest.mark.parametrize("budget", [2**30, 30_000])
def test_batches_do_not_depend_on_threads_or_where_a_run_resumes(tmp_path, budget):
    index = index_of(write_pictures(tmp_path, 13))
    whole, _ = batches(index, threads=3, budget=budget)
    late, _ = batches(index, threads=1, first=3, budget=budget)
    for one, other in zip(whole[3:], late, strict=True):
        assert torch.equal(one.pixels, other.pixels)
        assert one.source == other.source


@pytest.mark.parametrize("budget", [2**30, 30_000])
def test_every_picture_gives_one_sample_an_epoch_whatever_its_size(tmp_path, budget):
    for n, (height, width) in enumerate([(32, 32), (32, 200), (400, 64), (96, 96), (33, 40)]):
        (tmp_path / f"{n}.png").write_bytes(encoded(picture(n, height, width), "PNG"))
    index = index_of(tmp_path)
    made, _ = batches(index, batch=5, stop=4, budget=budget)
    for batch in made:
        assert sorted(tile for tile, _ in batch.source) == [0, 1, 2, 3, 4]
    lefts = {w.left for batch in made for tile, w in batch.source if tile == 1}
    assert len(lefts) > 1  # the window moves along the longer side


def test_a_chip_is_the_window_of_the_fitted_picture(tmp_path):
    """Patches of 16 px fitted from 96 to 48 px become patches of 8 px."""
    array = picture(5, 96, 160)
    (tmp_path / "a.png").write_bytes(encoded(array, "PNG"))
    (batch,), _ = batches(index_of(tmp_path), chip=48, batch=1, stop=1)
    _, window = batch.source[0]
    chip = batch.pixels[0].numpy()
    for row in range(4, 48, 8):
        for column in range((4 - window.left) % 8, 48, 8):
            seen = array[2 * row, 2 * (column + window.left)]
            assert np.abs(chip[:, row, column].astype(int) - seen).max() <= 12


def test_statistics_are_measured_or_imagenets(tmp_path):
    for n, level in enumerate((10, 30)):
        flat = np.full((40, 40, 3), level, dtype=np.uint8)
        (tmp_path / f"{n}.png").write_bytes(encoded(flat, "PNG"))
    index = index_of(tmp_path)
    _, measured = measure_source(index, IMAGES, threads=1)
    assert measured.mean == pytest.approx((20, 20, 20))
    assert measured.std == pytest.approx((10, 10, 10))
    known = DataConfig(kind="images", statistics=StatisticsConfig(source="imagenet"))
    noted, contract = measure_source(index, known, threads=1)
    assert contract.mean == pytest.approx((123.675, 116.28, 103.53))
    assert contract.std == pytest.approx((58.395, 57.12, 57.375))
    assert "ImageNet" in noted.notes[-1]


def test_real_photographs_are_read_and_their_chips_hold_them(shared_data):
    folder = shared_data / "web"
    index = index_of(folder)
    assert len(index.tiles) == 87
    assert not index.bad
    made, counts = batches(index, chip=64, batch=8, stop=3)
    assert counts.unreadable == 0
    assert all(batch.pixels.float().std() > 20 for batch in made)
