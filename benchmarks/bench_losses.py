"""Heads and losses of one step: ours, the plain eager form, and what no form can go below.

The step is what both heads cost: teacher MLPs and prototypes, Sinkhorn, student MLPs and
prototypes, the DINO and iBOT cross-entropies, KoLeo, and the whole backward pass, on 16 images
with 2 global and 8 local crops and 600 masked tokens. `eager` is the usual listing: float32
logits, exp, a transposed K x B matrix with four divisions an iteration, dense targets,
log_softmax, autograd. `limit` is the same matrix products and nothing else.

Both forms need these products, so they are timed without them as well: from ready teacher and
student logits to the gradient of the student's logits. There `limit` moves 28 bytes a logit.

Peak memory is that of a process of its own for each form: the highest resident set of a step,
less that before it.
"""

import argparse
import json
import os
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

from geodino.losses.cross_entropy import _logit_gradient, _Pairs
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
    layers: int = 3
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
            prototypes=shape.prototypes,
            hidden=shape.hidden,
            bottleneck=shape.bottleneck,
            layers=shape.layers,
        )
        self.student, self.teacher = (
            {name: self._head(config, generator) for name in ("dino", "ibot")} for _ in range(2)
        )
        for head in self.teacher.values():
            head.requires_grad_(False)
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

    def eager_cross_entropies(self, logits: dict[str, Tensor], probs: dict[str, Tensor]) -> Tensor:
        views = logits["dino"].unflatten(0, (-1, self.shape.samples))
        teacher = probs["dino"].unflatten(0, (2, self.shape.samples))
        given = {"student_temp": STUDENT_TEMP}
        among = dino_cross_entropy(views[:2], teacher, skip_same_view=True, **given)
        local = dino_cross_entropy(views[2:], teacher, skip_same_view=False, **given)
        n_local = self.shape.local_crops
        dino = (2 * among + 2 * n_local * local) / (2 + 2 * n_local)
        weights = ibot_weights(self.masked, tokens=self.tokens)
        return dino + ibot_cross_entropy(logits["ibot"], probs["ibot"], weights, **given)


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
    with torch.no_grad():
        probs = {
            name: _listing(head(step.teacher_inputs[name])) for name, head in step.teacher.items()
        }
    logits = {name: _wide(head(inputs[name])) for name, head in step.student.items()}
    samples = step.shape.samples
    spread = sum(_eager_koleo(x) for x in inputs["dino"][: 2 * samples].split(samples))
    return step.eager_cross_entropies(logits, probs) + 0.1 * spread


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


def peaks_mb(shape: Shape) -> dict[str, float]:
    """Highest resident set of one step in a process of its own, less that before the step."""
    command = [sys.executable, __file__, "--peaks-of", json.dumps(_plain(shape))]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return {form: int(bytes_) / 1e6 for form, bytes_ in json.loads(done.stdout).items()}


def _plain(shape: Shape) -> dict:
    return {name: getattr(shape, name) for name in Shape.__dataclass_fields__}


def _print_peaks(shape: Shape) -> None:
    """Each form in a fork of this process, which has imported torch and done nothing with it."""
    found = {}
    for form in FORMS:
        read, write = os.pipe()
        if (pid := os.fork()) == 0:
            os.write(write, str(_peak_bytes(form, shape)).encode())
            os._exit(0)
        os.close(write)
        found[form] = os.read(read, 64).decode()
        os.close(read)
        if os.waitpid(pid, 0)[1] != 0:
            raise RuntimeError(f"the step of {form} failed")
    print(json.dumps(found))


def _peak_bytes(form: str, shape: Shape) -> int:
    torch.set_num_threads(1)
    # Libraries and their threads first, on a tiny step.
    Step(replace(SMALL, dtype=shape.dtype)).run(FORMS[form])
    step = Step(shape)
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # Peak := now.
    step.run(FORMS[form])
    return _status("VmHWM") - before


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) * 1024


FORMS = {"ours": ours, "eager": eager}


class LossesAlone:
    """From the logits of teacher and student to the gradient of the student's logits."""

    def __init__(self, step: Step) -> None:
        self.step = step
        with torch.no_grad():
            self.teacher = {n: h(step.teacher_inputs[n]).float() for n, h in step.teacher.items()}
            self.student = {n: h(step.inputs[n]).float() for n, h in step.student.items()}
        self.buffers = {
            "teacher": {n: x.clone() for n, x in self.teacher.items()},
            "student": {n: x.clone() for n, x in self.student.items()},
        }
        weights = ibot_weights(step.masked, tokens=step.tokens)
        rows = step.rows
        self.pairs = {
            "dino": (rows.target_rows, rows.global_weights + rows.local_weights),
            "ibot": (None, weights),
        }

    def refresh(self) -> None:
        """Ours works in the buffers of the logits; fill them again."""
        for side, source in (("teacher", self.teacher), ("student", self.student)):
            for name, x in source.items():
                self.buffers[side][name].copy_(x)
        for x in self.buffers["student"].values():
            x.div_(STUDENT_TEMP)  # Ours divides the features, before the product.

    def ours(self) -> float:
        total = 0.0
        for name, logits in self.buffers["student"].items():
            targets = sinkhorn(self.buffers["teacher"][name], temp=TEACHER_TEMP)
            pairs = _Pairs.of(targets, *self.pairs[name])
            losses, _ = _logit_gradient(logits, pairs, 0, gradient=True)
            total += float(losses.sum())
        return total

    def eager(self) -> float:
        logits = {name: x.detach().requires_grad_() for name, x in self.student.items()}
        probs = {name: _listing(x) for name, x in self.teacher.items()}
        loss = self.step.eager_cross_entropies(logits, probs)
        loss.backward()
        return float(loss.detach())

    def limit(self) -> None:
        for name, x in self.teacher.items():
            for _ in range(3):
                self.buffers["teacher"][name].copy_(x)
            x.sum()


def compare(name: str, shape: Shape, rounds: int) -> tuple[str, dict]:
    step, size = Step(shape), f"{shape.prototypes} prototypes"
    whole = interleave(
        {
            "ours": lambda: step.run(ours),
            "eager": lambda: step.run(eager),
            "limit": products(step),
        },
        rounds,
    )
    alone = LossesAlone(step)
    alone.refresh()
    assert abs(alone.ours() / alone.eager() - 1) < 1e-5
    parts = interleave(
        {
            "refresh": alone.refresh,
            "ours": alone.ours,
            "eager": alone.eager,
            "limit": alone.limit,
        },
        rounds,
    )
    del parts["refresh"]
    # The MLPs need the same memory in both forms; one narrow layer leaves the losses' own.
    narrow = replace(shape, dim=shape.bottleneck, layers=1)
    peaks, peaks_narrow = peaks_mb(shape), peaks_mb(narrow)
    error = errors(step)
    assert error["ours"] < max(2 * error["eager"], 1e-5), error
    count = step.crops + step.tokens
    text = table(
        f"heads and losses, {name}, {count} student rows",
        whole,
        work=count,
        unit="rows",
        ours="ours",
    )
    text += "\n" + table(
        f"losses alone, float32, {size}", parts, work=count, unit="rows", ours="ours"
    )
    text += (
        f"\npeak memory: ours {peaks['ours']:.0f} MB, eager {peaks['eager']:.0f} MB; without MLPs: "
        f"ours {peaks_narrow['ours']:.0f} MB, eager {peaks_narrow['eager']:.0f} MB"
        f"\nlargest error of loss and gradients to float64: ours {error['ours']:.1e}, "
        f"eager {error['eager']:.1e}"
    )
    return text, {
        "ratio": ratio(whole, "eager", "ours"),
        "ratio_losses_alone": ratio(parts, "eager", "ours"),
        "share_of_limit": ratio(whole, "limit", "ours"),
        "share_of_limit_losses_alone": ratio(parts, "limit", "ours"),
        "peak_mb": peaks,
        "peak_mb_without_mlps": peaks_narrow,
        "error": error,
        "timings": whole,
        "timings_losses_alone": parts,
    }


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
        for prototypes in ((8192,) if small else (8192, 65536))
        for dtype in ("float32", "bfloat16")
    }
    tables, figures = [], {}
    for name, shape in shapes.items():
        text, figures[name] = compare(name, shape, rounds)
        tables.append(text)
    return {"tables": tables, **figures}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--peaks-of", type=json.loads)
    child, rest = parser.parse_known_args()
    if child.peaks_of:
        child.peaks_of["masked"] = tuple(child.peaks_of["masked"])
        _print_peaks(Shape(**child.peaks_of))
    else:
        main(run, rest)
