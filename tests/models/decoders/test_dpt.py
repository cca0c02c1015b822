import pytest
import torch
from golden_support import fill

from geodino.models.backbone import Tokens
from geodino.models.decoders.dpt import DptConfig, DptHead
from geodino.models.decoders.taps import Tap

SMALL = {"channels": (8, 12, 16, 20), "fusion": 16, "hidden": 12}
VARIANTS = {
    "chmv2": {"readout": "project"},
    "synthmix": {
        "readout": "ignore",
        "batch_norm": True,
        "residual_bias": False,
        "fusion_conv": True,
    },
    "readout_add": {"readout": "add", "fusion_conv": True},
}


def head_of(outputs=10, dim=32, stride=16, **settings):
    taps = [Tap(layer=i, dim=dim, stride=stride) for i in range(4)]
    return DptHead(taps, DptConfig(**SMALL, **settings), outputs=outputs).eval()


def initial(outputs=10, seed=0, **settings):
    head = head_of(outputs, **{"readout": "project", **settings})
    head.init_weights(torch.Generator().manual_seed(seed), bias=torch.zeros(outputs))
    return head


@pytest.mark.parametrize("size", ["4x4", "3x5"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_map_is_the_references(variant, size, golden_dpt):
    head = head_of(enlarge="corners", **VARIANTS[variant])
    head.load_state_dict(golden_dpt.state(variant))
    tokens, numbers = golden_dpt.tokens(size), golden_dpt.numbers
    with torch.no_grad():
        maps = head.reassemble(tokens)
        fused, out = head.fused(maps), head(tokens)
    for i, found in enumerate(maps):
        torch.testing.assert_close(
            found, numbers[f"{variant}.{size}.reassembled.{i}"], atol=1e-5, rtol=0
        )
    torch.testing.assert_close(fused, numbers[f"{variant}.{size}.fused"], atol=1e-5, rtol=0)
    torch.testing.assert_close(out, numbers[f"{variant}.{size}.out"], atol=1e-5, rtol=0)


def test_double_precision_is_the_references(golden_dpt):
    head = head_of(enlarge="corners", readout="project")
    head.load_state_dict(golden_dpt.state("chmv2"))
    with torch.no_grad():
        out = head.double()(golden_dpt.tokens("4x4", dtype=torch.float64))
    torch.testing.assert_close(out, golden_dpt.numbers["chmv2.4x4.out.f64"], atol=1e-10, rtol=0)


def test_gradients_are_the_references(golden_dpt):
    head = head_of(enlarge="corners", readout="project")
    head.load_state_dict(golden_dpt.state("chmv2"))
    leaves = {}
    out = head(golden_dpt.tokens("4x4", leaves=leaves))
    (out * fill("grad:dpt", out.shape)).sum().backward()
    for name, leaf in leaves.items():
        expected = golden_dpt.numbers[f"chmv2.4x4.grad.{name}"]
        scale = float(expected.abs().max())
        torch.testing.assert_close(leaf.grad, expected, atol=1e-5 * scale, rtol=0)


@pytest.mark.parametrize(
    ("stride", "size", "expected"),
    [(16, (4, 6), (64, 96)), (8, (8, 4), (64, 32)), (32, (1, 2), (32, 64))],
)
def test_the_result_has_the_pixels_of_the_image(stride, size, expected, noise):
    head = initial(stride=stride)
    patches = noise(1, size[0] * size[1], 32)
    tokens = Tokens(cls=noise(1, 32), registers=patches[:, :0], patches=patches, grid=size)
    assert head([tokens] * 4).shape == (1, 10, *expected)
    assert head.multiple == 32


def test_initial_weights_come_from_the_generator_alone():
    before = torch.get_rng_state()
    first, again, other = (initial(seed=s).state_dict() for s in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(v, again[k]) for k, v in first.items())
    assert not torch.equal(first["out.weight"], other["out.weight"])


def moved(x, cells):
    return x.roll(cells, dims=-1)


@pytest.mark.parametrize("enlarge", ["edges", "corners"])
def test_what_moves_by_two_patches_moves_by_32_pixels(enlarge, noise):
    # Far from the borders, to which the map wraps around. With `corners` the result of one and the
    # same patch depends on where in the image it lies.
    head = initial(enlarge=enlarge, readout="ignore")
    image = noise(1, 32, 4, 40)

    def run(x):
        patches = x.flatten(2).transpose(1, 2)
        tokens = Tokens(cls=x.mean((2, 3)), registers=patches[:, :0], patches=patches, grid=(4, 40))
        with torch.no_grad():
            return head([tokens] * 4)[..., 224:-224]

    still, shifted = run(image), run(moved(image, 2))
    scale = float(still.std())
    assert float((shifted - still).abs().max()) > 0.1 * scale  # it did move
    left = float((shifted[..., 32:] - still[..., :-32]).abs().max())
    assert left < 1e-4 * scale if enlarge == "edges" else left > 0.01 * scale
