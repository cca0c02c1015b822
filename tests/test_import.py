"""The door is light: neither the import nor --help loads torch; torchvision works afterwards."""

import subprocess
import sys

import pytest


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_importing_geodino_loads_no_torch():
    done = python("import sys, geodino; assert 'torch' not in sys.modules, 'torch was loaded'")
    assert done.returncode == 0, done.stderr


def test_help_loads_no_torch():
    code = (
        "import sys\nfrom geodino.cli.main import app\n"
        "try:\n    app(['--help'])\nexcept SystemExit as end:\n    assert end.code == 0\n"
        "assert 'torch' not in sys.modules, 'torch was loaded'"
    )
    done = python(code)
    assert done.returncode == 0, done.stderr
    assert "pretrain" in done.stdout


@pytest.mark.parametrize("library", ["timm", "lightning", "torchvision.transforms.v2"])
def test_libraries_that_need_torchvision_import_after_geodino(library):
    done = python(f"import geodino, importlib; importlib.import_module({library!r})")
    assert done.returncode == 0, done.stderr


def test_asking_where_torchvision_is_does_not_use_the_hook_up():
    done = python(
        "import geodino, importlib.util\n"
        "assert importlib.util.find_spec('torchvision') is not None\n"
        "import torchvision.ops"
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("package", ["torchvision", "xarray"])
def test_a_package_that_is_hooked_still_gives_away_its_files(package):
    done = python(
        f"import geodino, pkgutil\nassert pkgutil.get_data({package!r}, '__init__.py') is not None"
    )
    assert done.returncode == 0, done.stderr


def test_a_torchvision_operator_that_did_not_load_says_so_when_called():
    code = (
        "import geodino, torch, torchvision\n"
        "boxes, scores = torch.zeros(1, 4), torch.zeros(1)\n"
        "if torchvision.extension._has_ops():\n"
        "    print(torchvision.ops.nms(boxes, scores, 0.5))\n"
        "else:\n"
        "    try:\n        torchvision.ops.nms(boxes, scores, 0.5)\n"
        "    except RuntimeError as error:\n        print('refused', error)"
    )
    done = python(code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(("refused", "tensor"))


def test_an_unknown_name_is_an_attribute_error():
    done = python("import geodino; geodino.nothing")
    assert "has no attribute 'nothing'" in done.stderr
