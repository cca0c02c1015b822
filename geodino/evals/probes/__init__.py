"""Probes on frozen features: what a simple reader can make of them, beside what needs no image.

Each probe works on plain arrays and returns one :class:`~geodino.evals.probes.prediction.Prediction`
about the test rows. Whatever it chooses, it chooses on the validation part, or on a share of the
training part held out by a passed generator; never on the test rows.

Import a probe from its own module; ``table`` lists them all.
"""
