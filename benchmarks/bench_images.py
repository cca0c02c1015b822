"""Chips per CPU-second from folders of photographs: ours, torchvision's crops, the decoding limit.

Every case reads the same JPEGs. Ours hands out one chip a picture (shorter side fitted to the
chip, a random square of it), from which the device cuts all crops; it is asked for more pictures
than it keeps, so every one is decoded again. The peer decodes with Pillow and makes one
RandomResizedCrop of the chip's size a picture, as an ImageFolder for pretraining begins; a second
peer makes the paper's 2 + 8 crops on the CPU. The limit decodes every picture whole and throws it
away; with ``draft`` it decodes as small as the chip allows.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from _harness import interleave, main, ratio, table
from PIL import Image
from torch.utils.data import DataLoader

import geodino  # noqa: F401  (mends torchvision, which the peers import)
from geodino.data.config import DataConfig
from geodino.data.cuts import shapes_of
from geodino.data.fit import FittedReader
from geodino.data.images import image_index
from geodino.data.loader import Loader, LoaderConfig
from geodino.data.order import Order, OrderConfig
from geodino.data.tiles import TileReader
from geodino.io.image_key import ImageKey
from geodino.io.images import read_image
from geodino.io.raster import HandlePool

BATCH = 16
SIZES = {"web, about 0.2 MP": ((375, 500), 256), "photos, 2 MP": ((1200, 1800), 512)}
"""Height and width of the pictures, and the chip."""


def run(rounds: int = 5, small: bool = False) -> dict:
    """Compare on pictures as ImageNet has them, and on larger ones; ``small`` takes few."""
    result: dict = {"tables": []}
    for name, (size, chip) in SIZES.items():
        count = BATCH if small else 128 if size[0] < 1000 else 48
        with tempfile.TemporaryDirectory() as folder:
            files = write(Path(folder) / "pictures" / "class", size, count)
            check(files, chip)
            case, text = compare(Path(folder) / "pictures", files, chip, rounds)
        result[name] = case
        result["tables"].append(f"{name}\n{text}")
    return result


def compare(root: Path, files: list[Path], chip: int, rounds: int) -> tuple[dict, str]:
    """Time all cases on one folder."""
    count = len(files)
    with HandlePool() as pool, loader(root, chip, pool) as batches:
        steps = iter(range(0, 10**9, count // BATCH))

        def ours() -> None:
            first = next(steps)
            for _ in batches.batches(first, first + count // BATCH):
                pass

        cases = {
            "ours, chips": ours,
            "torchvision, one crop": folder_of(root, one_crop(chip)),
            "torchvision, 2 + 8 crops": folder_of(root, ten_crops()),
            "decode, draft": lambda: decode(files, chip),
            "decode, whole": lambda: decode(files, None),
        }
        timings = interleave(cases, rounds)
    text = table("", timings, work=count, unit="pictures", ours="ours, chips").strip()
    gains = {name: ratio(timings, name, "ours, chips") for name in cases}
    return {"timings": timings, "ours_faster_by": gains}, text


def loader(root: Path, chip: int, pool: HandlePool) -> Loader:
    """Our loader over a folder; nothing is kept, as of an archive larger than memory."""
    index = image_index(root, DataConfig(kind="images"), threads=1)
    config = OrderConfig(
        seed=0, batch=BATCH, chip=chip, super_window=1024, chips_per_window=16, budget_bytes=1
    )
    reader = FittedReader(index, TileReader(index, pool), chip)
    settings = LoaderConfig(min_valid=0.5, threads=2, prefetch=2)
    return Loader(Order(shapes_of(index, chip=chip), config), reader, settings)


def one_crop(size: int) -> Callable[[Image.Image], torch.Tensor]:
    """The usual first transform: one crop of the chip's size."""
    from torchvision.transforms import v2

    bicubic = v2.InterpolationMode.BICUBIC
    crop = v2.RandomResizedCrop(size, scale=(0.32, 1.0), interpolation=bicubic, antialias=True)
    return v2.Compose([crop, v2.PILToTensor()])


def ten_crops() -> Callable[[Image.Image], torch.Tensor]:
    """All crops of a sample, made on the CPU, without their distortions."""
    from torchvision.transforms import v2

    bicubic = v2.InterpolationMode.BICUBIC
    large = v2.RandomResizedCrop(256, scale=(0.32, 1.0), interpolation=bicubic, antialias=True)
    little = v2.RandomResizedCrop(112, scale=(0.05, 0.32), interpolation=bicubic, antialias=True)
    tensor = v2.PILToTensor()

    def crops(image: Image.Image) -> torch.Tensor:
        made = [tensor(large(image)) for _ in range(2)] + [tensor(little(image)) for _ in range(8)]
        return torch.cat([crop.flatten() for crop in made])

    return crops


def folder_of(root: Path, transform: Callable) -> Callable[[], None]:
    """torchvision's ImageFolder over the same files."""
    import torchvision

    dataset = torchvision.datasets.ImageFolder(str(root), transform=transform)

    def epoch() -> None:
        for _ in DataLoader(dataset, batch_size=BATCH, shuffle=True, drop_last=True):
            pass

    return epoch


def decode(files: list[Path], chip: int | None) -> None:
    """Decode every picture and throw it away."""
    for path in files:
        with Image.open(path) as image:
            if chip is not None:
                image.draft("RGB", (chip, chip))
            image.load()


def check(files: list[Path], chip: int) -> None:
    """A fitted picture is what Pillow makes of the whole file, but for the rounding of draft."""
    with Image.open(files[0]) as image:
        scale = chip / min(image.size)
        width, height = (round(side * scale) for side in image.size)
        expected = np.asarray(image.resize((width, height), Image.Resampling.BICUBIC)).astype(int)
    pixels, _ = read_image(ImageKey(str(files[0])), size=(height, width))
    assert np.abs(pixels.transpose(1, 2, 0) - expected).mean() < 0.1 * expected.std()


def write(folder: Path, size: tuple[int, int], count: int) -> list[Path]:
    """Write JPEGs with a falling spectrum and edges, at the quality that most of the web has."""
    folder.mkdir(parents=True)
    height, width = size
    random = np.random.default_rng(0)
    side = max(size)
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None, :])
    frequency[0, 0] = 1
    files = []
    for number in range(count):
        noise = np.fft.rfft2(random.normal(size=(side, side))) / frequency
        base = np.fft.irfft2(noise, (side, side))[:height, :width]
        base = 128 + 45 * (base - base.mean()) / base.std()
        tint = random.normal(scale=25, size=(-(-height // 50), -(-width // 50), 3))
        colour = base[..., None] + tint.repeat(50, 0).repeat(50, 1)[:height, :width]
        files.append(folder / f"{number:04d}.jpg")
        Image.fromarray(colour.clip(0, 255).astype(np.uint8)).save(files[-1], quality=85)
    return files


if __name__ == "__main__":
    main(run)
