"""How many chips are computed together: one rule for maps and for their scores."""

import pytest
import torch
from maps_support import Identity

from geodino.infer.cover import chip_group
from geodino.tasks.chips import Chips


@pytest.mark.parametrize(
    ("device", "chip", "group"),
    [
        ("cpu", 256, 4),  # 512 x 512 pixels hold 4 of 256 x 256
        ("cpu", 448, 1),  # 1.3 of them
        ("cpu", 1024, 1),  # a quarter: one all the same
        ("cpu", 16, 64),  # 1024 of them: the most is taken
        ("cuda", 512, 16),  # 2048 x 2048 pixels hold 16
    ],
)
def test_a_batch_holds_what_keeps_the_device_busy(device, chip, group):
    assert chip_group(None, chip=chip, device=torch.device(device)) == group
    assert chip_group(3, chip=chip, device=torch.device(device)) == 3


def test_scores_are_computed_in_the_groups_of_the_map():
    # 8 chips of 256 px with 64 px in common lie across 1600 px; a batch holds 4 of them.
    cover = Chips(chip=256, overlap=64).cover(256, 1600, predictor=Identity(align=16))
    assert (cover.columns.count, cover.group) == (8, 4)
