import json

import pytest
import torch

from geodino.errors import CheckpointError
from geodino.models.detection.faster_rcnn import build_detection
from geodino.models.detection.head import DetectionConfig
from geodino.models.detection_folder import load_detection, save_detection

CARD = {"name": "boxes"}


@pytest.fixture
def saved(tmp_path, backbone_for, contract_for):
    model = build_detection(
        backbone_for(name="vit_nano"), DetectionConfig(channels=16, hidden=32, least_score=0.0),
        classes=2, generator=torch.Generator().manual_seed(0),
    ).eval()  # fmt: skip
    save_detection(
        tmp_path / "model", model, classes=("house", "hall"), contract=contract_for(),
        card=CARD, extra={"chip": 512},
    )  # fmt: skip
    return model, tmp_path / "model"


def test_a_model_comes_back_as_it_was_written(saved, noise):
    model, folder = saved
    loaded = load_detection(folder)
    assert loaded.classes == ("house", "hall")
    assert loaded.extra == {"chip": 512}
    image = 100 + 30 * noise(1, 3, 64, 64)
    with torch.no_grad():
        (one,), (other,) = model(image), loaded.model(image)
    assert torch.equal(one.boxes, other.boxes)
    assert torch.equal(one.scores, other.scores)


def test_a_description_of_another_head_is_refused(saved):
    _, folder = saved
    path = folder / "detection.json"
    described = json.loads(path.read_text())
    path.write_text(json.dumps({**described, "strides": [1, 2, 4, 8, 16]}))
    with pytest.raises(CheckpointError, match="strides"):
        load_detection(folder)


def test_names_of_classes_must_be_as_many_as_the_head_tells(saved, tmp_path, contract_for):
    model, _ = saved
    with pytest.raises(ValueError, match="1 classes for a head of 2"):
        save_detection(
            tmp_path / "other", model, classes=("house",), contract=contract_for(), card=CARD
        )
