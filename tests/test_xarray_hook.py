"""The accessor is there whichever package is imported first, and costs nothing until it is used."""

import subprocess
import sys

import pytest


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "imports",
    ["import geodino, xarray", "import xarray, geodino", "import xarray.core.dataarray, geodino",
     "import geodino, importlib.util; importlib.util.find_spec('xarray'); import xarray"],
)  # fmt: skip
def test_the_accessor_is_there_in_any_order_and_loads_no_torch(imports):
    done = python(
        f"import sys, warnings\nwarnings.simplefilter('error')\n{imports}\n"
        "assert hasattr(xarray.DataArray, 'geodino')\nassert 'torch' not in sys.modules"
    )
    assert done.returncode == 0, done.stderr


def test_importing_geodino_loads_no_xarray():
    done = python("import sys, geodino; assert 'xarray' not in sys.modules")
    assert done.returncode == 0, done.stderr


def test_reloading_registers_once():
    done = python(
        "import warnings; warnings.simplefilter('error')\n"
        "import geodino, xarray\nfrom geodino import xarray_hook\nxarray_hook.install()"
    )
    assert done.returncode == 0, done.stderr
