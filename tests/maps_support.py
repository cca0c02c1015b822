"""Models whose answer is known, and rasters in memory, for tests of maps."""

import numpy as np
import torch
from affine import Affine

from geodino.geo.grid import Grid
from geodino.infer.chips import Raster

CPU = torch.device("cpu")


class Identity:
    """Gives every pixel its own values back."""

    def __init__(self, channels=2, stride=1, align=4):
        self.channels, self.stride, self.align, self.device = channels, stride, align, CPU
        self.batches = []

    def __call__(self, pixels, valid):
        self.batches.append(tuple(pixels.shape))
        values = pixels.float().where(valid[:, None], torch.tensor(0.0))
        return torch.nn.functional.avg_pool2d(values, self.stride) if self.stride > 1 else values


class Blur(Identity):
    """A convolution: translation-equivariant, with zeros beyond the edge of what it sees."""

    def __init__(self, reach, **options):
        super().__init__(channels=1, **options)
        generator = torch.Generator().manual_seed(1)
        self.kernel = torch.rand((1, 2, 2 * reach + 1, 2 * reach + 1), generator=generator) / 9
        self.reach = reach

    def __call__(self, pixels, valid):
        values = super().__call__(pixels, valid)
        return torch.nn.functional.conv2d(values, self.kernel, padding=self.reach)


class Dizzy(Identity):
    """Depends on everything in its chip, as a transformer does, and on the place in the batch."""

    def __call__(self, pixels, valid):
        values = super().__call__(pixels, valid)
        places = torch.arange(len(pixels))[:, None, None, None] * 1e-3
        rows = torch.linspace(0, 1, values.shape[2])[:, None]
        return values * (1 + places) + values.mean(dim=(1, 2, 3), keepdim=True) * rows


def picture(height, width, *, seed=0, holes=0.0):
    rng = np.random.default_rng(seed)
    pixels = rng.normal(size=(2, height, width)).astype(np.float32)
    valid = rng.random((height, width)) >= holes
    return pixels, valid


def raster_of(pixels, valid, block=(7, 9)):
    grid = Grid("EPSG:32618", Affine(1, 0, 0, 0, -1, 0), pixels.shape[2], pixels.shape[1])

    def read(window):
        rows, columns = window.slices
        assert window.bottom <= grid.height
        assert window.right <= grid.width
        return pixels[:, rows, columns], valid[rows, columns]

    return Raster(name="picture", grid=grid, read=read, block=block)
