"""A small labelled set of pictures whose classes are colours, and runs that learn them."""

import numpy as np
import pandas as pd
import yaml
from PIL import Image

from geodino.runs.finetune import FinetuneJob, finetune

COLOURS = {"grass": (60, 160, 60), "sand": (200, 180, 120), "water": (30, 60, 150)}


def picture(colour, number, *, side=16):
    noise = np.random.default_rng(number).normal(0, 25, size=(side, side, 3))
    return np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)


def write_folders(root, *, each=10, side=16):
    """A folder a class."""
    for start, (name, colour) in enumerate(COLOURS.items()):
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(each):
            shown = picture(colour, 100 * start + number, side=side)
            Image.fromarray(shown).save(root / name / f"{number}.png")
    return root


def write_table(root, *, each=10):
    """Pictures of one or two colours, left and right, with both as labels."""
    root.mkdir(parents=True, exist_ok=True)
    names, rows = list(COLOURS), []
    for number in range(3 * each):
        one, other = names[number % 3], names[(number // 3) % 3]
        shown = picture(COLOURS[one], number)
        shown[:, 8:] = picture(COLOURS[other], 1000 + number)[:, 8:]
        Image.fromarray(shown).save(root / f"{number}.png")
        split = ("train", "train", "train", "val", "test")[number % 5]
        rows.append((f"{number}.png", ";".join(sorted({one, other})), split))
    pd.DataFrame(rows, columns=["path", "label", "split"]).to_csv(root / "labels.csv", index=False)
    described = {"kind": "multilabel", "classes": names, "table": "labels.csv"}
    (root / "dataset.yaml").write_text(yaml.safe_dump(described))
    return root


def run(images, model, out, *overrides, resume=False, **more):
    return finetune(
        FinetuneJob(
            task="classification",
            images=str(images),
            model=None if model is None else str(model),
            out=out,
            recipe=None if resume else "debug-classification",
            overrides=() if resume else overrides,
            device="cpu",
            resume=resume,
            quiet=True,
            **more,
        )
    )
