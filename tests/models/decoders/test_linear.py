import torch
from safetensors.torch import load_file

from geodino.models.backbone import Tokens
from geodino.models.decoders.linear import LinearHead, LinearHeadConfig
from geodino.models.decoders.taps import Tap


def tokens_of(x):
    patches = x.flatten(2).transpose(1, 2)
    return Tokens(
        cls=x.mean((2, 3)), registers=patches[:, :0], patches=patches, grid=(x.shape[2], x.shape[3])
    )


def head_of(strides=(16, 16, 16, 16), dims=(6, 6, 6, 6), outputs=5, **settings):
    taps = [
        Tap(layer=i, dim=d, stride=s) for i, (d, s) in enumerate(zip(dims, strides, strict=True))
    ]
    head = LinearHead(taps, LinearHeadConfig(**settings), outputs=outputs)
    head.init_weights(torch.Generator().manual_seed(0), bias=torch.arange(float(outputs)))
    return head


def test_one_map_over_joined_taps_is_the_sum_of_a_map_for_each(noise):
    head = head_of()
    maps = [noise(2, 6, 3, 4, seed=i) for i in range(4)]
    joined = torch.cat([layer.weight for layer in head.out], dim=1)
    expected = torch.nn.functional.conv2d(torch.cat(maps, 1), joined, torch.arange(5.0))
    torch.testing.assert_close(head.cells([tokens_of(m) for m in maps]), expected)


def test_each_cell_keeps_its_place_when_enlarged(noise):
    # Where nothing changes from cell to cell the pixels are the cell; along a ramp, pixel j of
    # cells of 16 is at (j + 0.5) / 16 - 0.5 cells, away from the border.
    head = head_of(use="last", dims=(1, 1, 1, 1), outputs=1)
    with torch.no_grad():
        head.out[0].weight.fill_(1.0)
    ramp = torch.arange(6.0).expand(1, 1, 2, 6)
    out = head([tokens_of(ramp)] * 4)
    assert out.shape == (1, 1, 32, 96)
    expected = (torch.arange(96.0) + 0.5) / 16 - 0.5
    torch.testing.assert_close(out[0, 0, 5, 8:-8], expected[8:-8])


def test_taps_of_a_pyramid_are_added_on_the_finest_grid(noise):
    head = head_of(strides=(4, 8, 16, 32), dims=(2, 3, 4, 5))
    maps = [
        noise(1, d, 64 // s, 96 // s) for d, s in zip((2, 3, 4, 5), (4, 8, 16, 32), strict=True)
    ]
    assert head([tokens_of(m) for m in maps]).shape == (1, 5, 64, 96)
    assert head.multiple == 32
    # Maps without structure show that each tap counts once.
    flat = [torch.ones_like(m) for m in maps]
    expected = sum(layer.weight.sum((1, 2, 3)) for layer in head.out) + torch.arange(5.0)
    out = head([tokens_of(m) for m in flat])
    torch.testing.assert_close(out, expected[None, :, None, None].expand_as(out))


def test_the_references_linear_head_is_ours_once_its_norm_is_folded_in(shared_golden, golden_dpt):
    # It joins patches and CLS of two taps, normalises with fixed statistics and maps linearly.
    golden = load_file(shared_golden / "depth_losses_metrics.safetensors")
    state = {k.removeprefix("linear.state."): v for k, v in golden.items() if ".state." in k}
    norm = {k.rpartition(".")[2]: v for k, v in state.items() if k.startswith("batchnorm")}
    factor = norm["weight"] * (norm["running_var"] + 1e-5).rsqrt()
    shift = norm["bias"] - norm["running_mean"] * factor
    weight = state["conv_depth.weight"]
    joined = [
        torch.cat((t.map, t.cls[:, :, None, None].expand_as(t.map)), dim=1)
        for t in golden_dpt.tokens("3x5")[:2]
    ]
    head = head_of(dims=(64, 64, 64, 64), outputs=10)
    with torch.no_grad():
        for layer in head.out:
            layer.weight.zero_()
        for layer, part in zip(
            head.out[:2], (weight * factor[:, None, None]).chunk(2, 1), strict=True
        ):
            layer.weight.copy_(part)
        head.out[-1].bias.copy_(state["conv_depth.bias"] + weight[:, :, 0, 0] @ shift)
        cells = head.cells([tokens_of(x) for x in (*joined, *joined)])
    torch.testing.assert_close(cells, golden["linear.out"], atol=1e-5, rtol=0)
