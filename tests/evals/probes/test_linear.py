import numpy as np
import torch
from safetensors.numpy import load_file

from geodino import seeds
from geodino.evals.probes.linear import (
    DINOV3_APPROX,
    SgdProtocol,
    linear_inputs,
    linear_sgd,
    train_heads,
)

SHORT = SgdProtocol(name="short", iterations=60, batch=8, rates=(1e-3, 0.1, 1.0))


def tokens(n, *, blocks=4, d=6, classes=3, seed=0, signal=0):
    """Class tokens of which one block knows the class."""
    r = seeds.rng(seed, "tokens")
    y = np.arange(n) % classes
    cls = r.normal(size=(n, blocks, d)).astype(np.float32)
    cls[:, signal] += 3.0 * np.eye(classes, d, dtype=np.float32)[y]
    return cls, r.normal(size=(n, d)).astype(np.float32), y


def one_by_one(x, y, view, rate, start, batches, *, protocol, classes):
    """The plain loop: one head, torch's own SGD and schedule."""
    head = torch.nn.Linear(start.shape[0], classes)
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(start).T)
        head.bias.zero_()
    optimiser = torch.optim.SGD(head.parameters(), lr=rate, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, protocol.iterations)
    for rows in batches:
        optimiser.zero_grad()
        loss = torch.nn.functional.cross_entropy(
            head(torch.from_numpy(x[rows, view])), torch.from_numpy(y[rows])
        )
        loss.backward()
        optimiser.step()
        schedule.step()
    return head.weight.detach().numpy().T, head.bias.detach().numpy()


def test_all_heads_at_once_are_the_heads_one_by_one():
    cls, mean, y = tokens(40)
    x, views = linear_inputs(cls, mean)
    heads = train_heads(
        x,
        y[:, None] == np.arange(3),
        views,
        protocol=SHORT,
        link="softmax",
        generator=seeds.rng(0, "heads"),
    )
    replay = seeds.rng(0, "heads")
    starts = {
        name: replay.normal(0, 0.01, size=(len(range(30)[view]), 1, 3)).astype(np.float32)[:, 0]
        for name, view in views.items()
    }
    order = np.concatenate([replay.permutation(40) for _ in range(12)])
    batches = order[: 60 * 8].reshape(60, 8)
    for name, view in views.items():
        for place, rate in enumerate(SHORT.rates):
            weight, bias = one_by_one(
                x, y, view, rate, starts[name], batches, protocol=SHORT, classes=3
            )
            np.testing.assert_allclose(heads.weights[name][:, place], weight, atol=2e-5, rtol=1e-4)
            np.testing.assert_allclose(heads.biases[name][place], bias, atol=2e-5, rtol=1e-4)


def test_the_inputs_are_the_references(shared_golden):
    golden = load_file(shared_golden / "knn_linear.safetensors")
    cls = np.stack([golden[f"in.tokens.{b}.cls"] for b in range(4)], axis=1)
    x, views = linear_inputs(cls, golden["in.tokens.3.patch"].mean(axis=1))
    for name, key in (
        ("last", "n1.avg0"),
        ("last+mean", "n1.avg1"),
        ("last4", "n4.avg0"),
        ("last4+mean", "n4.avg1"),
    ):
        np.testing.assert_allclose(x[:, views[name]], golden[f"linear_input.{key}"], atol=1e-6)


def test_the_input_that_knows_is_chosen_on_validation_rows():
    cls, mean, y = tokens(120, signal=1)
    x, views = linear_inputs(cls, mean)
    got = linear_sgd(
        x[:60],
        y[:60],
        x[90:],
        classes=3,
        generator=seeds.rng(0, "heads"),
        views=views,
        val=(x[60:90], y[60:90]),
        protocol=SHORT,
    )
    assert list(views)[int(got.chosen["input"])].startswith("last4")
    assert (got.labels == y[90:]).mean() > 0.9
    np.testing.assert_allclose(got.probabilities.sum(axis=1), 1.0)


def test_test_rows_choose_nothing_and_the_same_generator_says_the_same():
    cls, mean, y = tokens(60)
    x, views = linear_inputs(cls, mean)

    def asked(rows):
        return linear_sgd(
            x[:40],
            y[:40],
            x[rows],
            classes=3,
            generator=seeds.rng(3, "heads"),
            views=views,
            protocol=SHORT,
        )

    together, alone = asked(slice(40, 60)), asked(slice(40, 41))
    assert together.chosen == alone.chosen
    np.testing.assert_allclose(together.probabilities[:1], alone.probabilities, atol=1e-6)


def test_any_number_of_classes_a_row_is_learnt_too():
    r = seeds.rng(0, "many")
    x = r.normal(size=(150, 6)).astype(np.float32)
    y = x[:, :4] > 0.3
    got = linear_sgd(
        x[:100], y[:100], x[100:], classes=4, generator=seeds.rng(0, "heads"), protocol=SHORT
    )
    assert (got.labels == y[100:]).mean() > 0.85


def test_the_protocol_is_what_the_paper_tells():
    assert (DINOV3_APPROX.iterations, DINOV3_APPROX.batch) == (2400, 32)
    np.testing.assert_allclose([DINOV3_APPROX.rates[0], DINOV3_APPROX.rates[-1]], [1e-5, 1.0])
