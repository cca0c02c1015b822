"""What travels with the weights besides numbers: model card, STAC item and licence lineage."""

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any, Literal

import yaml
from pydantic import Field

from geodino.config import Config
from geodino.geo.contract import InputContract

VERSION = version("geodino")

MLM_SCHEMA = "https://stac-extensions.github.io/mlm/v1.5.1/schema.json"

DINOV3_LICENSE = "dinov3-license"

PERMISSIVE = frozenset(
    {"apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "cc-by-4.0", "odc-by"}
)
"""Licences that a derived model need not carry on (beside naming its parents)."""

_LINKS = {
    DINOV3_LICENSE: "https://ai.meta.com/resources/models-and-libraries/dinov3-license/",
}

_KNOWN_WEIGHTS: tuple[tuple[str, str], ...] = (
    (r"(?i)eupe", "fair-noncommercial-research-license"),
    (r"lvd1689m|sat493m|facebook/dinov3", DINOV3_LICENSE),
)
"""Names of released weights and their licence, for parents that do not say."""

TASKS = ["similarity-search"]
"""What the MLM extension calls a backbone's job; its list has no feature extraction."""


class Parent(Config):
    """Weights this model descends from."""

    name: str
    """What they are called: a timm or hub name, or a path."""

    license: str | None = None
    """Their licence in Hugging Face's spelling; None where unknown: known names are looked up."""

    relation: Literal[
        "initialised from", "distilled from", "continues", "converted from", "recalibrated from"
    ] = "initialised from"
    """How this model descends from them."""


class ModelCard(Config):
    """What a model's maker says about it."""

    name: str = "geodino-backbone"
    """Name of the model."""

    description: str = "A self-supervised backbone for satellite and aerial images."
    """One or two sentences."""

    license: str = "apache-2.0"
    """Licence the weights are given under, unless a parent's licence must be carried on."""

    lineage: tuple[Parent, ...] = ()
    """Weights it descends from; empty if trained from scratch."""

    datasets: tuple[str, ...] = ()
    """Names of the training data, with their licences where known."""

    data: str = ""
    """What the model was trained on, in words."""

    training: str = ""
    """Recipe, steps, hardware, seed."""

    evaluation: str = ""
    """Results with their protocol, Markdown."""

    limits: str = ""
    """What it should not be used for."""

    adapted: str = ""
    """How its input was changed from that of its parent, in words; empty if it was not."""

    image_size: int = Field(default=256, ge=1)
    """Side of the square images it was trained on, pixels."""

    bbox: tuple[float, float, float, float] | None = None
    """West, south, east, north of the training data, degrees (EPSG:4326)."""

    start_datetime: str | None = None
    """First acquisition of the training data, RFC 3339."""

    end_datetime: str | None = None
    """Last acquisition of the training data, RFC 3339."""

    created: str | None = None
    """When the model was made, RFC 3339; None is now."""

    @property
    def effective_license(self) -> str:
        """The licence the weights really carry (see ``license_of``)."""
        return license_of(self.license, self.lineage)


def license_of(declared: str, lineage: Iterable[Parent]) -> str:
    """Return the licence of weights made from ``lineage`` and declared to be ``declared``.

    Anything initialised or distilled from Meta's DINOv3 weights carries the DINOv3 licence. Other
    licences that are not permissive are carried on too; the declared one holds otherwise.
    """
    inherited = [_license_of_parent(parent) for parent in lineage]
    if DINOV3_LICENSE in inherited:
        return DINOV3_LICENSE
    return next((x for x in inherited if x is not None and x not in PERMISSIVE), declared)


def _license_of_parent(parent: Parent) -> str | None:
    known = next((lic for name, lic in _KNOWN_WEIGHTS if re.search(name, parent.name)), None)
    return known or parent.license


Library = Literal["timm", "transformers"]
"""What opens the weights."""


def readme(
    card: ModelCard,
    contract: InputContract,
    *,
    architecture: str,
    parameters: int,
    stride: int,
    library: Library = "timm",
) -> str:
    """Return the model card: a Hugging Face YAML head and the sections a reader asks for."""
    sections = [
        f"# {card.name}",
        card.description,
        (
            f"`{architecture}`, {parameters / 1e6:.1f} M parameters, one patch token per "
            f"{stride} x {stride} pixels. Made with geodino {VERSION}."
        ),
        "## Input",
        _bands_table(contract),
        _input_text(contract, card),
        *([f"**Adapted:** {card.adapted}"] if card.adapted else []),
        "## Use",
        _usage(contract, library),
        "## Training data",
        card.data or "Not described.",
        *(["\n".join(f"- {name}" for name in card.datasets)] if card.datasets else []),
        "## Training",
        card.training or "Not described.",
        "## Evaluation",
        card.evaluation or "Not evaluated.",
        "## Limits",
        card.limits
        or "Made for images like its training data: other sensors, bands or resolutions need a "
        "check first. Features are not measurements.",
        "## Licence and lineage",
        _lineage_text(card),
    ]
    return f"---\n{_head(card, library)}---\n\n" + "\n\n".join(sections) + "\n"


def _head(card: ModelCard, library: Library) -> str:
    license = card.effective_license
    known = license in PERMISSIVE
    head: dict[str, Any] = {"license": license if known else "other"}
    if not known:
        head["license_name"] = license
        if license in _LINKS:
            head["license_link"] = _LINKS[license]
    head |= {
        "library_name": library,
        "pipeline_tag": "image-feature-extraction",
        "tags": [
            "earth-observation",
            "self-supervised",
            "dinov3-method",
            "geodino",
            *(["adapted"] if card.adapted else []),
        ],
    }
    if card.datasets:
        head["datasets"] = list(card.datasets)
    if card.lineage:
        head["base_model"] = [parent.name for parent in card.lineage]
    return yaml.safe_dump(head, sort_keys=False, allow_unicode=True)


def _bands_table(contract: InputContract) -> str:
    rows = ["| band | common name | unit | mean | std |", "|---|---|---|--:|--:|"]
    rows += [
        f"| {band.name} | {band.common_name or ''} | {band.unit} | {mean:.6g} | {std:.6g} |"
        for band, mean, std in zip(contract.bands, contract.mean, contract.std, strict=True)
    ]
    return "\n".join(rows)


def _input_text(contract: InputContract, card: ModelCard) -> str:
    gsd = "not declared"
    if contract.gsd_m is not None:
        gsd = f"{contract.gsd_m[0]:g} to {contract.gsd_m[1]:g} m"
    return (
        f"Pixels stored as {contract.dtype}; mean and std are of stored values over valid pixels. "
        f"Ground sampling distance: {gsd}. Trained on {card.image_size} x {card.image_size} pixel "
        f"images. Invalid pixels ({contract.nodata or 'none declared'}) become the band mean."
    )


def _usage(contract: InputContract, library: Library) -> str:
    if library == "transformers":
        return (
            "```python\n"
            "from transformers import AutoModel\n"
            'model = AutoModel.from_pretrained("FOLDER or OWNER/NAME").eval()\n'
            "tokens = model(normalised).last_hidden_state  # (x - mean) / std, per band\n"
            "```\n"
            "The first token is CLS; a ViT has 4 registers after it, then come the patches, row by "
            "row. Projection heads are not part of this folder."
        )
    scale = "; `mean` and `std` of its config fit images scaled to 0..1"
    return (
        "```python\n"
        "import timm\n"
        'model = timm.create_model("local-dir:FOLDER", pretrained=True).eval()\n'
        "cls = model(normalised)                 # (x - mean) / std, per band\n"
        "```\n"
        f"{scale.removeprefix('; ').capitalize() if contract.dtype == 'uint8' else ''}".rstrip()
    )


def _lineage_text(card: ModelCard) -> str:
    lines = [f"These weights are given under **{card.effective_license}**."]
    if not card.lineage:
        lines.append("They were trained from scratch: no other weights went in.")
    lines += [
        f"- {parent.relation} {parent.name} ({_license_of_parent(parent) or 'licence unknown'})"
        for parent in card.lineage
    ]
    if card.effective_license != card.license:
        lines.append(
            f"Declared as {card.license}; the licence of a parent must be carried on instead."
        )
    return "\n".join(lines)


def stac_item(
    card: ModelCard,
    contract: InputContract,
    *,
    architecture: str,
    parameters: int,
    dim: int,
    framework_version: str,
    hyperparameters: Mapping[str, Any],
) -> dict[str, Any]:
    """Return a STAC item with the Machine Learning Model extension (v1.5).

    Args:
        card: name, licence, footprint and times.
        contract: bands, statistics and stored type.
        architecture: timm's name.
        parameters: number of weights.
        dim: width of the features.
        framework_version: torch's version.
        hyperparameters: the model's settings.
    """
    size = card.image_size
    names = list(contract.band_names)
    model_input = {
        "name": "image",
        "bands": names,
        "input": {
            "shape": [-1, len(names), size, size],
            "dim_order": ["batch", "channel", "height", "width"],
            "data_type": contract.dtype,
        },
        "description": "Stored values, before normalisation; sides may be other multiples of the "
        "patch.",
        "value_scaling": [
            {"type": "z-score", "mean": mean, "stddev": std}
            for mean, std in zip(contract.mean, contract.std, strict=True)
        ],
        "resize_type": None,
        "pre_processing_function": None,
    }
    output = {
        "name": "features",
        "tasks": TASKS,
        "result": {
            "shape": [-1, dim],
            "dim_order": ["batch", "feature"],
            "data_type": "float32",
        },
        "post_processing_function": None,
    }
    west, south, east, north = card.bbox or (0.0, 0.0, 0.0, 0.0)
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    item: dict[str, Any] = {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": [MLM_SCHEMA],
        "id": _identifier(card.name),
        "geometry": {"type": "Polygon", "coordinates": [ring]} if card.bbox else None,
    }
    if card.bbox:
        item["bbox"] = list(card.bbox)
    item["properties"] = {
        "title": card.name,
        "description": card.description,
        "license": "other" if card.effective_license not in PERMISSIVE else card.effective_license,
        **_times(card),
        "mlm:name": _identifier(card.name),
        "mlm:architecture": architecture,
        "mlm:tasks": TASKS,
        "mlm:framework": "pytorch",
        "mlm:framework_version": framework_version,
        "mlm:total_parameters": parameters,
        "mlm:pretrained": True,
        "mlm:pretrained_source": ", ".join(card.datasets) or card.data or "own tiles",
        "mlm:input": [model_input],
        "mlm:output": [output],
        "mlm:hyperparameters": dict(hyperparameters),
    }
    item["links"] = []
    item["assets"] = {"model": _asset(contract)}
    return item


def _asset(contract: InputContract) -> dict[str, Any]:
    bands = []
    for band in contract.bands:
        described: dict[str, Any] = {"name": band.name, "data_type": contract.dtype}
        if band.common_name is not None:
            described["eo:common_name"] = band.common_name
        if band.wavelength_nm is not None:
            described["eo:center_wavelength"] = band.wavelength_nm / 1000
        if band.unit != "unknown":
            described["unit"] = band.unit
        if (band.scale, band.offset) != (1.0, 0.0):
            described |= {"raster:scale": band.scale, "raster:offset": band.offset}
        bands.append(described)
    return {
        "href": "./model.safetensors",
        "title": "Weights, timm's parameter names",
        "type": "application/vnd.safetensors",
        "roles": ["mlm:model", "mlm:weights"],
        "mlm:artifact_type": "safetensors",
        "bands": bands,
    }


def _times(card: ModelCard) -> dict[str, str | None]:
    created = card.created or datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    if card.start_datetime and card.end_datetime:
        return {
            "datetime": None,
            "start_datetime": card.start_datetime,
            "end_datetime": card.end_datetime,
            "created": created,
        }
    return {"datetime": created, "created": created}


def _identifier(name: str) -> str:
    """Return ``name`` as MLM allows it: a letter, then letters, digits, ``_``, ``.`` and ``-``."""
    safe = re.sub(r"[^a-zA-Z0-9_.-]+", "-", name).strip("-_.")
    return safe if re.match(r"[a-zA-Z]", safe) and len(safe) > 2 else f"model-{safe or 'unnamed'}"
