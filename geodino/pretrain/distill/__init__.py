"""Distillation: one frozen teacher, several students, one pass of the teacher a step."""
