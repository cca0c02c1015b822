"""``geodino predict``: maps of rasters, or objects in them, from a model with a head."""

from geodino.runs.predict.base import MapTask, Task
from geodino.runs.predict.image import predict_image
from geodino.runs.predict.job import PredictJob
from geodino.runs.predict.run import predict
from geodino.runs.predict.task import open_task, task_within

__all__ = ["MapTask", "PredictJob", "Task", "open_task", "predict", "predict_image", "task_within"]
