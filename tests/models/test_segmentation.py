import json

import pytest
import torch

from geodino.errors import CheckpointError
from geodino.models.decoders.dpt import DptConfig
from geodino.models.decoders.linear import LinearHeadConfig
from geodino.models.decoders.mask2former import Mask2FormerConfig
from geodino.models.decoders.upernet import UperNetConfig
from geodino.models.folder import load_model
from geodino.models.segmentation import SegmentationConfig, build_segmentation
from geodino.models.segmentation_folder import ClassOfMap, load_segmentation, save_segmentation

HEADS = {
    "linear": LinearHeadConfig(),
    "dpt": DptConfig(channels=(8, 12, 16, 20), fusion=16, hidden=12),
    "upernet": UperNetConfig(channels=16),
    "mask2former": Mask2FormerConfig(channels=64, queries=8, layers=2, encoder_layers=1),
}
CLASSES = (ClassOfMap("a", (1, 2, 3)), ClassOfMap("b", (4, 5, 6)), ClassOfMap("c", (7, 8, 9)))


def model_for(backbone, head):
    config = SegmentationConfig(head=HEADS[head])
    generator = torch.Generator().manual_seed(0)
    return build_segmentation(backbone, config, classes=3, generator=generator).eval()


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("name", ["vit_nano", "convnext_atto"])
def test_probabilities_are_the_softmax_of_the_logits_at_the_images_pixels(
    head, name, backbone_for, contract_for, noise
):
    model = model_for(backbone_for(contract=contract_for(3), name=name), head)
    image = 100 + 40 * noise(2, 3, 50, 70)
    logits, found = model(image), model.probabilities(image)
    assert logits.shape == found.shape == (2, 3, 50, 70)
    torch.testing.assert_close(found, logits.softmax(dim=1))


@pytest.mark.parametrize("head", HEADS)
def test_a_segmentation_model_comes_back_bit_for_bit(
    head, tmp_path, backbone_for, contract_for, noise
):
    contract = contract_for(3)
    model = model_for(backbone_for(contract=contract, name="vit_nano"), head)
    save_segmentation(
        tmp_path, model, classes=CLASSES, contract=contract, card={"name": "x"},
        extra={"chip": 64},
    )  # fmt: skip
    loaded = load_segmentation(tmp_path)
    image = 100 + 40 * noise(1, 3, 48, 32)
    assert torch.equal(loaded.model(image), model(image))
    assert loaded.classes == CLASSES
    assert loaded.extra == {"chip": 64}
    assert loaded.model.is_frozen
    assert torch.equal(
        load_model(tmp_path).backbone.tokens(image).cls, model.backbone.tokens(image).cls
    )


def test_a_folder_whose_files_do_not_belong_together_is_refused(
    tmp_path, backbone_for, contract_for
):
    contract = contract_for(3)
    model = model_for(backbone_for(contract=contract, name="vit_nano"), "linear")
    save_segmentation(tmp_path, model, classes=CLASSES, contract=contract, card={"name": "x"})
    path = tmp_path / "segmentation.json"
    described = json.loads(path.read_text())
    path.write_text(json.dumps({**described, "classes": described["classes"][:2]}))
    with pytest.raises(CheckpointError, match=r"segmentation\.safetensors does not fit"):
        load_segmentation(tmp_path)
    path.write_text(json.dumps({**described, "backbone_sha256": "0"}))
    with pytest.raises(CheckpointError, match="trained on other weights"):
        load_segmentation(tmp_path)
    path.write_text(json.dumps({"version": "9"}))
    with pytest.raises(CheckpointError, match="segmentation model this version"):
        load_segmentation(tmp_path)
    path.write_text("no")
    with pytest.raises(CheckpointError, match="not JSON"):
        load_segmentation(tmp_path)
