import copy
import subprocess
import sys
from functools import partial

import pytest
import torch
from timm.models import model_entrypoint

from geodino.models.packed import PackedBlock
from geodino.models.rope import patch_centres, rope_periods, rope_tables

VARIANTS = {
    "vit_small_patch16_dinov3": {},
    "vit_small_patch16_dinov3_qkvb": {},
    "vit_small_plus_patch16_dinov3": {},
    "vit_small_plus_patch16_dinov3_qkvb": {},
    "vit_7b_patch16_dinov3": {},
    "without layer scale": {"init_values": None},
}
DIM, HEADS, PREFIX = 64, 4, 5


def blocks(variant):
    """A timm block and the same block packed, with weights that all matter."""
    name = variant if variant in VARIANTS and "patch16" in variant else "vit_small_patch16_dinov3"
    trunk = model_entrypoint(name)(
        embed_dim=DIM, depth=1, num_heads=HEADS, num_classes=0, **VARIANTS[variant]
    )
    theirs = trunk.blocks[0].eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(torch.empty(parameter.shape).normal_(0, 0.2, generator=generator))
    return theirs, PackedBlock.adopt(copy.deepcopy(theirs)), trunk


def crops(noise, images=(3, 5), grids=((4, 4), (2, 3))):
    sets = [noise(n, PREFIX + h * w, DIM, seed=n) for n, (h, w) in zip(images, grids, strict=True)]
    periods = rope_periods(DIM // HEADS)
    tables = [rope_tables(patch_centres(g), periods, prefix=PREFIX)[0] for g in grids]
    return sets, tables, tuple((s.shape[0], s.shape[1]) for s in sets)


def packed(sets):
    return torch.cat([s.flatten(0, 1) for s in sets])


def unpacked(x, shapes):
    parts = x.split([b * n for b, n in shapes])
    return [p.view(b, n, -1) for p, (b, n) in zip(parts, shapes, strict=True)]


@pytest.mark.parametrize("variant", VARIANTS)
def test_packing_crop_sets_changes_nothing_about_timms_block(variant, noise):
    theirs, ours, trunk = blocks(variant)
    sets, tables, shapes = crops(noise)
    with torch.no_grad():
        got = unpacked(ours(packed(sets), tables, shapes=shapes), shapes)
        for s, out, grid in zip(sets, got, ((4, 4), (2, 3)), strict=True):
            expected = theirs(s, rope=trunk.rope.get_embed(shape=grid))
            torch.testing.assert_close(out, expected, atol=2e-6, rtol=0)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_packed_block_still_is_timms_block(variant, noise):
    theirs, ours, trunk = blocks(variant)
    x, rope = noise(2, PREFIX + 16, DIM), trunk.rope.get_embed(shape=(4, 4))
    with torch.no_grad():
        assert torch.equal(ours(x, rope=rope), theirs(x, rope=rope))
    assert list(ours.state_dict()) == list(theirs.state_dict())


def test_adopting_a_block_copies_no_parameter():
    _, _, trunk = blocks("vit_small_patch16_dinov3")
    block = trunk.blocks[0]
    before = {k: v.data_ptr() for k, v in block.named_parameters()}
    assert PackedBlock.adopt(block) is block
    assert {k: v.data_ptr() for k, v in block.named_parameters()} == before


def slow_block(block, sets, tables, rows):
    """Drop path by its definition, one image at a time: kept images add n/k of their update."""
    out = []
    for number, (images, table) in enumerate(zip(sets, tables, strict=True)):
        shape = ((1, images.shape[1]),)
        done = []
        for i, x in enumerate(images):
            tokens = x
            for half, update in (
                (0, partial(block._attention, rope=[table], shapes=shape)),
                (1, block._feed_forward),
            ):
                kept = rows[number][half].tolist()
                if i in kept:
                    tokens = tokens + len(images) / len(kept) * update(tokens)
            done.append(tokens)
        out.append(torch.stack(done))
    return out


def test_drop_path_runs_the_given_rows_only(noise):
    _, ours, _ = blocks("vit_small_plus_patch16_dinov3_qkvb")
    sets, tables, shapes = crops(noise)
    rows = [torch.tensor([[0, 2], [1, 2]]), torch.tensor([[0, 3, 4], [1, 2, 4]])]
    with torch.no_grad():
        got = unpacked(ours(packed(sets), tables, shapes=shapes, rows=rows), shapes)
        expected = slow_block(ours, sets, tables, rows)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, atol=5e-6, rtol=2e-6)  # outputs are about 10


def test_keeping_every_row_is_no_drop_path(noise):
    _, ours, _ = blocks("vit_small_patch16_dinov3")
    sets, tables, shapes = crops(noise)
    rows = [torch.arange(n).expand(2, n) for n, _ in shapes]
    with torch.no_grad():
        dropped = ours(packed(sets), tables, shapes=shapes, rows=rows)
        torch.testing.assert_close(
            dropped, ours(packed(sets), tables, shapes=shapes), atol=1e-6, rtol=0
        )


def test_gradients_through_dropped_rows_are_those_of_the_definition(noise):
    _, ours, _ = blocks("vit_small_patch16_dinov3_qkvb")
    sets, tables, shapes = crops(noise)
    rows = [torch.tensor([[0, 2], [1, 2]]), torch.tensor([[0, 3, 4], [1, 2, 4]])]
    weights = [noise(*s.shape, seed=9) for s in sets]

    def gradients(outputs):
        ours.zero_grad()
        sum((o * w).sum() for o, w in zip(outputs, weights, strict=True)).backward()
        return {k: v.grad.clone() for k, v in ours.named_parameters()}

    fast = gradients(unpacked(ours(packed(sets), tables, shapes=shapes, rows=rows), shapes))
    slow = gradients(slow_block(ours, sets, tables, rows))
    for name in slow:
        torch.testing.assert_close(fast[name], slow[name], atol=2e-4, rtol=1e-5)


def test_hooks_see_the_packed_call(noise):
    _, ours, _ = blocks("vit_small_patch16_dinov3")
    sets, tables, shapes = crops(noise)
    seen = []
    ours.register_forward_hook(lambda module, inputs, output: seen.append(output.shape))
    ours(packed(sets), tables, shapes=shapes)
    assert seen == [(sum(b * n for b, n in shapes), DIM)]


ONE_GRAPH = """
import torch
from geodino.models.build import assemble, materialise
from geodino.models.init import initialise
from geodino.models.draws import draw_encode
from geodino.models.sizes import ModelConfig

config = ModelConfig(name="vit_small_plus_patch16_dinov3_qkvb", dim=64, depth=1, heads=4,
                     drop_path=0.4)
backbone = assemble(config, mean=[0.0] * 3, std=[1.0] * 3)
materialise(backbone)
initialise(backbone, generator=torch.Generator().manual_seed(0))
draws = draw_encode(config, depth=1, seed=0, step=0, first_group=0, groups=1, group=2,
                    crops_per_set=(2, 3))
crops = [torch.randn(4, 3, 32, 32), torch.randn(6, 3, 16, 16)]
plain = backbone(crops, draws=draws)
for block in backbone.trunk.blocks:
    block.compile(fullgraph=True, backend="eager")
for ours, compiled in zip(plain, backbone(crops, draws=draws)):
    torch.testing.assert_close(ours.cls, compiled.cls)
"""


@pytest.mark.slow
def test_blocks_compile_into_one_graph_each_with_drop_path():
    # In a process of its own: the type checks of the tests are not traceable.
    subprocess.run([sys.executable, "-c", ONE_GRAPH], check=True)


def test_a_packed_block_computes_in_the_dtype_of_its_weights(noise):
    _, ours, _ = blocks("vit_small_patch16_dinov3_qkvb")
    sets, tables, shapes = crops(noise)
    out = ours.bfloat16()(packed(sets).bfloat16(), tables, shapes=shapes)
    assert out.dtype == torch.bfloat16
