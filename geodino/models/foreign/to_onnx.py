"""A backbone as an ONNX file: stored values in, features out, for any batch and size."""

import json
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from geodino.errors import RunError
from geodino.files import writing
from geodino.geo.contract import InputContract
from geodino.models.backbone import Backbone
from geodino.models.card import VERSION, ModelCard

TOLERANCE = 1e-4
"""Largest difference to torch, as a share of the largest feature (or of 1)."""

_LARGEST_FILE = 1_800_000_000
"""Bytes of weights above which they go beside the graph: protobuf ends at 2 GiB."""

_MOST_PATCHES = 4096
"""Patches along a side that the exported graph is checked for by the exporter."""


class _Features(nn.Module):
    """CLS token and patch map of stored values."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        tokens = self.backbone.tokens(image)
        return tokens.cls, tokens.map


def save_onnx(
    path: Path, *, backbone: Backbone, contract: InputContract, card: ModelCard
) -> dict[str, float]:
    """Write a backbone as an ONNX file and compare it with torch at two sizes.

    The graph's input ``image [batch, bands, height, width]`` holds stored values as float32, sides
    multiples of the patch; normalisation and rotary positions are inside. Its outputs are ``cls
    [batch, dim]`` and ``map [batch, dim, height / patch, width / patch]``. Weights of more than
    1.8 GB lie in ``FILE.data`` beside it. The file's metadata hold the contract.

    Args:
        path: the file, replaced if it is there.
        backbone: on the CPU.
        contract: of its input.
        card: what is said about it.

    Returns:
        Largest difference to torch by size, such as ``{"48x80": 2e-6}``.

    Raises:
        RunError: a library is missing, the file cannot be written, or it computes something else.
    """
    require()
    module = _Features(backbone.eval()).eval()
    program = _program(module, backbone)
    program.model.metadata_props.update(metadata(backbone, contract, card))
    patch = backbone.patch_size
    sizes = [(n, rows * patch, columns * patch) for n, rows, columns in ((1, 3, 5), (3, 8, 4))]
    return write_program(path, program, module=module, backbone=backbone, sizes=sizes)


def write_program(
    path: Path,
    program: Any,
    *,
    module: nn.Module,
    backbone: Backbone,
    sizes: Sequence[tuple[int, int, int]],
) -> dict[str, float]:
    """Write a graph whose only input is ``image``, if it computes what the module does.

    Args:
        path: the file, replaced if it is there.
        program: what torch's exporter made.
        module: what it was made of; it gives a tuple of tensors.
        backbone: whose values are stood in for.
        sizes: images, rows and columns it is tried at.

    Returns:
        Largest difference to torch by size.

    Raises:
        RunError: the file cannot be written, or it computes something else.
    """
    size = sum(p.numel() * p.element_size() for p in module.parameters())
    path.parent.mkdir(parents=True, exist_ok=True)
    with writing(path), tempfile.TemporaryDirectory(dir=path.parent, prefix=".onnx-") as folder:
        made = Path(folder) / path.name
        program.save(str(made), external_data=size > _LARGEST_FILE)
        differences = _compare(made, module, backbone, sizes)
        for part in sorted(Path(folder).iterdir(), key=lambda p: p.suffix != ".data"):
            part.replace(path.parent / part.name)
    return differences


def require() -> None:
    """Refuse to begin without the libraries.

    Raises:
        RunError: naming the one that is missing.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise RunError(
            f"--to onnx needs the package {error.name}: `pip install geodino[onnx]`."
        ) from None


def _program(module: nn.Module, backbone: Backbone) -> Any:
    patch = backbone.patch_size
    # Two different sides, so that the exporter cannot take them for one.
    example = torch.zeros(2, backbone.bands, 4 * patch, 6 * patch)
    dims = {
        0: torch.export.Dim("batch"),
        2: patch * torch.export.Dim("rows", min=1, max=_MOST_PATCHES),
        3: patch * torch.export.Dim("columns", min=1, max=_MOST_PATCHES),
    }
    with torch.no_grad(), warnings.catch_warnings():
        # torch's exporter warns about its own use of torch.
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.onnx.export(
            module,
            (example,),
            dynamo=True,
            dynamic_shapes=(dims,),
            input_names=["image"],
            output_names=["cls", "map"],
            verbose=False,
        )


def metadata(backbone: Backbone, contract: InputContract, card: ModelCard) -> Mapping[str, str]:
    """What a program that opens the file should know; ONNX metadata are all text."""
    facts: dict[str, Any] = {
        "geodino_version": VERSION,
        "name": card.name,
        "license": card.effective_license,
        "lineage": [parent.model_dump(mode="json") for parent in card.lineage],
        "architecture": backbone.config.name,
        "patch_size": backbone.patch_size,
        "dimensions": backbone.dim,
        "bands": list(contract.band_names),
        "dtype": contract.dtype,
        "mean": list(contract.mean),
        "std": list(contract.std),
        "gsd_m": contract.gsd_m,
        "normalisation": "inside the graph: feed stored values as float32",
        "contract": contract.model_dump(mode="json"),
    }
    return {k: v if isinstance(v, str) else json.dumps(v) for k, v in facts.items()}


def _compare(
    path: Path, module: nn.Module, backbone: Backbone, sizes: Sequence[tuple[int, int, int]]
) -> dict[str, float]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    generator = torch.Generator().manual_seed(0)
    differences = {}
    for images, height, width in sizes:
        noise = torch.randn((images, backbone.bands, height, width), generator=generator)
        image = noise * backbone.std + backbone.mean
        with torch.no_grad():
            expected = module(image)
        found = session.run(None, {"image": image.numpy()})
        worst = 0.0
        for ours, theirs in zip(expected, found, strict=True):
            scale = max(1.0, float(ours.abs().max()))
            worst = max(worst, float((ours - torch.from_numpy(theirs)).abs().max()) / scale)
        if not worst <= TOLERANCE:
            raise RunError(
                f"{path.name} computes other values than torch at {height} x {width} pixels "
                f"(difference {worst:.2g}): it was not kept. Other versions of onnx and "
                "onnxruntime may do better; constraints.txt names tested ones."
            )
        differences[f"{height}x{width}"] = worst
    return differences
