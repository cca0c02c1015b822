"""The job: find the sets, say what is missing, measure what is there, write tables and a page."""

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import shapely

from geodino import __version__
from geodino.data.index import load_index
from geodino.data.labelled.open import SetOpener, open_sets
from geodino.data.labelled.sets import LabelledSet, Missing
from geodino.data.parallel import thread_count
from geodino.errors import GeodinoError, RunError, SourceError
from geodino.evals.alarms import alarms
from geodino.evals.leaks import leaks
from geodino.evals.protocols import protocol_named
from geodino.evals.results import SetResult
from geodino.evals.runner import Judge, Settings, evaluate_set
from geodino.evals.tables import as_csv, as_json, read_rows, write_predictions
from geodino.files import write_json, write_text, write_with
from geodino.geo.outlines import outlines
from geodino.runs.device import choose_device
from geodino.runs.evaluate.job import EvaluateJob
from geodino.runs.evaluate.page import write_page
from geodino.runs.evaluate.words import card_text, missing_words, set_words
from geodino.runs.models import OpenedModel, open_model
from geodino.runs.progress import StagedProgress
from geodino.runs.record import RunLog, environment

RESULTS, TABLE, SETS = "results.json", "results.csv", "sets"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Done:
    """The sets of a suite that were measured, and why others were not."""

    sets: list[dict[str, Any]]
    failed: list[dict[str, str]]


def evaluate(job: EvaluateJob) -> dict[str, Any]:
    """Measure a model on the sets of a suite that are here.

    Returns:
        ``rows`` (torchgeo-bench's columns), ``alarms``, ``missing``, ``failed`` and ``out``.

    Raises:
        GeodinoError: nothing could be measured, or a mistake that concerns all sets.
    """
    device = choose_device(job.device)
    protocol = protocol_named(job.protocol)
    log = RunLog(None, quiet=job.quiet)
    found, missing = open_sets(job.suite, job.data, partition=job.partition)
    if not found and not job.dry_run:
        said = " ".join(missing_words(missing))
        raise SourceError(f"Nothing of {job.suite} can be measured here. {said}")
    # A table that cannot be read is said now, not after everything was measured.
    published = None if job.reference is None else read_rows(job.reference)
    opened = open_model(job.model)
    log.say(card_text(job, protocol, opened, [one.name for one in found], missing, device))
    if job.dry_run:
        return _facts(job, _Done(sets=[], failed=[]), missing)
    _claim(job)
    settings = Settings(
        protocol=protocol,
        bands=job.bands or protocol.bands,
        probes=job.probes,
        features=job.features,
        image_size=job.image_size,
        seed=job.seed,
        seeds=job.seeds,
        resamples=job.resamples,
        batch=job.batch or 64,
        threads=thread_count("auto"),
        device=device,
        by=job.by,
        cache=job.cache or job.out / "cache",
    )
    judge = Judge(loaded=opened.loaded, name=opened.name, sha256=opened.sha256)
    _refuse_mixture(job, judge, settings)
    done = _measured(job, found, judge, settings, _ground(job, opened, log), log)
    facts = _facts(job, done, missing)
    if not done.sets:
        raise SourceError(
            f"No set of {job.suite} could be measured. "
            + " ".join(f"{f['name']}: {f['reason']}" for f in done.failed[:3])
        )
    rows = [row for one in done.sets for row in (*one["rows"], *one["repeats"])]
    write_text(job.out / TABLE, as_csv(rows))
    write_json(job.out / RESULTS, {**facts, "rows": rows, "environment": environment()})
    page = write_page(job, done.sets, facts, published)
    log.say(f"The tables are {job.out / TABLE} and {job.out / RESULTS}, the page is {page}.")
    return {**facts, "rows": rows, "report": str(page)}


def _claim(job: EvaluateJob) -> None:
    """Refuse to mix two evaluations.

    Raises:
        RunError: results lie there already.
    """
    if job.out.exists() and not job.out.is_dir():
        raise RunError(f"{job.out} is a file: --out names a folder.")
    if not job.resume and ((job.out / RESULTS).exists() or (job.out / SETS).exists()):
        raise RunError(
            f"{job.out} holds results: nothing was changed. Choose another --out, or add --resume "
            "to go on with the sets that are left."
        )
    try:
        job.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(
            f"{job.out} cannot be created ({error.strerror}). Choose another --out."
        ) from error


def _refuse_mixture(job: EvaluateJob, judge: Judge, settings: Settings) -> None:
    """Refuse to put results beside those of another model, or measured in another way.

    Other probes, features and seeds may be asked for: they replace what was measured.

    Raises:
        RunError: results of another kind lie there.
    """
    now = _settings_key(judge, settings)
    for path in sorted((job.out / SETS).glob("*/result.json")):
        before = _result(path).get("key", {})
        for name in ("model", "protocol", "bands", "image_size"):
            if name in before and before[name] != now[name]:
                was, is_now = before[name], now[name]
                if name == "model":
                    was, is_now = f"weights {was[:8]}", f"weights {is_now[:8]}"
                raise RunError(
                    f"{job.out} holds results of another {name.replace('_', ' ')} ({was}; now "
                    f"{is_now}): nothing was changed. Choose another --out; with --cache "
                    f"{job.cache or job.out / 'cache'} features are not extracted twice."
                )


def _measured(
    job: EvaluateJob,
    found: Sequence[SetOpener],
    judge: Judge,
    settings: Settings,
    ground: tuple[shapely.Geometry, ...],
    log: RunLog,
) -> _Done:
    done = _Done(sets=[], failed=[])
    for number, one in enumerate(found, 1):
        before = f"[{number}/{len(found)}] {one.name}"
        try:
            data = one.open()
            key = _key(data, judge, settings, ground)
            kept = _kept(job, data.facts.name, key)
            if kept is not None:
                log.say(f"{before}: measured before")
                done.sets.append(kept)
                continue
            result = _measure(data, judge, settings, ground, job)
        except GeodinoError as error:
            if len(found) == 1:
                raise
            log.say(f"{before}: left out. {error}")
            done.failed.append({"name": one.name, "reason": str(error)})
            continue
        done.sets.append(_written(job, result[0], key, result[1]))
        log.say(f"{before}: {set_words(done.sets[-1])}")
    return done


def _measure(
    data: LabelledSet,
    judge: Judge,
    settings: Settings,
    ground: tuple[shapely.Geometry, ...],
    job: EvaluateJob,
) -> tuple[SetResult, float]:
    began = time.perf_counter()
    with StagedProgress(quiet=job.quiet) as progress:
        result = evaluate_set(data, judge, settings, progress=progress)
    seen, checked = leaks(data, ground)
    settings_said = {**result.settings, "leakage": checked}
    result = replace(result, leaks=seen, settings=settings_said)
    return result, time.perf_counter() - began


def _key(
    data: LabelledSet,
    judge: Judge,
    settings: Settings,
    ground: tuple[shapely.Geometry, ...],
) -> dict[str, Any]:
    """Everything that the result of a set depends on."""
    return {
        "version": __version__,
        "set": data.fingerprint,
        "tiles": hashlib.sha256(b"".join(map(shapely.to_wkb, ground))).hexdigest(),
        **_settings_key(judge, settings),
    }


def _settings_key(judge: Judge, settings: Settings) -> dict[str, Any]:
    """What of it is the same for all sets."""
    return {
        "model": judge.sha256,
        "protocol": settings.protocol.name,
        "bands": settings.bands,
        "probes": list(settings.probes),
        "features": list(settings.features),
        "image_size": settings.image_size,
        "by": list(settings.by),
        "seed": settings.seed,
        "seeds": settings.seeds,
        "resamples": settings.resamples,
    }


def _kept(job: EvaluateJob, name: str, key: dict[str, Any]) -> dict[str, Any] | None:
    """Return the result of a set that was measured before, in the same way.

    Raises:
        RunError: its file is damaged.
    """
    path = job.out / SETS / name / "result.json"
    if not path.is_file():
        return None
    result = _result(path)
    return result if result.get("key") == key else None


def _result(path: Path) -> dict[str, Any]:
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RunError(f"{path} is damaged ({error}). Remove it, and --resume again.") from error
    if not isinstance(result, dict):
        raise RunError(f"{path} holds no result. Remove it, and --resume again.")
    return result


def _written(
    job: EvaluateJob, result: SetResult, key: dict[str, Any], seconds: float
) -> dict[str, Any]:
    folder = job.out / SETS / result.facts.name
    folder.mkdir(parents=True, exist_ok=True)
    write_with(folder / "predictions.parquet", lambda path: write_predictions(result, path))
    found = {**as_json(result, alarms(result)), "key": key, "seconds": round(seconds, 1)}
    for row in (*found["rows"], *found["repeats"]):
        row["seconds"] = found["seconds"]
    write_json(folder / "result.json", found)
    return found


def _ground(job: EvaluateJob, opened: OpenedModel, log: RunLog) -> tuple[shapely.Geometry, ...]:
    """The outlines of the tiles a model was pretrained on, as far as they are known."""
    path = job.tiles
    if path is None and opened.folder is not None:
        beside = opened.folder.parent / "tiles.parquet"
        path = beside if beside.is_file() else None
    if path is None:
        return ()
    try:
        index = load_index(path)
    except GeodinoError as error:
        if job.tiles is not None:
            raise
        # The model can be judged all the same; what cannot be checked is said.
        log.say(f"  * the tiles of the model's run cannot be compared with test images: {error}")
        return ()
    shapes = outlines([tile.grid for tile in index.tiles])
    return tuple(shape for shape in shapes if shape is not None)


def _facts(job: EvaluateJob, done: _Done, missing: Sequence[Missing]) -> dict[str, Any]:
    return {
        "suite": job.suite,
        "model": job.model,
        "protocol": job.protocol,
        "sets": [one["set"]["name"] for one in done.sets],
        "alarms": [f"{one['set']['name']}: {a}" for one in done.sets for a in one["alarms"]],
        "missing": [{"name": m.name, "reason": m.reason, "cure": m.cure} for m in missing],
        "failed": done.failed,
        "out": str(job.out),
    }


def sets_in(folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield the results of all sets that were measured into a folder, or into folders of it.

    Raises:
        RunError: one is damaged.
    """
    for path in sorted(folder.glob(f"**/{SETS}/*/result.json")):
        try:
            yield path, json.loads(path.read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise RunError(
                f"{path} is damaged ({error}). Evaluate again, or remove the file."
            ) from error
