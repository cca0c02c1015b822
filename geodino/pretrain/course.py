"""The course of a run: which phase, crop sizes and samples every step has.

Everything but one thing is a function of (recipe, step): where a phase ends that waits for the
health of dense features is decided on the way, once, and recorded.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from geodino import seeds
from geodino.data.views_config import CropSizes
from geodino.pretrain.phases import PhaseConfig, SizesConfig

_BLOCK = 1024
"""Steps whose sizes are drawn together."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """Crop sizes of a step and how many samples it has."""

    sizes: CropSizes
    batch: int
    """Samples of the global batch."""
    share: float
    """How often it is drawn, relative to the others."""


@dataclass(kw_only=True, slots=True)
class PhaseSteps:
    """The steps of one phase, whichever step of the run it starts at."""

    number: int
    """Place among the phases of the run, from 0."""
    name: str
    config: PhaseConfig
    seed: int
    choices: tuple[Choice, ...]
    start: int
    """Step of the run at which the phase starts."""
    first_sample: int
    """Number of the phase's first sample, over the whole run."""
    _samples: list[int] = field(default_factory=lambda: [0])
    """Samples of the phase before each whole block."""

    def choice(self, step: int) -> Choice:
        """Return what a step of the run has, of the choices that take turns."""
        if len(self.choices) == 1:
            return self.choices[0]
        block, offset = divmod(step - self.start, _BLOCK)
        return self.choices[int(self._drawn(block)[offset])]

    def span(self, step: int) -> tuple[int, int]:
        """Return the number of a step's first sample, and how many it has."""
        if len(self.choices) == 1:
            batch = self.choices[0].batch
            return self.first_sample + (step - self.start) * batch, batch
        block, offset = divmod(step - self.start, _BLOCK)
        batches = np.array([choice.batch for choice in self.choices], dtype=np.int64)
        while len(self._samples) <= block:
            whole = batches[self._drawn(len(self._samples) - 1)].sum()
            self._samples.append(self._samples[-1] + int(whole))
        counts = batches[self._drawn(block)[: offset + 1]]
        before = self._samples[block] + int(counts[:-1].sum())
        return self.first_sample + before, int(counts[-1])

    def _drawn(self, block: int) -> NDArray[np.int64]:
        """Which choice each step of a block has; the key is the phase's, not the rank's."""
        shares = np.cumsum([choice.share for choice in self.choices])
        drawn = seeds.rng(self.seed, "sizes", self.name, block).random(_BLOCK) * shares[-1]
        chosen: NDArray[np.int64] = np.searchsorted(shares, drawn, side="right")
        return np.minimum(chosen, len(shares) - 1)


@dataclass(kw_only=True, slots=True)
class Course:
    """The phases one after the other, in steps of the run."""

    phases: tuple[tuple[str, PhaseConfig], ...]
    choices: tuple[tuple[Choice, ...], ...]
    """Per phase."""
    seed: int
    ends: list[int] = field(default_factory=list)
    """Step of the run before which each phase ends."""

    def __post_init__(self) -> None:
        """Let every phase last as long as it may."""
        if not self.ends:
            self.ends = np.cumsum([phase.steps for _, phase in self.phases]).tolist()

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return self.ends[-1]

    @property
    def names(self) -> list[str]:
        """Names of the phases."""
        return [name for name, _ in self.phases]

    def start(self, number: int) -> int:
        """Return the step at which a phase starts."""
        return self.ends[number - 1] if number else 0

    def number_at(self, step: int) -> int:
        """Return which phase a step belongs to; the last one where all are done."""
        return min(int(np.searchsorted(self.ends, step, side="right")), len(self.phases) - 1)

    def phase(self, number: int) -> PhaseSteps:
        """Return the steps of a phase; the phases before it have their final length."""
        first = 0
        for before in range(number):
            steps = self._phase(before, first)
            end = self.ends[before]
            first = sum(steps.span(end - 1)) if end > steps.start else first
        return self._phase(number, first)

    def end_at(self, number: int, step: int) -> None:
        """Let a phase end before ``step``, and the later ones that much earlier."""
        earlier = self.ends[number] - step
        self.ends[number:] = [end - earlier for end in self.ends[number:]]

    def _phase(self, number: int, first: int) -> PhaseSteps:
        name, config = self.phases[number]
        return PhaseSteps(
            number=number,
            name=name,
            config=config,
            seed=self.seed,
            choices=self.choices[number],
            start=self.start(number),
            first_sample=first,
        )


def choices_of(phase: PhaseConfig, *, stride: int, batch_of: Sequence[int]) -> tuple[Choice, ...]:
    """Return the crop sizes that take turns in a phase.

    Args:
        phase: which sizes.
        stride: pixels per patch.
        batch_of: samples of the global batch for each of ``phase.choices``.
    """
    return tuple(
        Choice(sizes=_crop_sizes(phase, sizes, stride), batch=batch, share=sizes.share)
        for sizes, batch in zip(phase.choices, batch_of, strict=True)
    )


def _crop_sizes(phase: PhaseConfig, sizes: SizesConfig, stride: int) -> CropSizes:
    gram = None
    if phase.gram is not None:
        gram = sizes.gram_size or phase.gram.crop_size(sizes.global_size, stride)
    return CropSizes(globals=sizes.global_size, locals=sizes.local_size, gram=gram)


def same_memory_batch(
    sizes: tuple[SizesConfig, int], *, like: tuple[SizesConfig, int], batch: int, unit: int
) -> int:
    """Return how many samples of ``sizes`` have at most the pixels of ``batch`` samples of ``like``.

    Activations follow the number of patches the student sees, in two global crops and the local
    ones.

    Args:
        sizes: crop sizes, and the number of local crops.
        like: those that ``batch`` is for.
        batch: samples.
        unit: the result is a multiple of it, and at least one.
    """

    def pixels(of: SizesConfig, local_count: int) -> int:
        return 2 * of.global_size**2 + local_count * of.local_size**2

    return max(batch * pixels(*like) // pixels(*sizes) // unit, 1) * unit
