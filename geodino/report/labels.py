"""What the scalars of a run are called, what they mean, and where they stand in the report."""

from dataclasses import dataclass

GROUPS = ("Losses", "Dense features", "Gradients", "Schedules", "Pace", "Other")


@dataclass(frozen=True, slots=True)
class Label:
    """How a scalar is shown."""

    title: str
    meaning: str
    group: str
    log: bool = False
    """Whether a logarithmic axis shows it better."""


_KNOWN = {
    "loss/total": Label("total loss", "weighted sum of the terms", "Losses"),
    "loss/dino": Label("DINO", "class tokens of two views agree on prototypes", "Losses"),
    "loss/ibot": Label("iBOT", "hidden patches are told from their surroundings", "Losses"),
    "loss/koleo": Label("KoLeo", "class tokens spread; lower is wider", "Losses"),
    "loss/gram": Label("Gram", "patch similarities stay those of an earlier model", "Losses"),
    "loss/target_entropy": Label(
        "target entropy", "of the teacher's assignments, in nats; 0 is one prototype each", "Losses"
    ),
    "health/patch_rank": Label(
        "patch rank", "directions the patch tokens use; falls when maps lose detail",
        "Dense features",
    ),
    "health/cls_rank": Label(
        "class rank", "directions the class tokens use; 1 is a collapse", "Dense features"
    ),
    "health/patch_patch_cosine": Label(
        "patch to patch cosine", "within an image; near 1 all patches look the same",
        "Dense features",
    ),
    "health/cls_patch_cosine": Label(
        "class to patch cosine", "rises when patches only repeat the whole image",
        "Dense features",
    ),
    "health/gram_distance": Label(
        "Gram distance", "of the patch similarities from those at the start", "Dense features"
    ),
    "health/outlier_share": Label(
        "outlying norms", "share of patches above three times the median norm", "Dense features"
    ),
    "grad_norm/backbone": Label("backbone", "norm before clipping", "Gradients", log=True),
    "grad_norm/heads": Label("heads", "largest norm before clipping", "Gradients", log=True),
    "skipped": Label("skipped steps", "so far, for gradients that were not finite", "Gradients"),
    "lr": Label("learning rate", "after scaling with the batch", "Schedules"),
    "last_layer_lr": Label("learning rate of the prototypes", "0 while frozen", "Schedules"),
    "weight_decay": Label("weight decay", "decoupled", "Schedules"),
    "momentum": Label("teacher momentum", "share of the teacher that stays", "Schedules"),
    "teacher_temp": Label("teacher temperature", "of its assignments", "Schedules"),
    "local_weight": Label("weight of local crops", "in the DINO term", "Schedules"),
    "gram_weight": Label("weight of Gram anchoring", "0 before its phase", "Schedules"),
    "images_per_s": Label("images per second", "over the whole batch, all devices", "Pace"),
    "data_wait": Label("waiting for data", "share of the time", "Pace"),
    "memory_gib": Label("memory", "peak so far, GiB", "Pace"),
}  # fmt: skip


def label_of(name: str) -> Label:
    """Return how a scalar of metrics.jsonl is shown; unknown ones under their own name."""
    if name in _KNOWN:
        return _KNOWN[name]
    groups = {"loss": "Losses", "health": "Dense features", "grad_norm": "Gradients"}
    prefix, slash, rest = name.partition("/")
    if slash and prefix in groups:
        return Label(rest.replace("_", " "), "", groups[prefix])
    return Label(name, "", "Other")
