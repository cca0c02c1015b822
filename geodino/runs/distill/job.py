"""``geodino distill``: prepare or take up a run, train its students, export them."""

from dataclasses import dataclass
from typing import Any

from geodino.errors import RecipeError, RunError
from geodino.runs.card import RunCard
from geodino.runs.distill.card import distill_card
from geodino.runs.distill.prepare import PreparedDistillation, asked_again, prepare
from geodino.runs.distill.teacher import open_recorded_teacher, open_teacher
from geodino.runs.distill.train import Distillation
from geodino.runs.prepare import PreparedTraining
from geodino.runs.pretrain import TrainingJob, carry_out, recorded
from geodino.runs.processes import Processes, this_rank
from geodino.runs.recipe import load_recorded_distill
from geodino.runs.record import RunFolder, RunLog


@dataclass(frozen=True, kw_only=True, slots=True)
class DistillJob(TrainingJob):
    """What ``geodino distill`` was asked."""

    teacher: str | None = None
    """MODEL; left out, the one that a resumed run began with."""

    students: tuple[str, ...] | None = None
    """Names; None takes those of the recipe, or of a resumed run."""

    def prepare(
        self, processes: Processes | None, *, like: PreparedTraining | None = None
    ) -> PreparedDistillation:
        """Bring teacher, students and tiles together."""
        if like is not None:
            asked = self.students
            return asked_again(_of_distillation(like), asked, self.recipe, self.settings)
        if self.teacher is None:
            raise RecipeError("--teacher is missing: name the model that students learn from.")
        return prepare(
            self.tiles, self.teacher, self.students, self.recipe, self.settings,
            devices=1 if processes is None else processes.world,
        )  # fmt: skip

    def read(self, folder: RunFolder) -> PreparedDistillation:
        """Read recipe, tiles and contract, and open the teacher they were made for."""
        prepared = read_distillation(folder)
        if self.resume:
            self._check_same(folder, prepared)
        return prepared

    def card(self, prepared: PreparedTraining, processes: Processes) -> RunCard:
        """Say who will learn what from whom."""
        return distill_card(_of_distillation(prepared), processes=processes, out=self.out)

    def training(self, folder: RunFolder, prepared: PreparedTraining, log: RunLog) -> Distillation:
        """Return this process's part."""
        return Distillation(
            folder=folder,
            prepared=_of_distillation(prepared),
            processes=self.processes(),
            rank=this_rank(self.devices),
            log=log,
            quiet=self.quiet,
        )

    def _check_same(self, folder: RunFolder, prepared: PreparedDistillation) -> None:
        """Refuse to go on with another teacher or other students than the run began with."""
        config = prepared.config
        if self.students is not None:
            asked = [name.strip().removeprefix("timm:") for name in self.students]
            if sorted(asked) != sorted(config.students):
                raise RunError(
                    f"{folder.root} was started with --students {','.join(config.students)}: "
                    "resume it with those, or start a new run in another --out."
                )
        teacher = prepared.teacher.settings
        if (
            self.teacher is not None
            and open_teacher(self.teacher).settings.sha256 != teacher.sha256
        ):
            raise RunError(
                f"{folder.root} was started with --teacher {teacher.model}, whose weights are not "
                f"those of {self.teacher}: resume it with that one, or start a new run in another "
                "--out."
            )


def read_distillation(folder: RunFolder) -> PreparedDistillation:
    """Read what a run folder of distillation says it is.

    Raises:
        GeodinoError: a file is missing or damaged, or the teacher has other weights by now.
    """
    config = load_recorded_distill(folder.recipe)
    return PreparedDistillation(
        config=config, teacher=open_recorded_teacher(config), **recorded(folder)
    )


def distill(job: DistillJob) -> dict[str, Any]:
    """Run the job; see the command's help.

    Returns:
        The run folder, the first student's model folder, those of all, steps, last metrics.

    Raises:
        GeodinoError: any mistake the user can mend; nothing that was there before is lost.
    """
    return carry_out(job)


def _of_distillation(prepared: PreparedTraining) -> PreparedDistillation:
    if not isinstance(prepared, PreparedDistillation):
        raise TypeError(f"not prepared for distillation: {type(prepared).__name__}")
    return prepared
