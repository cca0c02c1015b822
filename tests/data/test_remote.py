"""Sources behind a network: listing, items, the order of far tiles, batches, lost tiles."""

import json
import sys
import types

import fsspec
import numpy as np
import pytest
import rasterio
import rasterio.shutil
import torch
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.windows import Window as GdalWindow
from support_http import FarServer

from geodino.data import parallel
from geodino.data.config import DataConfig
from geodino.data.cuts import Shapes, shapes_of
from geodino.data.index import build_index, load_index, save_index
from geodino.data.loader import Loader, LoaderConfig
from geodino.data.order import Order, OrderConfig
from geodino.data.parallel import thread_count
from geodino.data.sources.find import absolute, find
from geodino.data.sources.stac import is_stac
from geodino.data.tiles import TileReader
from geodino.errors import SourceError
from geodino.io import remote
from geodino.io.raster import HandlePool

SIDE, BLOCK, CHIP = 1024, 128, 64


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "RETRY_WAITS_S", (0.0,))
    monkeypatch.setenv("GDAL_HTTP_RETRY_DELAY", "0.01")
    root = tmp_path / "www"
    root.mkdir()
    with FarServer(root, latency_s=0.01) as server:
        server.root = root
        yield server


def write_cog(path, *, seed=0, fill=None, side=SIDE):
    """A COG with noise in it; with ``fill``, a fifth of it is nodata and holds that value."""
    random = np.random.default_rng(seed)
    pixels = random.integers(1, 255, (3, side, side)).astype(np.float32)
    if fill is not None:
        pixels[:, random.random((side, side)) < 0.2] = fill
    plain = path.with_suffix(".plain.tif")
    with rasterio.open(
        plain, "w", driver="GTiff", width=side, height=side, count=3, nodata=fill,
        dtype="uint8" if fill is None else "float32", crs="EPSG:32633",
        transform=Affine(10, 0, 500000 + 10 * side * seed, 0, -10, 5400000),
    ) as file:  # fmt: skip
        file.write(pixels.astype(file.dtypes[0]))
    rasterio.shutil.copy(
        plain, path, driver="COG", compress="DEFLATE", blocksize=BLOCK, overviews="NONE"
    )
    plain.unlink()
    return path


def item(name, href):
    bands = [{"name": b, "common_name": b} for b in ("red", "green", "blue")]
    return {
        "type": "Feature", "stac_version": "1.0.0", "id": name, "geometry": None, "links": [],
        "properties": {"datetime": "2020-01-01T00:00:00Z"},
        "assets": {"image": {"href": href, "type": "image/tiff", "eo:bands": bands}},
    }  # fmt: skip


def collection(path, **hrefs):
    features = [item(name, href) for name, href in hrefs.items()]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


def loader_of(index, pool, *, budget=0, threads=4, on_bad=None):
    config = OrderConfig(
        seed=5, batch=8, chip=CHIP, super_window=256, chips_per_window=8, budget_bytes=budget
    )
    settings = LoaderConfig(min_valid=0.5, threads=threads, prefetch=4)
    return Loader(Order(shapes_of(index), config), TileReader(index, pool), settings, on_bad=on_bad)


def batches_of(index, steps, **options):
    with HandlePool() as pool, loader_of(index, pool, **options) as of:
        return list(of.batches(0, steps))


# --- the order of far tiles


def shapes(sizes, block, far):
    height, width = np.array(sizes, dtype=np.int64).T
    one = np.ones_like(height)
    return Shapes(
        height=height,
        width=width,
        block_height=one * block[0],
        block_width=one * block[1],
        pixel_bytes=one * 3,
        weight=np.ones(len(sizes)),
        far=None if far is None else np.array(far),
    )


def order(tiles, *, chip=64, super_window=256, seed=0):
    config = OrderConfig(
        seed=seed, batch=8, chip=chip, super_window=super_window, chips_per_window=16,
        budget_bytes=0,
    )  # fmt: skip
    return Order(tiles, config)


def places(of, tile, epoch=0):
    found = [of.place(epoch, window) for window in range(of.windows)]
    return [place for number, place in found if number == tile]


def runs(place, block, width):
    """How many runs of blocks, one after the other in the file, make up a part of a tile."""
    rows = -(-place.bottom // block[0]) - place.top // block[0]
    return 1 if place.width == width else rows


sizes = st.tuples(st.integers(64, 900), st.integers(64, 900))
blocks = st.sampled_from(
    [(1, 900), (8, 900), (16, 16), (64, 64), (128, 128), (256, 256), (900, 900)]
)


@settings(max_examples=80)
@given(
    tiles=st.lists(st.tuples(sizes, st.booleans()), min_size=1, max_size=5),
    block=blocks,
    chip=st.sampled_from([16, 64]),
    super_window=st.integers(64, 300),
    epoch=st.integers(0, 2),
)
def test_super_windows_of_far_tiles_too_cover_every_pixel_once_and_hold_a_chip(
    tiles, block, chip, super_window, epoch
):
    extents, far = zip(*tiles, strict=True)
    of = order(shapes(extents, block, far), chip=chip, super_window=super_window)
    for tile, (height, width) in enumerate(extents):
        covered = np.zeros((height, width), dtype=np.int64)
        for place in places(of, tile, epoch):
            covered[place.slices] += 1
            assert min(place.height, place.width) >= chip
        assert (covered == 1).all()


@settings(max_examples=60)
@given(tiles=st.lists(st.tuples(sizes, st.booleans()), min_size=1, max_size=4), block=blocks)
def test_local_tiles_are_cut_as_ever_whatever_lies_beside_them(tiles, block):
    extents, far = zip(*tiles, strict=True)
    mixed, local = (order(shapes(extents, block, f)) for f in (far, None))
    for tile, is_far in enumerate(far):
        if not is_far:
            assert places(mixed, tile) == places(local, tile)


def test_a_far_super_window_is_one_row_of_blocks_of_as_many_pixels_as_a_local_one():
    # 512 px blocks, chips of 512: 1024 x 1024 locally, 512 x 2048 from far away.
    tiles = shapes([(8192, 8192)], (512, 512), [True])
    of = order(tiles, chip=512, super_window=1024)
    found = places(of, 0)
    assert {(p.height, p.left % 512, p.width % 512) for p in found} == {(512, 0, 0)}
    assert np.mean([p.width for p in found]) == 2048
    local = places(order(shapes([(8192, 8192)], (512, 512), None), chip=512, super_window=1024), 0)
    assert len(found) == len(local) == 64


@pytest.mark.parametrize(
    ("size", "block", "chip", "most_runs"),
    [
        ((4096, 4096), (256, 256), 256, 1.0),
        ((4096, 4096), (256, 256), 128, 1.0),
        ((4096, 4096), (128, 128), 128, 1.0),
        ((4096, 4096), (256, 256), 512, 2.0),  # a chip needs two rows
        ((10980, 10980), (512, 512), 512, 1.1),  # the last row of windows takes what is left
        ((3000, 700), (256, 256), 256, 1.0),  # all columns: rows follow each other too
        ((6000, 6000), (1, 6000), 256, 1.0),  # strips
    ],
)
def test_the_blocks_of_a_far_super_window_lie_one_after_the_other(size, block, chip, most_runs):
    of = order(shapes([size], block, [True]), chip=chip, super_window=1024)
    for epoch in (0, 1):
        counts = [runs(place, block, size[1]) for place in places(of, 0, epoch)]
        assert np.mean(counts) <= most_runs


def test_a_picture_that_decodes_whole_keeps_its_local_shape():
    far, local = (
        places(order(shapes([(5000, 6000)], (5000, 6000), f), super_window=1024), 0)
        for f in ([True], None)
    )
    assert far == local


def test_more_threads_wait_for_a_network_than_decode_unless_a_number_is_declared():
    assert thread_count("auto", far=True) == 16
    assert thread_count("auto") <= 16
    assert thread_count(3, far=True) == thread_count(3) == 3


# --- batches


def test_an_epoch_takes_at_most_1_15_requests_a_super_window_and_every_chip_is_right(server):
    path = write_cog(server.root / "a.tif")
    index = build_index(server.url("a.tif"), DataConfig(), threads=2)
    assert index.is_far
    server.forget()
    with HandlePool() as pool, loader_of(index, pool) as of, rasterio.open(path) as file:
        batches = list(of.batches(0, of.order.samples_per_epoch // 8))
        for batch in batches:
            for pixels, (_, w) in zip(batch.pixels.numpy(), batch.source, strict=True):
                window = GdalWindow(w.left, w.top, w.width, w.height)
                np.testing.assert_array_equal(pixels, file.read(window=window))
        log = server.log()
        assert of.counts.decoded == of.order.windows == 16
    assert log.count("GET") / 16 <= 1.15
    assert log.most_in_flight > 1


def test_what_is_kept_whole_gives_the_same_batches_from_near_and_far(server):
    path = write_cog(server.root / "a.tif", side=300)
    near, far = (
        batches_of(build_index(src, DataConfig(), threads=2), 6, budget=10**9)
        for src in (path, server.url("a.tif"))
    )
    for a, b in zip(near, far, strict=True):
        assert a.source == b.source
        assert torch.equal(a.pixels, b.pixels)
        assert torch.equal(a.valid, b.valid)


def test_the_value_under_invalid_pixels_changes_no_bit_of_a_far_batch(server):
    results = []
    for fill in (0, -9999, np.nan, 65535):
        write_cog(server.root / f"{fill}.tif", fill=fill)
        index = build_index(server.url(f"{fill}.tif"), DataConfig(nodata="tag"), threads=2)
        results.append(batches_of(index, 4))
    assert not results[0][0].valid.all()
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert a.source == b.source
            assert torch.equal(a.pixels, b.pixels)
            assert torch.equal(a.valid, b.valid)


def test_a_far_tile_that_goes_during_the_run_is_reported_once_and_replaced(server):
    for seed, name in enumerate("abc"):
        write_cog(server.root / f"{name}.tif", seed=seed, side=256)
    path = collection(server.root / "items.json", **{n: f"{n}.tif" for n in "abc"})
    index = build_index(server.url(path.name), DataConfig(), threads=2)
    server.misbehave(status={"b.tif": 410})
    told = []
    batches = batches_of(index, 6, on_bad=lambda tile, reason: told.append((tile, reason)))
    assert {tile for batch in batches for tile, _ in batch.source} == {0, 2}
    [(tile, reason)] = told
    assert tile == 1
    assert f"{server.url('b.tif')} cannot be read: the server answers 410 (Gone)" in reason


# --- the index


def test_items_name_their_files_from_where_they_lie_and_a_lost_one_is_counted(server):
    write_cog(server.root / "a.tif", side=256)
    (server.root / "deep").mkdir()
    items = collection(
        server.root / "deep" / "items.json",
        near="../a.tif",
        far=server.url("~other/a.tif"),
        lost="b.tif",
    )
    index = build_index(server.url("deep/items.json?token=1"), DataConfig(), threads=2)
    paths = [tile.parts[0].info.path for tile in index.tiles]
    assert sorted(paths) == sorted([server.url("a.tif"), server.url("~other/a.tif")])
    [(name, reason)] = index.bad
    assert name.endswith("#lost")
    assert f"{server.url('deep/b.tif')} cannot be read: the server answers 404" in reason
    assert any("without what may lie beside them" in note for note in index.notes)
    # The same document on this machine names local files by relative hrefs.
    local = build_index(items, DataConfig(), threads=2)
    assert sorted(t.is_far for t in local.tiles) == [False, True]
    with pytest.raises(SourceError, match=r"1 of 3 files .* cannot be used, and --strict"):
        build_index(items, DataConfig(strict=True), threads=2)


def test_a_document_that_cannot_be_fetched_is_named_with_the_answer(server):
    with pytest.raises(SourceError, match=r"none\.json cannot be read: the server answers 404"):
        build_index(server.url("none.json"), DataConfig(), threads=2)


def test_an_index_of_far_files_is_used_again_and_only_what_changed_is_opened(server, tmp_path):
    for seed, name in enumerate("ab"):
        write_cog(server.root / f"{name}.tif", seed=seed, side=256)
    items = collection(server.root / "items.json", a="a.tif", b="b.tif")
    index = build_index(server.url(items.name), DataConfig(), threads=2)
    saved = tmp_path / "tiles.parquet"
    save_index(index, saved)
    assert load_index(saved).tiles == index.tiles
    before = index.fingerprint()
    assert load_index(saved).fingerprint() == before
    server.forget()
    assert build_index(saved, DataConfig(), threads=2).tiles == index.tiles
    assert {r.method for r in server.log().requests} == {"HEAD"}
    write_cog(server.root / "b.tif", seed=1, side=300)
    server.forget()
    again = build_index(saved, DataConfig(), threads=2)
    assert [tile.width for tile in again.tiles] == [256, 300]
    assert not server.log().count("GET", "a.tif")
    assert index.fingerprint() != before


def test_a_far_source_is_described_by_as_many_threads_as_wait_well(server, monkeypatch):
    used = []
    monkeypatch.setattr(
        parallel.ThreadPoolExecutor,
        "__init__",
        _noting(used, parallel.ThreadPoolExecutor.__init__),
    )
    write_cog(server.root / "a.tif", side=256)
    build_index(server.url("a.tif"), DataConfig(), threads=2)
    assert used[0] == 16
    used.clear()
    build_index(server.url("a.tif"), DataConfig(threads=2), threads=2)
    assert used[0] == 2


def _noting(used, init):
    def wrapped(self, threads, **options):
        used.append(threads)
        init(self, threads, **options)

    return wrapped


# --- listing


def test_an_address_of_the_web_is_a_file_and_never_a_folder():
    assert find("https://host/deep/a.tif").files == ("https://host/deep/a.tif",)
    assert find("https://host/deep/a.tif").root == "https://host/deep"
    signed = "https://host/deep/a.tif?sig=x%2Fy&sv=[1]"
    assert find(signed).files == (signed,)
    for folder in ("https://host/deep/", "https://host/deep/*.tif"):
        with pytest.raises(SourceError, match=r"HTTP knows no folders\. Name the files themselves"):
            find(folder)


def test_a_bucket_is_listed_like_a_folder():
    system = fsspec.filesystem("memory")
    for name in ("b.tif", "a.TIF", "notes.txt", "deep/c.tif"):
        system.pipe_file(f"/bucket/tiles/{name}", b"x")
    assert find("memory://bucket/tiles/*.tif").files == ("memory:///bucket/tiles/b.tif",)
    found = find("memory://bucket/tiles/")
    assert [f.rsplit("tiles/")[1] for f in found.files] == ["a.TIF", "b.tif", "deep/c.tif"]
    assert found.root == "memory://bucket/tiles"
    with pytest.raises(SourceError, match=r"holds no raster: none of 1 names ends in \.tif"):
        find("memory://bucket/tiles/*.txt")
    system.rm("/bucket", recursive=True)


def test_a_bucket_whose_package_is_missing_is_refused_with_the_name_of_the_package(monkeypatch):
    def no_package(url, **options):
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", no_package)
    with pytest.raises(SourceError, match=r"s3://b/\*\.tif cannot be listed.*Install s3fs"):
        find("s3://b/*.tif")
    assert find("s3://b/a.tif").files == ("s3://b/a.tif",)


def test_missing_keys_of_a_bucket_are_a_sentence_and_a_public_one_needs_none(monkeypatch):
    errors = types.ModuleType("botocore.exceptions")
    errors.BotoCoreError = type("BotoCoreError", (Exception,), {})
    monkeypatch.setitem(sys.modules, "botocore.exceptions", errors)
    asked = []

    def store(url, **options):
        asked.append(options)
        if not options.get("anon"):
            raise errors.BotoCoreError("Unable to locate credentials")
        return fsspec.filesystem("memory"), "/nothing/*.tif"

    monkeypatch.setattr(fsspec.core, "url_to_fs", store)
    with pytest.raises(SourceError, match=r"Unable to locate credentials\. Check the address and"):
        find("s3://b/*.tif")
    assert remote.ask("s3://b/a.tif") == remote.Told()
    monkeypatch.setenv("AWS_NO_SIGN_REQUEST", "YES")
    with pytest.raises(SourceError, match="holds no raster"):
        find("s3://b/*.tif")
    assert asked == [{}, {}, {"anon": True}]


def test_an_unknown_protocol_is_named():
    with pytest.raises(SourceError, match="cannot be listed: nowhere:// is not known"):
        find("nowhere://b/*.tif")


def test_a_file_address_is_a_local_path(tmp_path):
    write_cog(tmp_path / "a.tif", side=256)
    assert find(f"file://{tmp_path}/*.tif").files == (str(tmp_path / "a.tif"),)
    assert find(f"file://{tmp_path}").files == (str(tmp_path / "a.tif"),)


def test_addresses_stay_what_they_are_and_paths_become_absolute(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert absolute("https://host/a.tif") == "https://host/a.tif"
    assert absolute("/vsicurl/https://host/a.tif") == "/vsicurl/https://host/a.tif"
    assert absolute("tiles/*.tif") == f"{tmp_path}/tiles/*.tif"


def test_the_query_of_an_address_is_no_part_of_its_ending():
    assert is_stac("https://host/items.json?token=a.b")
    assert not is_stac("https://host/a.tif?from=items.json")
    assert not is_stac("odd?name.json.tif")
