"""``geodino evaluate``: probes on frozen features over a suite of labelled sets, beside floors."""

from geodino.runs.evaluate.job import EvaluateJob
from geodino.runs.evaluate.run import evaluate

__all__ = ["EvaluateJob", "evaluate"]
