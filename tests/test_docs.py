"""Every code block of the documentation runs, in order, page by page; or says why it does not."""

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from process_support import run_geodino, run_python

from geodino.data.labelled.yaml_config import LabelledConfig
from geodino.data.sources.descriptor import Descriptor
from geodino.runs.recipe import load_any_recipe

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(
    r"(?:<!-- not run: (?P<why>[^>]+) -->\n)?^```(?P<lang>\w*)\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


QUOTED = re.compile(r"'[^']*'|\"[^\"$`]*\"")
SHELL = re.compile(r"[|&;<>()$`*?~\[\]{}]")


@dataclass(frozen=True)
class Block:
    language: str
    code: str
    line: int
    why_not: str | None


def blocks(page):
    text = page.read_text(encoding="utf-8")
    return [
        Block(m["lang"], m["code"], text[: m.start()].count("\n") + 1, m["why"])
        for m in BLOCK.finditer(text)
    ]


@pytest.fixture(scope="session")
def world_cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def run(code, language, folder, cache):
    """Run a block as a reader would: commands one after the other, or a script."""
    env = {"GEODINO_CACHE": str(cache)}
    if language == "python":
        works(code, run_python(code, cwd=folder, env=env))
        return
    for line in code.splitlines():
        command = line.split("  #")[0].strip()
        if command:
            program, *arguments = shlex.split(command)
            assert program == "geodino", line
            assert not SHELL.search(QUOTED.sub("", command)), f"needs a shell: {line}"
            works(line, run_geodino(*arguments, cwd=folder, env=env))


def works(code, done):
    assert done.returncode == 0, f"{code}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"


GO_ON = {"features": ("canopy", "maps")}
"""Pages that begin with what another one made, in the same folder."""

LATER = {name for names in GO_ON.values() for name in names}


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.stem not in LATER], ids=lambda page: page.stem
)
def test_every_block_of_a_page_does_what_the_page_says(page, tmp_path, world_cache):
    for name in (page.stem, *GO_ON.get(page.stem, ())):
        follow(page.with_stem(name), tmp_path, world_cache)


def follow(page, tmp_path, world_cache):
    """Run the blocks of a page in a folder."""
    for block in blocks(page):
        if block.why_not is not None:
            continue
        if block.language == "yaml":
            values = yaml.safe_load(block.code)
            if "files" in values:
                Descriptor.parse(values, source=f"{page.name}:{block.line}")
            elif "table" in values or "images" in values:
                LabelledConfig.parse(values, source=f"{page.name}:{block.line}")
            else:
                recipe = tmp_path / "recipe.yaml"
                recipe.write_text(block.code)
                load_any_recipe(str(recipe))
        else:
            assert block.language in ("", "python"), f"{page.name}:{block.line}"
            run(block.code, block.language, tmp_path, world_cache)


def test_the_pages_hold_blocks_that_run_and_reasons_that_say_something():
    found = [block for page in PAGES for block in blocks(page)]
    assert sum(block.why_not is None for block in found) >= 12
    assert all(len(block.why_not) > 10 for block in found if block.why_not is not None)
    fences = sum(page.read_text().count("\n```") for page in PAGES)
    assert fences == 2 * len(found)


def test_every_page_is_in_the_navigation_and_the_site_builds_strictly(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", str(tmp_path / "site")],
        cwd=ROOT, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    names = {page.stem for page in PAGES[1:]}
    built = {p.parent.name for p in (tmp_path / "site").glob("*/index.html")} | {"index"}
    assert names <= built
