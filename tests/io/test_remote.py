"""Rasters behind a network: few requests, right pixels, patience, and what the server says."""

import os

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from affine import Affine
from rasterio.windows import Window as GdalWindow
from support_http import FarServer

from geodino.errors import SourceError
from geodino.geo.validity import ReadRule
from geodino.geo.windows import Window
from geodino.io import remote
from geodino.io.content import content_sample
from geodino.io.metadata import is_unchanged
from geodino.io.raster import HandlePool, describe, read
from geodino.io.remote import RemoteError, far_options, is_far, refusal

SIDE, BLOCK = 1024, 128


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("www")


@pytest.fixture(scope="module")
def running(root):
    with FarServer(root) as server:
        yield server


@pytest.fixture
def server(running, monkeypatch):
    """The server, behaving and with an empty log; nobody waits long before asking again."""
    monkeypatch.setattr(remote, "RETRY_WAITS_S", (0.0, 0.0))
    monkeypatch.setenv("GDAL_HTTP_RETRY_DELAY", "0.01")
    running.misbehave()
    running.forget()
    return running


@pytest.fixture
def cog(root, request):
    """A COG of the test's own (so that nothing of it is cached), and its name on the server."""
    return write_cog(root / f"{abs(hash(request.node.nodeid))}.tif")


def write_cog(path, *, seed=0, mask=None, **options):
    pixels = np.random.default_rng(seed).integers(1, 255, (3, SIDE, SIDE)).astype(np.uint8)
    plain = path.with_suffix(".plain.tif")
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(
            plain,
            "w",
            driver="GTiff",
            width=SIDE,
            height=SIDE,
            count=3,
            dtype="uint8",
            crs="EPSG:32633",
            transform=Affine(10, 0, 500000, 0, -10, 5400000),
        ) as file,
    ):
        file.write(pixels)
        if mask is not None:
            file.write_mask(mask)
    rasterio.shutil.copy(
        plain, path, driver="COG", compress="DEFLATE", blocksize=BLOCK, overviews="NONE", **options
    )
    plain.unlink()
    return path


def on_disk(path, window):
    with rasterio.open(path) as file:
        return file.read(window=GdalWindow(window.left, window.top, window.width, window.height))


def gets(server):
    return [r.ranges for r in server.log().requests if r.method == "GET"]


ONE_ROW = Window(2 * BLOCK, 0, BLOCK, SIDE)


@pytest.mark.parametrize(
    ("path", "far"),
    [
        ("https://host/a.tif", True),
        ("s3://bucket/a.tif", True),
        ("/vsicurl/https://host/a.tif", True),
        ("/vsizip//vsis3/bucket/a.zip/b.tif", True),
        ("/data/a.tif", False),
        ("a.tif", False),
        ("file:///data/a.tif", False),
        ("/vsitar//data/a.tar/1.jpg", False),
        ("/vsimem/a.tif", False),
    ],
)
def test_a_path_is_far_if_reading_it_crosses_a_network(path, far):
    assert is_far(path) is far


def test_opening_asks_for_the_file_alone_and_a_row_of_blocks_comes_with_one_request(server, cog):
    with HandlePool() as pool:
        pool.get(server.url(cog.name))
        log = server.log()
        assert {r.path for r in log.requests} == {cog.name}  # no .msk, .aux.xml, .ovr, no folder
        assert (log.count("HEAD"), log.count("GET")) == (1, 1)
        server.forget()
        pixels, valid = read(pool, server.url(cog.name), ONE_ROW, rule=ReadRule())
    np.testing.assert_array_equal(pixels, on_disk(cog, ONE_ROW))
    assert valid.all()
    [[(start, stop)]] = gets(server)
    assert stop - start < cog.stat().st_size / 4  # one row of eight, and some


def test_a_mask_inside_the_file_comes_with_the_pixels(server, root):
    mask = np.full((SIDE, SIDE), 255, dtype=np.uint8)
    mask[300:350, 40:900] = 0
    path = write_cog(root / "masked.tif", mask=mask)
    with HandlePool() as pool:
        pool.get(server.url(path.name))
        server.forget()
        _, valid = read(pool, server.url(path.name), ONE_ROW, rule=ReadRule())
    np.testing.assert_array_equal(valid[0], mask[ONE_ROW.slices] > 0)
    assert len(gets(server)) == 1


def test_a_mask_beside_the_file_holds_locally_and_far_away_where_the_user_asks(
    server, root, monkeypatch
):
    path = root / "beside.tif"
    mask = np.full((SIDE, SIDE), 255, dtype=np.uint8)
    mask[:100] = 0
    write_cog(path)
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False),
        rasterio.open(path, "r+", IGNORE_COG_LAYOUT_BREAK="YES") as file,
    ):
        file.write_mask(mask)
    assert (root / "beside.tif.msk").is_file()
    window = Window(0, 0, 200, 200)
    rule = ReadRule()
    with HandlePool() as pool:
        assert not read(pool, path, window, rule=rule)[1][:, :100].any()
        assert read(pool, server.url("beside.tif"), window, rule=rule)[1].all()
    monkeypatch.setenv("GDAL_DISABLE_READDIR_ON_OPEN", "TRUE")
    with HandlePool() as pool:
        far = read(pool, server.url("~again/beside.tif"), window, rule=rule)[1]
    assert not far[:, :100].any()
    assert far[:, 100:].all()


@pytest.fixture(scope="module")
def finely_cut(root):
    """A file of so many blocks that the list of their places does not come with its header."""
    path = root / "fine.tif"
    pixels = np.random.default_rng(0).integers(1, 255, (1, 2048, 4096)).astype(np.uint8)
    with rasterio.open(
        path, "w", driver="GTiff", width=4096, height=2048, count=1, dtype="uint8", tiled=True,
        blockxsize=16, blockysize=16, compress="deflate", transform=Affine(1, 0, 0, 0, -1, 0),
    ) as file:  # fmt: skip
        file.write(pixels)
    return path


@pytest.mark.parametrize("after", range(7))
@pytest.mark.parametrize("fault", ["drop_first", "status"])
def test_trouble_at_any_request_gives_the_right_pixels_or_an_error_but_never_zeros(
    server, finely_cut, fault, after
):
    # Left to itself GDAL takes blocks whose place it could not read for blocks never written.
    window = Window(512, 0, 16, 1024)
    url = server.url(f"~{fault}{after}/{finely_cut.name}")
    value = 1 if fault == "drop_first" else 404
    server.misbehave(**{fault: {finely_cut.name: value}}, after={finely_cut.name: after})
    with HandlePool() as pool:
        try:
            pixels, _ = read(pool, url, window, rule=ReadRule())
        except RemoteError:
            assert fault == "status"
        else:
            np.testing.assert_array_equal(pixels, on_disk(finely_cut, window))
        server.misbehave()
        again, _ = read(pool, url, window, rule=ReadRule())
    np.testing.assert_array_equal(again, on_disk(finely_cut, window))


def test_a_run_of_blocks_longer_than_gdals_own_limit_comes_with_one_request(server, root):
    path = root / "long.tif"
    pixels = np.random.default_rng(0).integers(0, 2**16, (6, 512, 2048)).astype(np.uint16)
    with rasterio.open(
        path, "w", driver="GTiff", width=2048, height=512, count=6, dtype="uint16", tiled=True,
        blockxsize=512, blockysize=512, interleave="pixel", compress="deflate",
        transform=Affine(1, 0, 0, 0, -1, 0),
    ) as file:  # fmt: skip
        file.write(pixels)
    assert path.stat().st_size > 11 << 20  # GDAL's limit is 10 MiB
    with HandlePool() as pool:
        pool.get(server.url("long.tif"))
        server.forget()
        found, _ = read(pool, server.url("long.tif"), rule=ReadRule())
    np.testing.assert_array_equal(found, pixels)
    assert len(gets(server)) == 1


def test_importing_and_asking_for_options_changes_no_environment_and_the_user_stands_above(
    monkeypatch,
):
    before = dict(os.environ)
    ours = far_options()
    assert dict(os.environ) == before
    assert ours["GDAL_HTTP_MAX_RETRY"] == "3"
    assert not any(key.startswith("AWS") for key in ours)
    monkeypatch.setenv("GDAL_HTTP_MAX_RETRY", "9")
    assert "GDAL_HTTP_MAX_RETRY" not in far_options()
    with rasterio.Env(GDAL_HTTP_CONNECTTIMEOUT="7"):
        assert "GDAL_HTTP_CONNECTTIMEOUT" not in far_options()


def test_a_token_set_for_gdal_goes_with_every_request(server, cog, monkeypatch):
    monkeypatch.setenv("GDAL_HTTP_HEADERS", "Authorization: Bearer secret,X-Who: me")
    with HandlePool() as pool:
        describe(server.url(cog.name))
        read(pool, server.url(cog.name), ONE_ROW, rule=ReadRule())
    said = [r.headers for r in server.log().requests]
    assert len(said) >= 4
    assert {h.get("authorization") for h in said} == {"Bearer secret"}
    assert {h.get("x-who") for h in said} == {"me"}


def test_an_object_store_is_read_with_the_keys_of_the_user(server, root, monkeypatch):
    (root / "bucket").mkdir(exist_ok=True)
    path = write_cog(root / "bucket" / "object.tif")
    for key, value in {
        "AWS_S3_ENDPOINT": server.address.removeprefix("http://"),
        "AWS_HTTPS": "NO",
        "AWS_VIRTUAL_HOSTING": "FALSE",
        "AWS_ACCESS_KEY_ID": "the-key",
        "AWS_SECRET_ACCESS_KEY": "the-secret",
        "AWS_REGION": "eu-central-1",
    }.items():
        monkeypatch.setenv(key, value)
    with HandlePool() as pool:
        pixels, _ = read(pool, "s3://bucket/object.tif", ONE_ROW, rule=ReadRule())
    np.testing.assert_array_equal(pixels, on_disk(path, ONE_ROW))
    assert all("the-key" in r.headers["authorization"] for r in server.log().requests)


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ({"status": 404}, "404 (Not Found). It was moved or removed: correct the address"),
        ({"status": 403}, "403 (Forbidden). Give access as GDAL takes it (GDAL_HTTP_HEADERS"),
        ({"status": 401}, "401 (Unauthorized). Give access"),
        ({"status": 500}, "500 (Internal Server Error). Try again later"),
        ({"status": 429}, "429 (Too Many Requests). Try again later, with fewer data.threads"),
        ({"no_range": True}, "cannot be read in parts: its server sends whole files only"),
    ],
)
def test_what_the_server_answers_is_said_in_one_sentence_with_a_cure(server, cog, fault, says):
    server.misbehave(**{k: {cog.name: v} if k == "status" else v for k, v in fault.items()})
    with pytest.raises(SourceError) as error:
        describe(server.url(cog.name))
    assert says in str(error.value)
    assert server.url(cog.name) in str(error.value)
    # The same address is read once the server is well: the failure was not kept.
    server.misbehave()
    assert describe(server.url(cog.name)).count == 3


def test_a_status_without_a_name_of_its_own_is_told_as_it_is():
    assert "the server answers 599. Try again later" in str(
        refusal("https://h/a.tif", "HTTP response code: 599")
    )


def test_a_server_that_refuses_head_alone_is_read_and_still_tells_the_version(server, cog):
    server.misbehave(no_head=True)
    info = describe(server.url(cog.name))
    assert info.size == cog.stat().st_size
    assert info.version
    with HandlePool() as pool:
        pixels, _ = read(pool, server.url(cog.name), ONE_ROW, rule=ReadRule())
    np.testing.assert_array_equal(pixels, on_disk(cog, ONE_ROW))


def test_something_else_than_a_raster_an_empty_file_and_an_unknown_host_are_named(server, root):
    (root / "page.tif").write_text("<html>Please sign in</html>" * 50)
    (root / "empty.tif").touch()
    for name in ("page.tif", "empty.tif"):
        with pytest.raises(SourceError, match=f"{name} is no raster: the server sends something"):
            describe(server.url(name))
    with pytest.raises(SourceError, match=r"127\.0\.0\.1:9/a\.tif cannot be reached: .*network"):
        describe("http://127.0.0.1:9/a.tif")


def test_a_file_that_was_cut_off_on_its_way_to_the_server_is_refused_when_described(server, cog):
    whole = cog.stat().st_size
    os.truncate(cog, whole // 2)
    with pytest.raises(SourceError, match="cut off: its last block ends at byte") as error:
        describe(server.url(cog.name))
    assert f"the server has {whole // 2:,}" in str(error.value)


def test_a_server_that_hangs_is_given_up(server, cog, monkeypatch):
    server.misbehave(hang_s={cog.name: 1.5})
    monkeypatch.setattr(remote, "_ASK_S", 0.2)
    with pytest.raises(RemoteError, match=r"cannot be reached: no answer within 0\.2 s"):
        remote.ask(server.url(cog.name))
    monkeypatch.setenv("GDAL_HTTP_TIMEOUT", "1")
    monkeypatch.setattr(remote, "RETRY_WAITS_S", ())
    with pytest.raises(RemoteError, match=r"cannot be reached: .*timed out"), HandlePool() as pool:
        read(pool, server.url(cog.name), ONE_ROW, rule=ReadRule())


@pytest.mark.parametrize(
    "fault", [{"fail_first": 2}, {"drop_first": 1}, {"drop_first": 2, "drop_after": 0}]
)
def test_passing_trouble_changes_no_pixel(server, cog, fault):
    with HandlePool() as pool:
        pool.get(server.url(cog.name))
        server.misbehave(**{k: v if k == "drop_after" else {cog.name: v} for k, v in fault.items()})
        pixels, _ = read(pool, server.url(cog.name), ONE_ROW, rule=ReadRule())
    np.testing.assert_array_equal(pixels, on_disk(cog, ONE_ROW))


def test_a_connection_that_breaks_every_time_is_told_and_closes_the_file_for_nobody(server, cog):
    url = server.url(cog.name)
    with HandlePool() as pool, HandlePool() as other:
        pool.get(url)
        other.get(url)
        server.misbehave(drop_first={cog.name: 10**6})
        with pytest.raises(RemoteError, match=r"cannot be reached: .* try again"):
            read(pool, url, ONE_ROW, rule=ReadRule())
        server.misbehave()
        for each in (pool, other):
            pixels, _ = read(each, url, ONE_ROW, rule=ReadRule())
            np.testing.assert_array_equal(pixels, on_disk(cog, ONE_ROW))


def test_a_window_that_did_not_arrive_is_named_with_its_place(server, cog, monkeypatch):
    monkeypatch.setattr(remote, "RETRY_WAITS_S", ())
    with HandlePool() as pool:
        pool.get(server.url(cog.name))
        server.misbehave(drop_first={cog.name: 1})
        with pytest.raises(RemoteError, match="rows 256 to 383, columns 0 to 1023, did not arrive"):
            read(pool, server.url(cog.name), ONE_ROW, rule=ReadRule())


def test_a_file_that_goes_after_it_was_opened_is_not_asked_for_again_and_again(server, cog):
    with HandlePool() as pool:
        pool.get(server.url(cog.name))
        server.misbehave(status={cog.name: 404})
        server.forget()
        with pytest.raises(RemoteError, match=r"404 \(Not Found\)") as error:
            read(pool, server.url(cog.name), ONE_ROW, rule=ReadRule())
    assert error.value.is_final
    # GDAL's attempts at one run of blocks, band by band, and one question of ours.
    assert len(server.log().requests) <= 6


def test_the_version_tells_a_rewritten_file_from_an_unchanged_one(server, cog):
    info = describe(server.url(cog.name))
    before = content_sample(info.path)
    assert info.size == before[0] == cog.stat().st_size
    assert info.mtime_ns == cog.stat().st_mtime_ns // 10**9 * 10**9
    assert is_unchanged(info)
    assert content_sample(info.path) == before
    os.utime(cog, ns=(1, cog.stat().st_mtime_ns + 10**9))
    assert not is_unchanged(info)
    assert content_sample(info.path)[1] != before[1]


def test_without_a_version_the_start_of_the_file_stands_for_it_and_it_counts_as_changed(
    server, cog
):
    server.misbehave(versionless=True)
    info = describe(server.url(cog.name))
    assert (info.mtime_ns, info.version) == (0, "")
    assert not is_unchanged(info)
    before = content_sample(server.url(f"~1/{cog.name}"))
    assert content_sample(server.url(f"~2/{cog.name}")) == before
    write_cog(cog, seed=1)
    assert content_sample(server.url(f"~3/{cog.name}"))[1] != before[1]


def test_asking_for_versions_downloads_no_file(server, cog):
    for faults in ({}, {"no_head": True}, {"versionless": True}):
        server.misbehave(**faults)
        server.forget()
        content_sample(server.url(f"~{len(faults)}{min(faults, default='')}/{cog.name}"))
        assert server.log().sent <= 1 << 16
