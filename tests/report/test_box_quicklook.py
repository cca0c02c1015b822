import numpy as np
from PIL import Image

from geodino.report.box_quicklook import write_box_quicklook

CLASSES = [("house", (255, 0, 0)), ("hall", (0, 0, 255))]


def test_boxes_are_drawn_where_they_are_in_the_colour_of_their_class(tmp_path):
    values = np.linspace(0, 100, 600 * 700).reshape(1, 600, 700)
    valid = np.ones((600, 700), dtype=bool)
    valid[500:, 600:] = False
    boxes = np.array([[100.0, 50, 200, 90]])
    path = write_box_quicklook(
        tmp_path / "boxes.parquet", values, valid, boxes, np.array([1]), CLASSES
    )
    assert path == tmp_path / "boxes.png"
    picture = np.asarray(Image.open(path).convert("RGB"))
    assert picture.shape[1] == 700
    blue = (picture[:600] == (0, 0, 255)).all(axis=2)
    rows, columns = np.where(blue)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (50, 89, 100, 199)
    assert not blue[52:88, 102:198].any()
    grey = picture[500:600, 600:]
    assert {tuple(c) for c in grey.reshape(-1, 3).tolist()} == {(120, 124, 128), (190, 194, 198)}
    # Below it the legend names the one class there is.
    below = picture[600:].reshape(-1, 3)
    assert (below == (0, 0, 255)).all(axis=1).any()
    assert not (below == (255, 0, 0)).all(axis=1).any()


def test_a_raster_without_a_valid_pixel_and_without_boxes_has_a_picture(tmp_path):
    none = np.zeros((0, 4)), np.zeros(0, dtype=np.int64)
    valid = np.zeros((40, 30), dtype=bool)
    write_box_quicklook(tmp_path / "a.parquet", np.zeros((3, 40, 30)), valid, *none, CLASSES)
    assert (tmp_path / "a.png").is_file()
