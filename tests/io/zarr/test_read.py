"""Pixels of zarr stores: every layout, chunks never written, damage, and fill values."""

import functools
import http.server
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numcodecs
import numpy as np
import pytest
import rioxarray
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.codecs import BloscCodec, Crc32cCodec, GzipCodec, TransposeCodec, ZstdCodec
from zarr_support import chunk_files, coordinate_image, write_array, write_coordinates

from geodino.errors import BandError, SourceError
from geodino.geo.validity import ReadRule
from geodino.geo.windows import Window
from geodino.io.raster import HandlePool, describe, read
from geodino.io.zarr.store import describe_store

TAGS = ReadRule()
IGNORE = ReadRule(nodata="ignore")
WINDOW = Window(8, 16, 30, 37)


@pytest.fixture
def pool():
    with HandlePool(4) as opened:
        yield opened


V2 = {"zarr_format": 2}
LAYOUTS = {
    "one chunk": {},
    "chunks of both bands": {"chunks": (2, 16, 32)},
    "chunks of one band": {"chunks": (1, 17, 23)},
    "chunks larger than the array": {"chunks": (3, 64, 128)},
    "uncompressed": {"chunks": (1, 16, 16), "compressors": None},
    "blosc": {"chunks": (1, 16, 16), "compressors": BloscCodec()},
    "gzip": {"chunks": (1, 16, 16), "compressors": GzipCodec()},
    "zstd and a checksum": {"chunks": (1, 16, 16), "compressors": (ZstdCodec(), Crc32cCodec())},
    "transposed": {"chunks": (2, 16, 32), "filters": TransposeCodec(order=(2, 0, 1))},
    "big endian": {"chunks": (2, 16, 16), "serializer": {"name": "bytes",
                   "configuration": {"endian": "big"}}},
    "keys with dots": {"chunks": (1, 16, 16), "chunk_key_encoding": {"name": "v2",
                       "separator": "."}},
    "sharded": {"chunks": (1, 16, 16), "shards": (2, 32, 48)},
    "sharded and transposed": {"chunks": (2, 16, 8), "shards": (2, 48, 32),
                               "filters": TransposeCodec(order=(1, 2, 0))},
    "one shard": {"chunks": (1, 16, 16), "shards": (2, 48, 80)},
    "format 2": {**V2, "chunks": (1, 16, 16)},
    "format 2, blosc": {**V2, "chunks": (2, 16, 16), "compressors": {"id": "blosc"}},
    "format 2, zlib and a filter": {**V2, "chunks": (1, 16, 16), "compressors": {"id": "zlib"},
                                    "filters": [numcodecs.Delta("<u2")]},
    "format 2, Fortran order": {**V2, "chunks": (2, 16, 32), "order": "F"},
    "format 2, nested, uncompressed": {**V2, "chunks": (1, 16, 16), "compressors": None,
                                       "chunk_key_encoding": {"name": "v2", "separator": "/"}},
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_a_window_lands_where_it_should_in_every_layout(tmp_path, pool, layout):
    write_array(tmp_path / "c.zarr", "", coordinate_image(), ("band", "y", "x"), **layout)
    info = describe(tmp_path / "c.zarr")
    assert info.block == tuple(map(min, layout.get("chunks", (2, 48, 80))[1:], (48, 80)))
    pixels, valid = read(pool, info.path, WINDOW, rule=TAGS)
    np.testing.assert_array_equal(pixels[0, :, 0], np.arange(8, 38))
    np.testing.assert_array_equal(pixels[1, 0], np.arange(16, 53))
    np.testing.assert_array_equal(pixels, coordinate_image()[:, 8:38, 16:53])
    assert pixels.dtype == np.dtype("uint16")
    assert valid.all()
    np.testing.assert_array_equal(read(pool, info.path, rule=TAGS)[0], coordinate_image())


ORDERS = {
    ("band", "y", "x"): (0, 1, 2),
    ("y", "x", "band"): (1, 2, 0),
    ("x", "y", "band"): (2, 1, 0),
}


@pytest.mark.parametrize("dims", ORDERS, ids="".join)
def test_axes_in_any_order_give_bands_rows_and_columns(tmp_path, pool, dims):
    stored = coordinate_image().transpose(ORDERS[dims])
    write_array(tmp_path / "c.zarr", "image", stored, dims, chunks=(2, 9, 7))
    info = describe(tmp_path / "c.zarr")
    assert (info.count, info.grid.height, info.grid.width) == (2, 48, 80)
    np.testing.assert_array_equal(read(pool, info.path, rule=TAGS)[0], coordinate_image())


@pytest.mark.parametrize("chunks", [(1, 1, 16, 16), (2, 2, 16, 80), (3, 1, 48, 16)])
def test_every_date_is_a_raster_of_its_own(tmp_path, pool, chunks):
    cube = np.stack([coordinate_image() + 100 * t for t in range(3)])
    write_array(tmp_path / "c.zarr", "s2", cube, ("time", "band", "y", "x"), chunks=chunks)
    rasters = describe_store(tmp_path / "c.zarr").rasters
    assert [r.path for r in rasters] == [f"{tmp_path}/c.zarr#s2@{t}" for t in range(3)]
    for date, raster in enumerate(rasters):
        pixels, _ = read(pool, raster.path, WINDOW, bands=(2,), rule=TAGS)
        np.testing.assert_array_equal(pixels[0, 0], np.arange(16, 53) + 100 * date)


def test_variables_are_the_bands_and_come_in_the_order_asked_for(tmp_path, pool):
    image = coordinate_image()
    for name, values, chunks in (("B02", image[0], (16, 16)), ("B03", image[1], (48, 20))):
        write_array(tmp_path / "c.zarr", f"r10m/{name}", values, ("y", "x"), chunks=chunks)
    info = describe(tmp_path / "c.zarr")
    assert info.path == f"{tmp_path}/c.zarr#r10m/B02,B03"
    assert info.descriptions == ("B02", "B03")
    pixels, valid = read(pool, info.path, WINDOW, bands=(2, 1), rule=TAGS)
    np.testing.assert_array_equal(pixels, image[::-1, 8:38, 16:53])
    assert valid.shape == (2, 30, 37)
    alone, _ = read(pool, f"{tmp_path}/c.zarr#r10m/B03", WINDOW, rule=TAGS)
    np.testing.assert_array_equal(alone[0], pixels[0])


@pytest.fixture(scope="module")
def noise(tmp_path_factory):
    """One cube in three layouts."""
    store = tmp_path_factory.mktemp("noise") / "c.zarr"
    values = np.random.default_rng(0).normal(size=(5, 45, 61)).astype("f4")
    for name, options in {
        "plain": {"chunks": (2, 16, 16)},
        "sharded": {"chunks": (1, 8, 16), "shards": (2, 24, 32)},
        "whole": {"chunks": (5, 45, 61)},
    }.items():
        write_array(store, name, values, ("band", "y", "x"), **options)
    return store


@given(
    name=st.sampled_from(["plain", "sharded", "whole"]),
    rows=st.tuples(st.integers(0, 44), st.integers(1, 45)),
    columns=st.tuples(st.integers(0, 60), st.integers(1, 61)),
    bands=st.lists(st.integers(1, 5), min_size=1, max_size=5),
)
@settings(max_examples=60)
def test_any_window_is_what_zarr_itself_reads(noise, name, rows, columns, bands):
    top, left = rows[0], columns[0]
    window = Window(top, left, min(rows[1], 45 - top), min(columns[1], 61 - left))
    expected = zarr.open_array(noise, path=name, mode="r")[:, *window.slices]
    with HandlePool(1) as pool:
        pixels, valid = read(pool, f"{noise}#{name}", window, bands=bands, rule=TAGS)
    np.testing.assert_array_equal(pixels, expected[[band - 1 for band in bands]])
    assert valid.all()


def test_many_threads_read_the_same_pixels_as_one(noise, pool):
    windows = [Window(t, left, 20, 30) for t in (0, 9, 25) for left in (0, 13, 31)]

    def one(window):
        return read(pool, f"{noise}#sharded", window, rule=TAGS)[0]

    with ThreadPoolExecutor(8) as threads:
        together = list(threads.map(one, windows * 4))
    whole = read(pool, f"{noise}#sharded", rule=TAGS)[0]
    for pixels, window in zip(together, windows * 4, strict=True):
        np.testing.assert_array_equal(pixels, whole[:, *window.slices])


@pytest.mark.parametrize("shards", [None, (2, 32, 32)])
def test_a_chunk_that_was_never_written_is_invalid_and_never_zeros(tmp_path, pool, shards):
    # 2 bands of 48 x 80 in chunks of 16: band 2 lacks its chunk in rows 16-31, columns 32-47.
    store = tmp_path / "c.zarr"
    array = zarr.create_array(
        store, shape=(2, 48, 80), chunks=(1, 16, 16), shards=shards and (2, 48, 80), dtype="u2",
        fill_value=7, dimension_names=("band", "y", "x"), config={"write_empty_chunks": False},
    )  # fmt: skip
    image = coordinate_image() + 100
    image[1, 16:32, 32:48] = 7
    array[...] = image
    path = f"{store}#"
    _, valid = read(pool, path, Window(10, 30, 10, 20), rule=TAGS)
    expected = np.ones((2, 10, 20), dtype=bool)
    expected[1, 6:, 2:18] = False
    np.testing.assert_array_equal(valid, expected)
    np.testing.assert_array_equal(read(pool, path, rule=IGNORE)[0], image)
    assert read(pool, path, rule=IGNORE)[1].all()
    assert read(pool, path, bands=(1,), rule=TAGS)[1].all()
    assert pool.store_raster(path).absent_chunks() == (1, 2 * 3 * 5)


def test_a_store_of_which_nothing_was_written_has_no_valid_pixel(tmp_path, pool):
    for name, shards in (("plain", None), ("sharded", (16, 16))):
        zarr.create_array(
            tmp_path / "c.zarr", name=name, shape=(16, 16), chunks=(8, 8), shards=shards,
            dtype="f4", dimension_names=("y", "x"),
        )  # fmt: skip
        path = f"{tmp_path}/c.zarr#{name}"
        assert not read(pool, path, rule=TAGS)[1].any()
        assert not read(pool, path, rule=ReadRule(nodata=5.0))[1].any()
        assert pool.store_raster(path).absent_chunks() == (4, 4)


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_no_bit_of_a_result_depends_on_what_marks_invalid_pixels(tmp_path, pool, dtype):
    random = np.random.default_rng(1)
    image = random.integers(1000, 5000, (2, 32, 32)).astype(dtype)
    gaps = np.zeros(image.shape, dtype=bool)
    gaps[:, :16, 16:] = True
    fills = [0, 65535] if dtype == "uint16" else [0, 65535, np.nan, -9999]
    results = []
    for fill in [*fills, "absent"]:
        store = tmp_path / f"{fill}.zarr"
        stored = np.where(gaps, 0 if fill == "absent" else fill, image).astype(dtype)
        attributes = {} if fill == "absent" else {"nodata": str(fill)}
        write_array(store, "a", stored, ("band", "y", "x"), chunks=(1, 16, 16),
                    attributes=attributes)  # fmt: skip
        if fill == "absent":
            for band in (0, 1):
                (store / f"a/c/{band}/0/1").unlink()
        pixels, valid = read(pool, f"{store}#a", rule=TAGS)
        results.append((np.where(valid, pixels, 0).tobytes(), valid.tobytes()))
        np.testing.assert_array_equal(valid, ~gaps)
    assert len(set(results)) == 1


def test_nodata_is_tested_on_stored_values_and_may_be_declared(tmp_path, pool):
    values = np.array([[0, 9, 65535, 7]], dtype="u2")
    said = {"_FillValue": 0, "scale_factor": 0.5, "add_offset": -4.5}  # 9 decodes to 0
    write_array(tmp_path / "c.zarr", "a", values, ("y", "x"), attributes=said)
    info = describe(tmp_path / "c.zarr")
    assert (info.nodata, info.scales, info.offsets) == ((0.0,), (0.5,), (-4.5,))
    pixels, valid = read(pool, info.path, rule=TAGS)
    np.testing.assert_array_equal(pixels[0], values)
    assert valid[0, 0].tolist() == [False, True, True, True]
    assert read(pool, info.path, rule=IGNORE)[1].all()
    _, valid = read(pool, info.path, rule=ReadRule(nodata=65535.0))
    assert valid[0, 0].tolist() == [True, True, False, True]


def test_nan_and_infinity_are_never_valid(tmp_path, pool):
    values = np.array([[1.5, np.nan, np.inf]], dtype="f4")
    write_array(tmp_path / "c.zarr", "a", values, ("y", "x"))
    assert read(pool, f"{tmp_path}/c.zarr#a", rule=IGNORE)[1][0, 0].tolist() == [True, False, False]


@pytest.mark.parametrize(
    "options",
    [{}, {"compressors": BloscCodec(cname="lz4")}, {"compressors": GzipCodec()},
     {"compressors": None}, {"shards": (2, 48, 80)},
     {"zarr_format": 2, "compressors": {"id": "blosc", "cname": "lz4"}}],
    ids=["zstd", "blosc", "gzip", "raw", "sharded", "format 2"],
)  # fmt: skip
@pytest.mark.parametrize("lost", [1, 0.5, "all"])
def test_a_chunk_that_was_cut_off_is_named(tmp_path, pool, options, lost):
    store = tmp_path / "c.zarr"
    noise = np.random.default_rng(0).integers(0, 60_000, (2, 48, 80)).astype("u2")
    write_array(store, "a", noise, ("band", "y", "x"), **{"chunks": (1, 16, 16)} | options)
    file = chunk_files(store)[-1]
    content = file.read_bytes()
    kept = {1: len(content) - 1, "all": 0}.get(lost, len(content) // 2)
    file.write_bytes(content[:kept])
    with pytest.raises(
        SourceError, match=r"c\.zarr#a is damaged: .*(rows 32 to 47|its shard a/c/)"
    ):
        read(pool, f"{store}#a", rule=TAGS)
    if "shards" not in options:
        assert read(pool, f"{store}#a", Window(0, 0, 32, 64), rule=TAGS)[1].all()


def test_noise_in_a_chunk_is_an_error_or_other_pixels_but_never_a_crash(tmp_path, pool):
    store = tmp_path / "c.zarr"
    image = coordinate_image()
    write_array(store, "a", image, ("band", "y", "x"), chunks=(2, 48, 80),
                compressors=(ZstdCodec(), Crc32cCodec()))  # fmt: skip
    file = chunk_files(store)[0]
    whole = file.read_bytes()
    random = np.random.default_rng(0)
    for _ in range(50):
        content = bytearray(whole)
        content[random.integers(len(content))] ^= 1 << random.integers(8)
        file.write_bytes(content)
        # One flipped bit never passes a checksum.
        with pytest.raises(SourceError, match="its checksum does not fit"):
            read(pool, f"{store}#a", rule=TAGS)


def test_what_is_not_there_is_named(tmp_path, pool):
    store = tmp_path / "c.zarr"
    cube = np.stack([coordinate_image()] * 2)
    write_array(store, "red", cube, ("time", "band", "y", "x"))
    with pytest.raises(BandError, match=r"#red@0 has 2 band\(s\), but band 3 was asked for"):
        read(pool, f"{store}#red@0", bands=(3,), rule=TAGS)
    with pytest.raises(SourceError, match=r"has no array 'rad'. Did you mean 'red'\?"):
        read(pool, f"{store}#rad@0", rule=TAGS)
    with pytest.raises(SourceError, match=r"have 2 date\(s\), counted from 0. Name one"):
        read(pool, f"{store}#red@2", rule=TAGS)
    with pytest.raises(SourceError, match="have 2 date"):
        read(pool, f"{store}#red", rule=TAGS)
    with pytest.raises(SourceError, match=r"gone\.zarr#red does not exist"):
        read(pool, f"{tmp_path}/gone.zarr#red", rule=TAGS)
    with pytest.raises(ValueError, match="reaches out of"):
        read(pool, f"{store}#red@0", Window(40, 0, 20, 20), rule=TAGS)


def test_rasters_of_files_and_stores_share_a_pool_and_few_stay_open(tmp_path):
    for number in range(4):
        write_array(tmp_path / f"{number}.zarr", "a", coordinate_image()[0] + number, ("y", "x"))
    paths = [f"{tmp_path}/{number}.zarr#a" for number in range(4)]
    with HandlePool(2) as pool:
        for number in (0, 1, 2, 3, 0, 3):
            assert read(pool, paths[number], rule=TAGS)[0][0, 0, 0] == number
        assert pool.get(paths[3]) is pool.get(paths[3])


def zipped(store, target):
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as out:
        for path in sorted(store.rglob("*")):
            out.write(path, path.relative_to(store))
    return target


@pytest.mark.parametrize("shards", [None, (2, 32, 32)])
def test_a_zip_of_a_store_reads_like_the_store(tmp_path, shards):
    write_array(tmp_path / "c.zarr", "a", coordinate_image(), ("band", "y", "x"),
                chunks=(1, 16, 16), shards=shards)  # fmt: skip
    (tmp_path / "c.zarr/a/c/0/0/0").unlink()
    path = zipped(tmp_path / "c.zarr", tmp_path / "c.zarr.zip")
    with HandlePool() as pool:
        info = describe(path)
        assert info.path == f"{path}#a"
        assert info.size == path.stat().st_size
        for one, other in zip(
            read(pool, info.path, WINDOW, rule=TAGS),
            read(pool, f"{tmp_path}/c.zarr#a", WINDOW, rule=TAGS),
            strict=True,
        ):
            np.testing.assert_array_equal(one, other)
        absent = pool.store_raster(info.path).absent_chunks()
        assert absent == pool.store_raster(f"{tmp_path}/c.zarr#a").absent_chunks()
        assert absent[0] > 0


class Ranges(http.server.SimpleHTTPRequestHandler):
    """Python's file server; with ``ranges`` it honours ``bytes=a-b`` and ``bytes=-n``."""

    ranges = True

    def log_message(self, *_):
        pass

    def do_GET(self):
        header = self.headers.get("Range")
        if header is None or not self.ranges:
            super().do_GET()
            return
        try:
            content = Path(self.translate_path(self.path)).read_bytes()
        except OSError:
            self.send_error(404)
            return
        first, last = header.removeprefix("bytes=").split("-")
        part = content[-int(last) :] if not first else content[int(first) : int(last) + 1]
        self.send_response(206)
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part)


@pytest.fixture(params=[True, False], ids=["ranges", "no ranges"])
def server(request, tmp_path):
    """Serve tmp_path over HTTP from a thread."""
    kind = type("Handler", (Ranges,), {"ranges": request.param})
    handler = functools.partial(kind, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as served:
        thread = threading.Thread(target=served.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{served.server_port}"
        served.shutdown()
        thread.join()


@pytest.mark.filterwarnings("ignore:Consolidated metadata is currently not part")
@pytest.mark.parametrize("shards", [None, (2, 32, 32)])
def test_a_store_behind_http_reads_like_the_folder(tmp_path, server, shards):
    store = tmp_path / "c.zarr"
    write_coordinates(store, 48, 80)
    write_array(store, "a", coordinate_image(), ("band", "y", "x"), chunks=(1, 16, 16),
                shards=shards)  # fmt: skip
    (store / "a/c/0/0/0").unlink()
    zarr.consolidate_metadata(store)
    (remote,) = describe_store(f"{server}/c.zarr").rasters
    (local,) = describe_store(store).rasters
    assert remote.path == f"{server}/c.zarr#a"
    assert (remote.grid, remote.block, remote.size) == (local.grid, local.block, 0)
    with HandlePool() as pool:
        for one, other in zip(
            read(pool, remote.path, WINDOW, rule=TAGS),
            read(pool, local.path, WINDOW, rule=TAGS),
            strict=True,
        ):
            np.testing.assert_array_equal(one, other)
        raster = pool.store_raster(remote.path)
        assert raster.absent_chunks() is None
        assert raster.content_sample()[0] == 0
        assert pool.store_raster(tmp_path / "c.tif") is None


def test_arrays_named_over_http_need_no_consolidated_metadata(tmp_path, server):
    write_array(tmp_path / "c.zarr", "g/B02", coordinate_image()[0], ("y", "x"))
    write_array(tmp_path / "c.zarr", "g/B03", coordinate_image()[1], ("y", "x"))
    path = f"{server}/c.zarr#g/B02,B03"
    assert describe(path).count == 2
    with HandlePool() as pool:
        np.testing.assert_array_equal(read(pool, path, rule=TAGS)[0], coordinate_image())


def test_a_server_without_the_store_is_named(server):
    with pytest.raises(SourceError, match=r"/gone\.zarr cannot be read as a zarr store"):
        describe_store(f"{server}/gone.zarr")


def samples(path):
    with HandlePool() as pool:
        return pool.store_raster(path).content_sample()


@pytest.mark.parametrize("options", [{}, {"shards": (2, 48, 80)}, {"compressors": None}],
                         ids=["chunks", "shards", "uncompressed"])  # fmt: skip
def test_the_sample_of_a_raster_changes_when_a_chunk_is_rewritten(tmp_path, options):
    noise = np.random.default_rng(0).integers(0, 60_000, (2, 2, 48, 80)).astype("u2")
    dims = ("time", "band", "y", "x")
    if "shards" in options:
        options = {"shards": (1, *options["shards"])}
    for name in ("one", "two"):
        array = write_array(tmp_path / f"{name}.zarr", "a", noise, dims, chunks=(1, 1, 16, 16),
                            **options)  # fmt: skip
    one, two, later = (f"{tmp_path}/{p}" for p in ("one.zarr#a@0", "two.zarr#a@0", "two.zarr#a@1"))
    before = samples(two)
    assert samples(one) == before
    assert before[0] > 0
    of_later = samples(later)
    array[0, 1, 20, 30] += 1
    assert samples(two)[1] != before[1]
    assert samples(later) == of_later
    array.update_attributes({"scale_factor": 0.5})
    assert samples(later) != of_later


@pytest.mark.filterwarnings("ignore:Consolidated metadata is currently not part")
def test_real_rasters_read_the_same_from_zarr_as_from_their_files(tmp_path, shared_data, pool):
    files = [
        *sorted((shared_data / "scenes").rglob("*.tif")),
        *sorted((shared_data / "timeseries").rglob("*.tif"))[:5],
    ]
    compared = 0
    for number, file in enumerate(files):
        info = describe(file)
        if info.mask != "none" or info.alpha is not None or info.grid.gsd_m is None:
            continue  # zarr has no mask beside the pixels
        opened = rioxarray.open_rasterio(file)
        store = tmp_path / f"{number}.zarr"
        opened.to_dataset(name="a").to_zarr(store, zarr_format=2 + number % 2)
        opened.close()
        again = describe(store)
        assert again.grid == info.grid, file
        np.testing.assert_equal(again.nodata, info.nodata)
        for mine, its in zip(
            read(pool, again.path, rule=TAGS), read(pool, file, rule=TAGS), strict=True
        ):
            np.testing.assert_array_equal(mine, its, err_msg=str(file))
        compared += 1
    assert compared > 10
