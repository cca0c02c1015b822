import sys

import pytest
import torch

from geodino.errors import RecipeError, RunError
from geodino.models.backbone import Tokens
from geodino.models.decoders.dense import OwnLoss
from geodino.models.decoders.mask2former import Mask2FormerConfig, Mask2FormerHead
from geodino.models.decoders.taps import Tap
from geodino.models.segmentation import SegmentationConfig, build_segmentation
from geodino.tasks.segmentation.batch import ClassBatch
from geodino.tasks.segmentation.config import ClassLossConfig
from geodino.tasks.segmentation.objective import ClassObjective

pytest.importorskip("transformers", reason="the extra hub is not installed")

SMALL = {"channels": 64, "queries": 8, "layers": 2, "encoder_layers": 1, "points": 256}
VIT = (16, 16, 16, 16)


def head_for(strides=VIT, *, dim=8, outputs=3, **config):
    taps = tuple(Tap(layer=i, dim=dim, stride=stride) for i, stride in enumerate(strides))
    head = Mask2FormerHead(taps, Mask2FormerConfig(**{**SMALL, **config}), outputs=outputs)
    for parameter in head.parameters():
        torch.nn.init.constant_(parameter, float("nan"))
    head.init_weights(torch.Generator().manual_seed(0), bias=torch.zeros(outputs))
    return head.eval()


def tokens(side, *, strides=VIT, dim=8, images=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        Tokens(
            cls=torch.zeros(images, dim),
            registers=torch.zeros(images, 0, dim),
            patches=torch.randn(images, (side // s) ** 2, dim, generator=generator),
            grid=(side // s, side // s),
        )
        for s in strides
    ]


def model_for(backbone, *, classes=3, **config):
    return build_segmentation(
        backbone, SegmentationConfig(head=Mask2FormerConfig(**{**SMALL, **config})),
        classes=classes, generator=torch.Generator().manual_seed(0),
    )  # fmt: skip


@pytest.mark.parametrize("strides", [VIT, (4, 8, 16, 32)])
def test_scores_are_a_distribution_at_every_pixel(strides):
    head, found = head_for(strides), tokens(64, strides=strides)
    logits = head(found)
    assert logits.shape == (2, 3, 64, 64)
    torch.testing.assert_close(logits.exp().sum(1), torch.ones(2, 64, 64))
    torch.testing.assert_close(logits.softmax(1), logits.exp())


def test_a_score_is_the_sum_over_queries_of_class_times_mask():
    head, found = head_for(), tokens(128)
    class_logits, masks = head.answers(found)[-1]
    assert class_logits.shape == (2, 8, 4)
    assert masks.shape == (2, 8, 32, 32)
    large = torch.nn.functional.interpolate(masks, scale_factor=4, mode="bilinear").sigmoid()
    shares = class_logits.softmax(-1)
    scores = torch.zeros(2, 3, 128, 128)
    for query in range(8):
        for of_class in range(3):
            scores[:, of_class] += shares[:, query, of_class, None, None] * large[:, query]
    torch.testing.assert_close(head(found).exp(), scores / scores.sum(1, keepdim=True))
    assert len(list(head.slabs(found))) > 1


def test_a_pixel_in_no_mask_is_of_every_class_alike():
    head = head_for()
    with torch.no_grad():
        head.pixel_decoder.mask_projection.weight.zero_()
        head.pixel_decoder.mask_projection.bias.fill_(-1e4)
        head.transformer.decoder.mask_predictor.mask_embedder.get_submodule("2.0").bias.fill_(1.0)
        head.transformer.decoder.mask_predictor.mask_embedder.get_submodule("2.0").weight.zero_()
    torch.testing.assert_close(head(tokens(64)).exp(), torch.full((2, 3, 64, 64), 1 / 3))


def test_every_weight_is_drawn_from_the_generator_alone_and_learns():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    head = head_for().train()
    assert torch.equal(torch.get_rng_state(), before)
    head.loss(tokens(64), torch.zeros(2, 64, 64).long(), torch.ones(2, 64, 64).bool())[
        "total"
    ].backward()
    for name, parameter in head.named_parameters():
        assert torch.isfinite(parameter).all(), name
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
    for one, other in zip(head.parameters(), head_for().parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("channels", [64, 512])
def test_untrained_masks_are_as_unsure_whatever_the_width(channels):
    for _, masks in head_for(channels=channels).answers(tokens(64)):
        assert 0.5 < masks.std() < 2


def test_every_head_of_the_deformable_attention_begins_in_its_own_direction():
    attention = head_for().pixel_decoder.encoder.layers[0].self_attn
    offsets = attention.sampling_offsets.bias.view(8, 3, 4, 2)
    first = {tuple(offset) for offset in offsets[:, 0, 0].tolist()}
    assert len(first) == 8
    assert (0.0, 0.0) not in first
    torch.testing.assert_close(offsets[:, 2, 3], 4 * offsets[:, 0, 0])


def test_the_loss_follows_torchs_random_state_and_all_layers_are_in_its_total():
    head, found = head_for(layers=2), tokens(64)
    target = torch.randint(0, 3, (2, 64, 64), generator=torch.Generator().manual_seed(4))
    valid = torch.ones(2, 64, 64).bool()

    def losses(seed):
        with torch.random.fork_rng([]), torch.no_grad():
            torch.manual_seed(seed)
            return head.loss(found, target, valid)

    one, again, other = losses(0), losses(0), losses(1)
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert one["mask"] != other["mask"]
    last = 2 * one["class"] + 5 * one["mask"] + 5 * one["dice"]
    # The queries alone, and two layers: untrained, each costs about the same.
    assert 2 * last < one["total"] < 4 * last


def test_what_does_not_count_changes_no_bit_of_the_gradient(backbone_for, contract_for, noise):
    model = model_for(backbone_for(contract=contract_for(3), name="vit_nano"))
    assert isinstance(model.head, OwnLoss)
    image = 100 + 40 * noise(2, 3, 50, 70)
    generator = torch.Generator().manual_seed(2)
    target = torch.randint(0, 3, (2, 50, 70), generator=generator)
    valid, known = torch.rand(2, 2, 50, 70, generator=generator) > 0.2
    found = []
    for fill in (255, 0):
        model.zero_grad()
        batch = ClassBatch(
            step=0, pixels=image.where(valid[:, None], torch.tensor(float(fill))), valid=valid,
            classes=target.where(known & valid, torch.tensor(fill)), known=known,
        )  # fmt: skip
        with torch.random.fork_rng([]):
            torch.manual_seed(0)
            losses = ClassObjective(ClassLossConfig())(model, batch)
        losses["total"].backward()
        found.append([p.grad for p in model.head.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    assert max(float(grad.abs().max()) for grad in found[0]) > 0


def test_two_classes_are_learnt_in_few_steps(backbone_for, contract_for, noise):
    model = model_for(backbone_for(contract=contract_for(3), name="vit_nano"), classes=2)
    # Bright blocks of 32 pixels on dark ground.
    side = torch.arange(64) // 32
    target = ((side[:, None] + side[None]) % 2).expand(2, -1, -1).clone()
    target[1] = 1 - target[1]
    image = 40.0 + 160.0 * target[:, None] + 5 * noise(2, 3, 64, 64)
    everywhere = torch.ones(2, 64, 64).bool()
    optimizer = torch.optim.AdamW(model.head.parameters(), lr=1e-3)
    model.train()
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        for _ in range(40):
            optimizer.zero_grad()
            model.own_losses(image, everywhere, target, everywhere)["total"].backward()
            optimizer.step()
    right = (model.eval()(image).argmax(1) == target).float().mean()
    assert right > 0.9


def test_a_model_that_made_a_map_can_go_on_learning(backbone_for, contract_for, noise):
    # The library keeps positions from one call to the next.
    model = model_for(backbone_for(contract=contract_for(3), name="vit_nano"))
    image, all_of_it = 100 + 40 * noise(2, 3, 64, 64), torch.ones(2, 64, 64).bool()
    with torch.inference_mode():
        model(image)
    model.own_losses(image, all_of_it, torch.zeros(2, 64, 64).long(), all_of_it)["total"].backward()


def test_heads_that_cannot_be_are_refused():
    with pytest.raises(RecipeError, match="8 queries for 9 classes"):
        head_for(outputs=9)
    with pytest.raises(RecipeError, match=r"A Mask2Former head makes maps .* cells of 14 pixels"):
        head_for((14, 14, 14, 14))


def test_without_transformers_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(
        RunError, match=r"needs the package transformers: `pip install 'geodino\[hub"
    ):
        head_for()
