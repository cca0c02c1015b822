"""A small detection model with weights that matter, and one that finds what is painted."""

from pathlib import Path

import torch
from heights_support import RGB

from geodino.models.build import build_backbone
from geodino.models.detection.faster_rcnn import Found, build_detection
from geodino.models.detection.head import DetectionConfig
from geodino.models.detection_folder import save_detection
from geodino.models.sizes import ModelConfig

CLASSES = ("house", "hall")


def save_small_detection(folder: Path, *, spoilt=False, **extra) -> Path:
    generator = torch.Generator().manual_seed(0)
    config = ModelConfig(name="vit_nano", patch_size=8, dim=32, depth=2, heads=2, layer_scale=1.0)
    backbone = build_backbone(config, RGB, generator=generator).eval()
    head = DetectionConfig(
        channels=8, hidden=16, anchor_scale=2.0, proposals=30, most_boxes=20, least_score=0.1
    )
    model = build_detection(backbone, head, classes=len(CLASSES), generator=generator)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.empty_like(parameter).normal_(0, 0.1, generator=generator))
        if spoilt:
            model.head.where.bias[0] = torch.nan
    save_detection(
        folder, model.eval(), classes=CLASSES, contract=RGB, card={"name": "small"},
        extra={"chip": 64, "overlap": 16, **extra},
    )  # fmt: skip
    return folder


class Painted:
    """Finds each area of one value from 251 on in the first band, surer the more it sees of it."""

    align, device = 8, torch.device("cpu")

    def __init__(self, least_score=0.0):
        self.least_score = least_score
        self.calls = 0

    def __call__(self, pixels, valid):
        self.calls += 1
        return [self._of(*chip) for chip in zip(pixels, valid, strict=True)]

    def _of(self, image, valid):
        boxes, classes, scores = [], [], []
        for value in range(251, 256):
            y, x = torch.where((image[0] == value) & valid)
            if len(y) and len(y) / 400 >= self.least_score:
                boxes.append([x.min(), y.min(), x.max() + 1, y.max() + 1])
                classes.append(value % 2)
                scores.append(len(y) / 400)
        return Found(
            boxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
            classes=torch.tensor(classes, dtype=torch.int64),
            scores=torch.tensor(scores, dtype=torch.float32),
        )
