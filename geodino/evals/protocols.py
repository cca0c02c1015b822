"""Named protocols: what is done to images, which features are read, which probes on them."""

from collections.abc import Mapping
from dataclasses import dataclass

from geodino.data.labelled.sets import Kind
from geodino.errors import RecipeError, suggest
from geodino.evals.meeting import Values


@dataclass(frozen=True, kw_only=True, slots=True)
class Protocol:
    """How a benchmark is run."""

    name: str
    about: str
    """In a sentence, with what is uncertain about it."""

    values: Values
    """What stored values become."""

    image_size: int | None
    """Side every image is resized to, bilinearly; None leaves images of one label at their size."""

    map_size: int | None
    """The same for images whose pixels are labelled."""

    features: tuple[str, ...]
    """Which vectors stand for an image: ``cls``, ``mean``, ``concat``."""

    probes: Mapping[Kind, tuple[str, ...]]
    """Names of the probes by kind of label."""

    unscaled: bool = False
    """Whether neighbours and logistic regression read features as they are: neither as directions
    nor standardised."""

    bands: str = "model"
    """Which bands are read, see :data:`geodino.evals.meeting.WORDS`."""


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            name="geodino",
            about="Values as the model was trained on them, native sizes, class token, mean patch "
            "and both.",
            values="contract",
            image_size=None,
            map_size=None,
            features=("cls", "mean", "concat"),
            probes={
                "classification": ("knn", "linear"),
                "multilabel": ("knn", "linear"),
                "segmentation": ("dense-linear", "dense-knn"),
                "regression": ("ridge", "dense-ridge"),
            },
        ),
        Protocol(
            name="torchgeo-bench",
            about="Bands scaled by the set's own mean and deviation, 224 px, mean patch as it is; 5 "
            "nearest, and logistic regression with 40 strengths refitted on train and val.",
            unscaled=True,
            values="zscore",
            image_size=224,
            map_size=224,
            features=("mean",),
            probes={
                "classification": ("knn", "linear"),
                "multilabel": ("knn", "linear"),
                "segmentation": ("dense-linear",),
                "regression": ("ridge", "dense-ridge"),
            },
        ),
        Protocol(
            name="dinov3-approx",
            about="As far as it is published: each band's range to 0..255, then the model's "
            "statistics; a linear head on class token and mean patch, 2400 steps, the rate chosen on "
            "val. Approximate: the published input statistics contradict each other.",
            values="minmax",
            image_size=None,
            map_size=512,
            features=("concat",),
            probes={
                "classification": ("linear-sgd",),
                "multilabel": ("linear",),
                "segmentation": ("dense-linear",),
                "regression": ("ridge", "dense-ridge"),
            },
        ),
    )
}
"""Every protocol there is."""


def protocol_named(name: str) -> Protocol:
    """Return a protocol.

    Raises:
        RecipeError: there is none of that name.
    """
    if name not in PROTOCOLS:
        raise RecipeError(
            f"There is no protocol {name!r}.{suggest(name, list(PROTOCOLS))} There are: "
            f"{', '.join(PROTOCOLS)}."
        )
    return PROTOCOLS[name]
