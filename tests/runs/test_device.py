"""Memory that a CPU run frees stays with the process."""

import platform

import pytest
from process_support import run_python

COUNT_FAULTS = """
import resource, torch
from geodino.runs.device import keep_freed_memory
assert not {keep} or keep_freed_memory()
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(16 << 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(sum([faults() for _ in range(60)][-20:]))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be asked to")
def test_kept_memory_is_not_cleared_again_by_the_kernel():
    done = [run_python(COUNT_FAULTS.format(keep=keep)) for keep in (False, True)]
    again = [int(process.stdout) for process in done]
    assert again[0] > 20_000  # twenty times 64 MiB, in pages of 4 KiB
    assert again[1] < again[0] / 10
