"""Training students to the end of the run, or until a signal; exporting each."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lightning.pytorch.strategies import DDPStrategy

from geodino.pretrain.course import Course, PhaseSteps
from geodino.pretrain.distill.module import DistillModule
from geodino.pretrain.module import PhasedModule
from geodino.runs.distill.build import build_distill_module, build_distill_planner
from geodino.runs.distill.export import export_distillation, save_students
from geodino.runs.distill.prepare import PreparedDistillation
from geodino.runs.distill.students import scales
from geodino.runs.processes import Strategy
from geodino.runs.train import Training


class Replicas(DDPStrategy):
    """Processes that hold all students each, without a wrapper: the module averages gradients.

    DDP waits for a gradient of every parameter in each backward pass; here a pass reaches one
    student.
    """

    def configure_ddp(self) -> None:
        """Leave the module as it is; equal seeds gave all processes equal weights."""


@dataclass(kw_only=True, slots=True)
class Distillation(Training):
    """One process's part in a distillation."""

    prepared: PreparedDistillation

    def _module(self, course: Course, *, is_begun: bool) -> DistillModule:
        """Build teacher, students and their averages."""
        return build_distill_module(self.prepared, course)

    def _export(self, module: PhasedModule) -> None:
        """Write each student's average."""
        if not isinstance(module, DistillModule):
            raise TypeError(f"not a module of distillation: {type(module).__name__}")
        if self.rank > 0:
            return
        save_students(dict(module.averages.items()), self.prepared, self.folder)

    def _export_again(self) -> dict[str, Any]:
        """Write the averages of the last checkpoint."""
        return export_distillation(self.prepared, self.folder)

    def _sides(self) -> dict[str, int]:
        """The side of each student's global crops."""
        side = self.prepared.config.phases.first.views.global_size
        return {name: round(side * by) for name, by in scales(self.prepared.config).items()}

    def _plans(self, steps: PhaseSteps) -> Callable[..., Any]:
        """What draws crops, masks, and each student's own numbers."""
        return build_distill_planner(self.prepared, steps)

    def _strategy(self) -> Strategy:
        """Every process holds all students."""
        return "single" if self.processes.world == 1 else "ddp"

    def _ddp(self) -> Replicas:
        """Replicas that need no wrapper."""
        return Replicas()
