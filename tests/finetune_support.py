"""What runs of every task are asked in their tests: stopped and gone on, handed on in other forms."""

import json

import numpy as np
import pytest
import torch

from geodino.runs.export import export_model
from geodino.runs.finetune.recorder import FinetuneRecorder


class Killed(BaseException):
    """What stops a run as nothing it expects would."""


def stopped_after(step, attempt):
    """Run ``attempt`` until it has saved ``step``, and no further."""
    keep = FinetuneRecorder.keep

    def kill(self, trainer, module):
        keep(self, trainer, module)
        if trainer.global_step == step:
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FinetuneRecorder, "keep", kill)
        with pytest.raises(Killed):
            attempt()


def assert_same_weights(one, other):
    """Two modules hold the same numbers, to the bit."""
    theirs = other.state_dict()
    for name, value in one.state_dict().items():
        assert torch.equal(value, theirs[name]), name


def assert_handed_on(out, spare, *, load, side, files, said, classes):
    """Whole, as a backbone and as a graph, the model of a run is the same one.

    Args:
        out: the run.
        spare: a folder to write to.
        load: opens its model folder.
        side: of the image both are asked about, pixels.
        files: how the names of its head's files begin.
        said: what the page of the model says.
        classes: names of its classes.
    """
    ours = load(out / "model")
    image = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(1)) * 255
    with torch.no_grad():
        expected = ours.model.probabilities(image)
    export_model(out, to="hub")
    theirs = load(out / "hub")
    with torch.no_grad():
        torch.testing.assert_close(theirs.model.probabilities(image), expected, rtol=0, atol=0)
    assert said in (out / "hub/README.md").read_text()
    export_model(out, to="timm", out=spare / "backbone")
    assert not list((spare / "backbone").glob(f"{files}*"))
    pytest.importorskip("onnxscript", reason="the extra onnx is not installed")
    runtime = pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    export_model(out, to="onnx")
    session = runtime.InferenceSession(out / "model.onnx")
    (found,) = session.run(["probabilities"], {"image": image.numpy()})
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-4)
    told = session.get_modelmeta().custom_metadata_map
    assert json.loads(told["classes"]) == list(classes)
