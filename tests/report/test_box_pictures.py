import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from geodino.report.box_pictures import BoxCase, ShownBoxes, box_legend, box_panels, outlined
from geodino.report.picture_table import Seen

RED = (255, 0, 0)


def shown(*boxes, right=True):
    rights = np.full(len(boxes), right)
    return ShownBoxes(
        xyxy=np.array(boxes, dtype=np.float64).reshape(-1, 4), right=rights, wrong=~rights
    )


def test_a_frame_lies_just_inside_of_its_box_with_a_dark_line_around():
    made = outlined(np.full((20, 20, 3), 100, np.uint8), np.array([[5.0, 6.0, 15.0, 16.0]]), [RED])
    inside = made[6:16, 5:15]
    frame = np.ones((10, 10), bool)
    frame[2:-2, 2:-2] = False
    assert (inside[frame] == RED).all()
    assert (inside[~frame] == 100).all()
    assert (made[5, 4:16] == 0).all()
    assert (made[:5] == 100).all()


@given(
    st.lists(st.tuples(*[st.floats(-20, 40)] * 4), max_size=4).map(
        lambda rows: [(min(a, c), min(b, d), max(a, c), max(b, d)) for a, b, c, d in rows]
    )
)
def test_boxes_anywhere_are_drawn_without_an_error(rows):
    boxes = np.array(rows, dtype=np.float64).reshape(-1, 4)
    before = np.zeros((20, 30, 3), np.uint8)
    assert outlined(before, boxes, [RED] * len(rows)).shape == before.shape
    assert not before.any()


def test_a_case_shows_true_and_found_boxes_and_counts_them():
    case = BoxCase(
        name="a <b>", image=Seen(values=np.zeros((1, 40, 60)), low=np.zeros(1), high=np.ones(1)),
        true=shown((1, 1, 9, 9), (20, 20, 30, 30), right=False), found=shown((1, 1, 9, 9)),
    )  # fmt: skip
    page = str(box_panels([case]))
    assert "a &lt;b&gt;: 0 of 2 objects found, 2 missed, 0 wrong" in page
    assert page.count("data:image/webp") == 2
    assert box_panels([]) == ""
    assert "found and true" in box_legend()
