"""What the release and transformers call the parts of a DPT head, and what we call them."""

from geodino.models.convert import Rule

_LAYER = r"(weight|bias)"

REFERENCE_DPT: tuple[Rule, ...] = (
    Rule(
        rf"reassemble_blocks\.readout_projects\.(\d)\.0\.{_LAYER}",
        (r"readout.\1.\2",),
    ),
    Rule(rf"reassemble_blocks\.projects\.(\d)\.conv\.{_LAYER}", (r"project.\1.\2",)),
    Rule(rf"reassemble_blocks\.resize_layers\.(\d)\.{_LAYER}", (r"resize.\1.\2",)),
    Rule(r"reassemble_blocks\.batchnorm_layers\.(\d)\.(\w+)", (r"norm.\1.\2",)),
    Rule(r"convs\.(\d)\.conv\.weight", (r"reduce.\1.weight",)),
    Rule(rf"fusion_blocks\.(\d)\.project\.conv\.{_LAYER}", (r"fuse.\1.project.\2",)),
    *(
        Rule(
            rf"fusion_blocks\.(\d)\.res_conv_unit{unit}\.conv{number}\.conv\.{_LAYER}",
            (rf"fuse.\1.{name}.{part}.\2",),
        )
        for unit, name in ((1, "skip"), (2, "unit"))
        for number, part in ((1, "first"), (2, "second"))
    ),
    Rule(rf"project\.conv\.{_LAYER}", (r"after.\1",)),
    Rule(rf"conv_depth\.head\.0\.{_LAYER}", (r"up.\1",)),
    Rule(rf"conv_depth\.head\.2\.{_LAYER}", (r"middle.\1",)),
    Rule(rf"conv_depth\.head\.4\.{_LAYER}", (r"out.\1",)),
)
"""From the release's DPT heads to ours."""

TRANSFORMERS_DPT: tuple[Rule, ...] = (
    Rule(rf"reassemble_stage\.readout_projects\.(\d)\.0\.{_LAYER}", (r"readout.\1.\2",)),
    Rule(rf"reassemble_stage\.layers\.(\d)\.projection\.{_LAYER}", (r"project.\1.\2",)),
    Rule(rf"reassemble_stage\.layers\.(\d)\.resize\.{_LAYER}", (r"resize.\1.\2",)),
    Rule(r"convs\.(\d)\.weight", (r"reduce.\1.weight",)),
    Rule(rf"fusion_layers\.(\d)\.projection\.{_LAYER}", (r"fuse.\1.project.\2",)),
    *(
        Rule(
            rf"fusion_layers\.(\d)\.residual_layer{unit}\.convolution{number}\.{_LAYER}",
            (rf"fuse.\1.{name}.{part}.\2",),
        )
        for unit, name in ((1, "skip"), (2, "unit"))
        for number, part in ((1, "first"), (2, "second"))
    ),
    Rule(rf"conv_depth\.head\.0\.{_LAYER}", (r"up.\1",)),
    Rule(rf"conv_depth\.head\.2\.{_LAYER}", (r"middle.\1",)),
    Rule(rf"conv_depth\.head\.4\.{_LAYER}", (r"out.\1",)),
)
"""From the head of transformers' ``CHMv2ForDepthEstimation`` to ours."""
