"""Makers of benchmark files in their publishers' layouts, tiny and with known values."""

import io
import json
import pickle
import struct
import sys
import types
from contextlib import contextmanager

import affine
import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import rasterio
import rasterio.crs
from rasterio.io import MemoryFile

S2 = (
    "01 - Coastal aerosol", "02 - Blue", "03 - Green", "04 - Red", "05 - Vegetation Red Edge",
    "06 - Vegetation Red Edge", "07 - Vegetation Red Edge", "08 - NIR",
    "08A - Vegetation Red Edge", "09 - Water vapour", "11 - SWIR", "12 - SWIR",
)  # fmt: skip
"""Band names of a Sentinel-2 data set of GEO-Bench v1."""


@contextmanager
def geobench_classes(*names):
    """Classes that pickle as geobench's own; afterwards no module of that name is left."""
    module = types.ModuleType("geobench.dataset")
    made = {}
    for name in names:
        made[name] = type(name, (), {"__module__": "geobench.dataset", "__qualname__": name})
        setattr(module, name, made[name])
    sys.modules["geobench"] = types.ModuleType("geobench")
    sys.modules["geobench.dataset"] = module
    try:
        yield made
    finally:
        del sys.modules["geobench"], sys.modules["geobench.dataset"]


def _object(cls, **attributes):
    made = cls()
    made.__dict__.update(attributes)
    return made


def geobench_sample(path, bands, label, *, date=None, protocol=4, place=True, extra=None):
    """One sample: ``bands`` maps names to arrays; ``label`` is a value, or an array of classes."""
    with geobench_classes("BandInfo") as classes, h5py.File(path, "w") as file:
        values = {"bands_order": []}
        suffix = "" if date is None else f"_{date.isoformat()}"
        for name, pixels in bands.items():
            file.create_dataset(name + suffix, data=pixels)
            values["bands_order"].append(name + suffix)
            values[name + suffix] = {
                "band_info": _object(classes["BandInfo"], name=name, wavelength=0.5),
                "date": date,
                "transform": affine.Affine(10.0, 0.0, 600_000.0, 0.0, -10.0, 5_400_000.0)
                if place
                else None,
                "crs": rasterio.crs.CRS.from_epsg(32632) if place else None,
            }
        if isinstance(label, np.ndarray) and label.ndim == 2:
            file.create_dataset("label", data=label)
            values["label"] = {"band_info": _object(classes["BandInfo"], name="label")}
        else:
            values["label"] = label
        values.update(extra or {})
        file.attrs["pickle"] = str(pickle.dumps(values, protocol))


def make_geobench(
    root, name="m-eurosat", *, kind="classification", classes=3, bands=S2[1:4], side=8,
    counts=(6, 3, 3), dtype="uint16", seed=0, date=None, protocol=4, class_names=None, spread=0.0,
):  # fmt: skip
    """Make ``root/<kind>_v1.0/<name>``; the image tells its class, all files of a set are there.

    Classification: pixels are 100 times the class, plus the number of the band. Multilabel: bit
    ``k`` of the image's number tells class ``k``. Segmentation: quarters of the map differ.
    """
    family = "segmentation_v1.0" if kind == "segmentation" else "classification_v1.0"
    folder = root / family / name
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    parts, number = {}, 0
    label_map = {}
    for part, count in zip(("train", "valid", "test"), counts, strict=True):
        parts[part] = []
        for _ in range(count):
            key = f"id_{number:04d}"
            if kind == "segmentation":
                label = np.zeros((side, side), dtype="uint8")
                label[: side // 2, side // 2 :] = 1 % classes
                label[side // 2 :] = number % classes
                base = label * 100.0
            elif kind == "multilabel":
                label = np.array([(number >> k) & 1 for k in range(classes)])
                base = np.full((side, side), 10.0 * number)
            else:
                label = number % classes
                label_map.setdefault(str(label), []).append(key)
                base = np.full((side, side), 100.0 * label)
            noise = rng.normal(size=(len(bands), side, side)) * spread
            pixels = {
                band: (base + i + noise[i]).clip(0).astype(dtype) for i, band in enumerate(bands)
            }
            geobench_sample(folder / f"{key}.hdf5", pixels, label, date=date, protocol=protocol)
            parts[part].append(key)
            number += 1
    (folder / "default_partition.json").write_text(json.dumps(parts))
    few = {**parts, "train": parts["train"][:2]}
    (folder / "0.01x_train_partition.json").write_text(json.dumps(few))
    (folder / "label_map.json").write_text(json.dumps(label_map))
    (folder / "label_stats.json").write_text("{}")
    stats = {
        band: {"min": 0.0, "max": 1000.0 + i, "mean": 100.0 + i, "std": 50.0, "median": 1.0}
        for i, band in enumerate(bands)
    }
    (folder / "band_stats.json").write_text(json.dumps(stats))
    names = class_names or [f"kind {i}" for i in range(classes)]
    with geobench_classes("TaskSpecifications", "Classification", "Accuracy") as made:
        label_type = _object(made["Classification"], n_classes=classes, class_names=names)
        task = _object(
            made["TaskSpecifications"], dataset_name=name, label_type=label_type,
            eval_loss=made["Accuracy"],
        )  # fmt: skip
        (folder / "task_specs.pkl").write_bytes(pickle.dumps(task, protocol))
    return folder


def geotiff(pixels, *, crs="EPSG:32632", transform=None, nodata=None, descriptions=None):
    """The bytes of a GeoTIFF of ``[c, h, w]``."""
    count, height, width = pixels.shape
    transform = transform or affine.Affine(10.0, 0.0, 600_000.0, 0.0, -10.0, 5_400_000.0)
    with MemoryFile() as memory:
        with memory.open(
            driver="GTiff", dtype=pixels.dtype, count=count, height=height, width=width,
            crs=crs, transform=transform, nodata=nodata,
        ) as file:  # fmt: skip
            file.write(pixels)
            for i, text in enumerate(descriptions or ()):
                file.set_band_description(i + 1, text)
        return memory.read()


def hdf5(datasets, *, attributes=None):
    """The bytes of an HDF5 file of arrays by name."""
    memory = io.BytesIO()
    with h5py.File(memory, "w") as file:
        for name, values in datasets.items():
            file.create_dataset(name, data=values)
        file.attrs.update(attributes or {})
    return memory.getvalue()


def tortilla(rows):
    """The bytes of a tortilla: each row is (id, format, content, columns)."""
    body, table, offset = b"", [], 200
    for name, kind, content, columns in rows:
        table.append(
            {
                "tortilla:id": name, "tortilla:file_format": kind, "tortilla:offset": offset,
                "tortilla:length": len(content), **columns,
            }
        )  # fmt: skip
        body += content
        offset += len(content)
    footer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(table), footer)
    content = footer.getvalue()
    head = b"#y" + struct.pack("<QQ", offset, len(content)) + b"\x01"
    return head.ljust(200, b"\0") + body + content


def make_tortilla(path, samples):
    """A data set: each sample is (id, split, columns, rows of its own tortilla)."""
    outer = [
        (name, "TORTILLA", tortilla(rows), {"tortilla:data_split": split, **columns})
        for name, split, columns, rows in samples
    ]
    path.write_bytes(tortilla(outer))
    return path


def write_tif(path, pixels, **kwargs):
    """A GeoTIFF file of ``[c, h, w]``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(geotiff(pixels, **kwargs))
    return path


def shape_of(path):
    with rasterio.open(path) as file:
        return file.shape
