"""The Gram teacher of a run: a backbone like the student's, its weights from the run or from a model."""

from geodino.errors import RecipeError
from geodino.geo.contract import InputContract
from geodino.models.backbone import Backbone
from geodino.models.build import assemble, materialise
from geodino.models.folder import LoadedModel
from geodino.runs.models import open_model
from geodino.runs.recipe import TrainingConfig

_OF_THE_RUN = ("best", "start", "ema")


def gram_model(config: TrainingConfig) -> str | None:
    """Return the model that the recipe names as Gram teacher; None where it is one of the run's own.

    Raises:
        RecipeError: two phases name two models.
    """
    named = {
        phase.gram.teacher
        for _, phase in config.phases.active()
        if phase.gram is not None and phase.gram.teacher not in _OF_THE_RUN
    }
    if len(named) > 1:
        raise RecipeError(
            f"Two Gram teachers are named ({' and '.join(sorted(named))}): a run holds one. Give "
            "phases.gram.gram.teacher and phases.highres.gram.teacher the same value."
        )
    return named.pop() if named else None


def needs_gram_teacher(config: TrainingConfig) -> bool:
    """Whether a phase keeps the similarities of a teacher other than the moving one."""
    return any(
        phase.gram is not None and phase.gram.teacher != "ema"
        for _, phase in config.phases.active()
    )


def build_gram_teacher(
    config: TrainingConfig, contract: InputContract, *, device: str = "cpu"
) -> tuple[Backbone | None, bool]:
    """Return the Gram teacher, and whether it has weights of its own.

    Without weights of its own it takes the teacher's when training starts.

    Raises:
        RecipeError: a named model has another architecture, or other bands.
    """
    if not needs_gram_teacher(config):
        return None, False
    named = gram_model(config)
    if named is not None:
        return checked_gram_teacher(config, contract, named).backbone.to(device), True
    backbone = assemble(config.model, mean=contract.mean, std=contract.std)
    materialise(backbone, device=device)
    return backbone, False


def assemble_gram_teacher(
    config: TrainingConfig, contract: InputContract
) -> tuple[Backbone | None, bool]:
    """The same on the meta device, without any weights."""
    if not needs_gram_teacher(config):
        return None, False
    backbone = assemble(config.model, mean=contract.mean, std=contract.std)
    return backbone, gram_model(config) is not None


def checked_gram_teacher(
    config: TrainingConfig, contract: InputContract, named: str
) -> LoadedModel:
    """Open the model that is named as Gram teacher.

    Raises:
        RecipeError: it has another architecture than the student, or other bands.
    """
    loaded = open_model(named).loaded
    mine, theirs = config.model, loaded.config
    for what in ("name", "width", "blocks", "stride", "local_cls_norm"):
        asked, found = getattr(mine, what), getattr(theirs, what)
        if asked != found:
            raise RecipeError(
                f"Gram teacher {named}: its {what} is {found}, the student's {asked}. Its patches "
                "are compared with the student's one by one: name a model of the same "
                "architecture, such as an earlier one of this run."
            )
    names = [band.name for band in contract.bands]
    if (have := [band.name for band in loaded.contract.bands]) != names:
        raise RecipeError(
            f"Gram teacher {named}: it was trained on {', '.join(have)}, the tiles have "
            f"{', '.join(names)}. Choose its bands with data.bands, or another Gram teacher."
        )
    return loaded
