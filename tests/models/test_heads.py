"""Projection heads: names, initial weights, normalisation, and the reference."""

import pytest
import torch
from golden_support import fill
from pydantic import ValidationError
from safetensors.torch import load_file

from geodino.models.heads import HeadConfig, ProjectionHead

SMALL = {"prototypes": 96, "hidden": 48, "bottleneck": 24}


def head_of(layers=3, seed=0):
    head = ProjectionHead(64, HeadConfig(layers=layers, **SMALL))
    head.init_weights(torch.Generator().manual_seed(seed))
    return head


@pytest.mark.parametrize(
    ("layers", "names"), [(1, ["mlp"]), (2, ["mlp.0", "mlp.2"]), (3, ["mlp.0", "mlp.2", "mlp.4"])]
)
def test_parameters_have_the_names_of_the_reference(layers, names):
    expected = [f"{name}.{part}" for name in names for part in ("weight", "bias")]
    assert list(head_of(layers).state_dict()) == [*expected, "last_layer.weight"]


def test_initial_weights_come_from_the_generator_alone():
    before = torch.get_rng_state()
    first, again, other = head_of(seed=1), head_of(seed=1), head_of(seed=2)
    assert torch.equal(before, torch.get_rng_state())
    for name, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
    assert not torch.equal(first.last_layer.weight, other.last_layer.weight)
    assert float(first.last_layer.weight.detach().std()) == pytest.approx(0.02, rel=0.05)
    assert not first.mlp[0].bias.any()


def test_bottleneck_features_have_length_one_in_float32():
    head = head_of()
    x = torch.randn(5, 64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(head.bottleneck(x).norm(dim=1), torch.ones(5))
    with torch.autocast("cpu", torch.bfloat16):
        short = head.bottleneck(x)
        logits = head(x)
    assert short.dtype == torch.float32
    assert logits.dtype == torch.bfloat16
    torch.testing.assert_close(short.norm(dim=1), torch.ones(5))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_head_in_half_precision_stays_finite_on_a_zero_bottleneck(dtype):
    head = head_of().to(dtype)
    logits = head(torch.zeros(2, 64, dtype=dtype))
    assert logits.dtype == dtype
    assert torch.equal(logits, torch.zeros(2, 96, dtype=dtype))


def test_a_head_without_layers_or_prototypes_is_refused():
    with pytest.raises(ValidationError):
        HeadConfig(layers=0)
    with pytest.raises(ValidationError):
        HeadConfig(prototypes=0)


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_outputs_and_gradients_agree_with_the_reference(shared_golden, layers):
    golden = load_file(shared_golden / "dino_head.safetensors")
    prefix = f"n{layers}."
    state = {
        name.removeprefix(f"{prefix}state."): value
        for name, value in golden.items()
        if name.startswith(f"{prefix}state.")
    }
    head = head_of(layers)
    head.load_state_dict(state)
    x = golden["in.x"].clone().requires_grad_()
    close = {"rtol": 0, "atol": 1e-5}
    out = head(x)
    (out * fill("grad:head", out.shape)).sum().backward()
    torch.testing.assert_close(x.grad, golden[f"{prefix}grad_x"], **close)
    for name, parameter in head.named_parameters():
        torch.testing.assert_close(parameter.grad, golden[f"{prefix}grad.{name}"], **close)
    torch.testing.assert_close(out, golden[f"{prefix}out"], **close)
    bottleneck = head.bottleneck(x)
    torch.testing.assert_close(bottleneck, golden[f"{prefix}bottleneck_normalised"], **close)
    scores = head.last_layer(bottleneck)
    torch.testing.assert_close(scores, golden[f"{prefix}only_last"], **close)
    zero = head(torch.zeros(2, 64))
    torch.testing.assert_close(zero, golden[f"{prefix}out_zero_input"], **close)
    exact = head.double()(golden["in.x"].double())
    torch.testing.assert_close(exact, golden[f"{prefix}out.f64"], rtol=0, atol=1e-10)


def test_unit_weights_give_scores_that_tell_samples_apart_from_the_start():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(64, 32, generator=generator)
    spread = {}
    for init in ("paper", "unit"):
        head = ProjectionHead(32, HeadConfig(prototypes=64, hidden=48, bottleneck=16, init=init))
        head.init_weights(torch.Generator().manual_seed(1))
        spread[init] = float(head(features).detach().std())
    # Unit bottleneck features times weights of deviation s have scores of deviation s.
    assert spread["paper"] == pytest.approx(0.02, rel=0.3)
    assert spread["unit"] == pytest.approx(16**-0.5, rel=0.3)
