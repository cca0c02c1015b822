"""``geodino finetune canopy --recipe recalibrate``: no network learns, heights go through a curve.

The job is looked up in its own module: recipes of all kinds know the config of this one, and the job
knows recipes.
"""
