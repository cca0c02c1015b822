"""``geodino predict``: maps of rasters from a model with a task, as COG, zarr or DataArray."""

from geodino.runs.predict.job import PredictJob
from geodino.runs.predict.run import predict

__all__ = ["PredictJob", "predict"]
