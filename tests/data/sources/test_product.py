"""What product metadata says about Sentinel-2's offset."""

import pytest

from geodino.data.sources.product import Offset, offset_of_baseline, sentinel_2_offset

SAFE = "S2B_MSIL2A_20230701T102559_N0509_R108_T32UMD_20230701T131503.SAFE"
BAND = "GRANULE/L2A_T32UMD_A032998_20230701T102555/IMG_DATA/R10m/T32UMD_20230701T102559_B04_10m.jp2"


def with_metadata(folder, text):
    folder.mkdir(parents=True)
    (folder / "MTD_MSIL2A.xml").write_text(text)
    return str(folder / BAND)


@pytest.mark.parametrize(
    ("baseline", "offset"),
    [("02.14", 0.0), ("03.01", 0.0), ("04.00", -0.1), ("05.09", -0.1), ("05.11", -0.1)],
)
def test_from_baseline_04_00_on_the_offset_is_a_tenth(baseline, offset):
    assert offset_of_baseline(baseline, "x") == Offset(offset, f"baseline {baseline} in x")


def test_the_products_name_tells_its_baseline(tmp_path):
    assert sentinel_2_offset(str(tmp_path / SAFE / BAND)) == Offset(
        -0.1, "baseline 05.09 in the product's name"
    )
    old = SAFE.replace("N0509", "N0301")
    assert sentinel_2_offset(str(tmp_path / old / BAND)).value == 0.0
    assert sentinel_2_offset(f"https://host/{SAFE}/{BAND}").value == -0.1


def test_the_metadata_file_stands_above_the_name(tmp_path):
    # As reprocessed products have it, and those that a tool renamed.
    text = "<a><PROCESSING_BASELINE>02.14</PROCESSING_BASELINE></a>"
    assert sentinel_2_offset(with_metadata(tmp_path / SAFE, text)) == Offset(
        0.0, "baseline 02.14 in MTD_MSIL2A.xml"
    )


def test_offsets_that_are_written_out_stand_above_the_baseline(tmp_path):
    offsets = "".join(f'<BOA_ADD_OFFSET band_id="{i}">-1000</BOA_ADD_OFFSET>' for i in range(13))
    text = f"<PROCESSING_BASELINE>99.99</PROCESSING_BASELINE><L>{offsets}</L>"
    # The very same number as from a baseline: scenes of both kinds need no recoding.
    assert sentinel_2_offset(with_metadata(tmp_path / "a", text)) == Offset(-0.1, "MTD_MSIL2A.xml")


def test_metadata_that_does_not_say_leaves_it_to_the_name(tmp_path):
    assert sentinel_2_offset(with_metadata(tmp_path / SAFE, "<a/>")).value == -0.1
    assert sentinel_2_offset(with_metadata(tmp_path / "renamed", "<a/>")) is None


def test_a_loose_file_tells_nothing(tmp_path):
    assert sentinel_2_offset(str(tmp_path / "T32UMD_20230701T102559_B04_10m.jp2")) is None
    # A level-1C name is of another quantity, but of the same baseline; the nearest name counts.
    assert sentinel_2_offset(f"/x/{SAFE.replace('N0509', 'N0204')}/{SAFE}/b.jp2").value == -0.1
