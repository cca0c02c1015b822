import torch

from geodino.models.detection.faster_rcnn import DetectionModel
from geodino.tasks.detection.batch import BoxBatch
from geodino.tasks.detection.objective import BoxObjective


class Draws(DetectionModel):
    """Stands in for a model: its loss is the first number of the generator it is given."""

    def __init__(self):
        torch.nn.Module.__init__(self)

    def losses(self, image, valid, objects, *, ground, generator):
        assert image.dtype == torch.float32
        return {"total": torch.rand((), generator=generator)}


def test_which_boxes_are_learnt_from_depends_on_the_seed_and_the_step_alone():
    def drawn(seed, step):
        batch = BoxBatch(
            step=step,
            pixels=torch.zeros(1, 3, 8, 8, dtype=torch.uint8),
            valid=torch.ones(1, 8, 8, dtype=torch.bool),
            ground=torch.ones(1, 8, 8, dtype=torch.bool),
            objects=(),
        )
        return BoxObjective(seed)(Draws(), batch)["total"].item()

    assert drawn(0, 3) == drawn(0, 3)
    assert len({drawn(0, 3), drawn(0, 4), drawn(1, 3)}) == 3
