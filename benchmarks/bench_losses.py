"""Heads and losses of one step: ours, the plain eager form, and the matrix products alone.

One step is what both heads cost: teacher MLPs and prototypes, Sinkhorn, student MLPs and
prototypes, the DINO and iBOT cross-entropies, KoLeo, and the whole backward pass, on 16 images
with 2 global and 8 local crops and 600 masked tokens. `eager` is the usual listing: float32
logits, exp, a transposed K x B matrix with four divisions an iteration, dense targets,
log_softmax, autograd. `limit` is the same matrix products and nothing else. Peak memory is that
of a process of its own for each form: the highest resident set of a step, less that before it.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent))
from _harness import interleave, main, ratio, table

from geodino.losses.dino import dino_cross_entropy, dino_loss, dino_rows
from geodino.losses.ibot import ibot_cross_entropy, ibot_loss, ibot_weights
from geodino.losses.koleo import koleo
from geodino.losses.sinkhorn import sinkhorn
from geodino.models.heads import HeadConfig, ProjectionHead

TEACHER_TEMP, STUDENT_TEMP = 0.07, 0.1


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """Sizes of one step."""

    prototypes: int
    dim: int = 384
    hidden: int = 2048
    bottleneck: int = 256
    samples: int = 16
    local_crops: int = 8
    masked: tuple[int, ...] = (0, 25, 50, 0, 0, 75) * 4 + (0,) * 8
    """Masked tokens of each of the 2 * samples global crops."""
    dtype: str = "float32"


SMALL = Shape(
    prototypes=64, dim=16, hidden=32, bottleneck=8, samples=2, local_crops=2, masked=(3, 0, 5, 0)
)


class Step:
    """The inputs of one step, and the step in each form."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        generator = torch.Generator().manual_seed(0)
        config = HeadConfig(
            prototypes=shape.prototypes, hidden=shape.hidden, bottleneck=shape.bottleneck
        )
        self.student, self.teacher = (
            {name: self._head(config, generator) for name in ("dino", "ibot")} for _ in range(2)
        )
        self.crops = (2 + shape.local_crops) * shape.samples
        self.tokens = sum(shape.masked)
        self.masked = torch.tensor(shape.masked)
        self.inputs = {
            "dino": torch.randn(self.crops, shape.dim, generator=generator),
            "ibot": torch.randn(self.tokens, shape.dim, generator=generator),
        }
        self.teacher_inputs = {
            "dino": torch.randn(2 * shape.samples, shape.dim, generator=generator),
            "ibot": torch.randn(self.tokens, shape.dim, generator=generator),
        }
        self.rows = dino_rows(samples=shape.samples, local_crops=shape.local_crops)

    def _head(self, config: HeadConfig, generator: torch.Generator) -> ProjectionHead:
        head = ProjectionHead(self.shape.dim, config)
        head.init_weights(generator)
        # Prototypes as long as a trained head's, so that targets are neither flat nor one-hot.
        head.last_layer.weight.data.mul_(5)
        return head

    def run(self, form: Callable[["Step", dict[str, Tensor]], Tensor]) -> dict[str, Tensor]:
        """Forward and backward in one form; returns the loss and all gradients."""
        inputs = {name: x.detach().requires_grad_() for name, x in self.inputs.items()}
        for head in self.student.values():
            head.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.shape.dtype == "bfloat16"):
            loss = form(self, inputs)
        loss.backward()
        return {
            "loss": loss.detach(),
            **{f"input.{name}": x.grad for name, x in inputs.items()},
            **{
                f"{name}.{key}": value.grad
                for name, head in self.student.items()
                for key, value in head.named_parameters()
            },
        }


def ours(step: Step, inputs: dict[str, Tensor]) -> Tensor:
    with torch.no_grad():
        targets = {
            name: sinkhorn(head(step.teacher_inputs[name]), temp=TEACHER_TEMP)
            for name, head in step.teacher.items()
        }
    features = {name: head.bottleneck(inputs[name]) for name, head in step.student.items()}
    prototypes = {name: head.last_layer.weight for name, head in step.student.items()}
    dino = dino_loss(
        features["dino"], prototypes["dino"], targets["dino"], step.rows, student_temp=STUDENT_TEMP
    )
    ibot = ibot_loss(
        features["ibot"],
        prototypes["ibot"],
        targets["ibot"],
        masked=step.masked,
        student_temp=STUDENT_TEMP,
    )
    samples = step.shape.samples
    return dino + ibot + 0.2 * koleo(inputs["dino"][: 2 * samples], group=samples)


def eager(step: Step, inputs: dict[str, Tensor]) -> Tensor:
    samples = step.shape.samples
    with torch.no_grad():
        probs = {
            name: _listing(head(step.teacher_inputs[name])) for name, head in step.teacher.items()
        }
    logits = {name: head(inputs[name]) for name, head in step.student.items()}
    views = _wide(logits["dino"]).unflatten(0, (-1, samples))
    teacher = probs["dino"].unflatten(0, (2, samples))
    given = {"student_temp": STUDENT_TEMP}
    among = dino_cross_entropy(views[:2], teacher, skip_same_view=True, **given)
    local = dino_cross_entropy(views[2:], teacher, skip_same_view=False, **given)
    n_local = step.shape.local_crops
    dino = (2 * among + 2 * n_local * local) / (2 + 2 * n_local)
    weights = ibot_weights(step.masked, tokens=step.tokens)
    ibot = ibot_cross_entropy(_wide(logits["ibot"]), probs["ibot"], weights, **given)
    spread = sum(_eager_koleo(x) for x in inputs["dino"][: 2 * samples].split(samples))
    return dino + ibot + 0.1 * spread


def _listing(logits: Tensor) -> Tensor:
    """Sinkhorn-Knopp as papers list it."""
    q = torch.exp(_wide(logits) / TEACHER_TEMP).t()
    prototypes, samples = q.shape
    q /= torch.sum(q)
    for _ in range(3):
        q /= torch.sum(q, dim=1, keepdim=True)
        q /= prototypes
        q /= torch.sum(q, dim=0, keepdim=True)
        q /= samples
    q *= samples
    return q.t()


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _eager_koleo(features: Tensor) -> Tensor:
    x = F.normalize(_wide(features), dim=-1)
    with torch.no_grad():
        products = x @ x.T
        products.fill_diagonal_(-1)
        nearest = products.argmax(1)
    return -torch.log((x - x[nearest] + 1e-8).norm(dim=-1) + 1e-8).mean()


def products(step: Step) -> Callable[[], None]:
    """The matrix products of a step on buffers that exist already: no form can need fewer."""
    dtype = getattr(torch, step.shape.dtype)
    jobs = []
    for name, head in step.student.items():
        layers = [m.weight.data.to(dtype) for m in head.modules() if isinstance(m, torch.nn.Linear)]
        for count, backward in (
            (len(step.inputs[name]), True),
            (len(step.teacher_inputs[name]), False),
        ):
            for weight in layers:
                x = torch.randn(count, weight.shape[1]).to(dtype)
                jobs.append((x, weight.T, torch.empty(count, len(weight), dtype=dtype)))
                if backward:
                    y = jobs[-1][2]
                    jobs.append((y, weight, torch.empty_like(x)))
                    jobs.append((y.T, x, torch.empty_like(weight)))

    def multiply() -> None:
        for left, right, out in jobs:
            torch.mm(left, right, out=out)

    return multiply


def peak_bytes(shape: Shape, form: str) -> int:
    """Highest resident set of one step in a process of its own, less that before the step."""
    command = [sys.executable, __file__, "--peak", form, "--shape", json.dumps(_plain(shape))]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return int(done.stdout)


def _plain(shape: Shape) -> dict:
    return {name: getattr(shape, name) for name in Shape.__dataclass_fields__}


def _print_peak(form: str, shape: Shape) -> None:
    torch.set_num_threads(1)
    # Libraries and their threads first, on a tiny step.
    Step(replace(SMALL, dtype=shape.dtype)).run(FORMS[form])
    step = Step(shape)
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # Peak := now.
    step.run(FORMS[form])
    print(_status("VmHWM") - before)


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) * 1024


FORMS = {"ours": ours, "eager": eager}


def compare(shape: Shape, rounds: int) -> tuple[str, dict]:
    step = Step(shape)
    cases = {
        "ours": lambda: step.run(ours),
        "eager": lambda: step.run(eager),
        "limit": products(step),
    }
    timings = interleave(cases, rounds)
    cpu = {name: timing.rounds_cpu_s for name, timing in timings.items()}
    beyond = [
        (slow - floor) / max(fast - floor, 1e-9)
        for slow, fast, floor in zip(cpu["eager"], cpu["ours"], cpu["limit"], strict=True)
    ]
    peaks = {form: peak_bytes(shape, form) for form in FORMS}
    figures = {
        "timings": timings,
        "ratio": ratio(timings, "eager", "ours"),
        "ratio_beyond_products": sorted(beyond)[len(beyond) // 2],
        "share_of_limit": 1 / ratio(timings, "ours", "limit"),
        "peak_mb": {form: peak / 1e6 for form, peak in peaks.items()},
        "peak_ratio": peaks["ours"] / max(peaks["eager"], 1),
        "error": errors(step),
    }
    tokens = step.crops + step.tokens
    title = f"heads and losses, {shape.prototypes} prototypes, {shape.dtype}, {tokens} student rows"
    text = table(title, timings, work=tokens, unit="rows", ours="ours")
    text += (
        f"\nbeyond the matrix products: {figures['ratio_beyond_products']:.2f} x faster than eager"
        f"\npeak memory: ours {peaks['ours'] / 1e6:.0f} MB, eager {peaks['eager'] / 1e6:.0f} MB "
        f"({figures['peak_ratio']:.2f})"
        f"\nlargest error to float64: "
        + ", ".join(f"{form} {value:.1e}" for form, value in figures["error"].items())
    )
    return text, figures


def errors(step: Step) -> dict[str, float]:
    """Largest relative error (norm of the difference) of loss and gradients, to eager float64."""
    got = {form: step.run(run_form) for form, run_form in FORMS.items()}
    exact = Step(replace(step.shape, dtype="float32"))
    for heads in (exact.student, exact.teacher):
        for head in heads.values():
            head.double()
    exact.inputs = {name: x.detach().double() for name, x in exact.inputs.items()}
    exact.teacher_inputs = {name: x.double() for name, x in exact.teacher_inputs.items()}
    want = exact.run(eager)
    return {
        form: max(
            float((values[key] - want[key]).norm() / want[key].norm().clamp_min(1e-30))
            for key in want
        )
        for form, values in got.items()
    }


def run(rounds: int, small: bool) -> dict:
    torch.set_num_threads(1)
    shapes = {
        f"{prototypes} prototypes, {dtype}": (
            replace(SMALL, prototypes=prototypes // 128, dtype=dtype)
            if small
            else Shape(prototypes=prototypes, dtype=dtype)
        )
        for prototypes in (8192, 65536)
        for dtype in ("float32", "bfloat16")
    }
    tables, figures = [], {}
    for name, shape in shapes.items():
        text, figures[name] = compare(shape, rounds)
        tables.append(text)
    return {"tables": tables, **figures}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--peak", choices=FORMS)
    parser.add_argument("--shape", type=json.loads)
    child, rest = parser.parse_known_args()
    if child.peak:
        child.shape["masked"] = tuple(child.shape["masked"])
        _print_peak(child.peak, Shape(**child.shape))
    else:
        main(run, rest)
