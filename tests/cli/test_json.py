"""What `--json` says is an interface: the keys of every command's summary, nested ones too."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import cv2
import numpy as np
import pytest

from batchcam.cli.commands import cli
from batchcam.commands.demo import demo
from tests.helpers import run_pairs
from tests.helpers.outputs import run_json

COMPUTE = ("-j", 0, "--threads", 1, "--device", "cpu")
NAMES = ("ant", "bee", "cat")


def keys(value: Any) -> str:
    """The keys of a JSON value in their order: an object's in (), those of a list's objects in [].

    Where all values of an object have the same keys, these come once, after a colon.
    """
    if isinstance(value, dict):
        inner = [keys(each) for each in value.values()]
        if len(inner) > 1 and inner[0] and len(set(inner)) == 1:
            return f"({', '.join(value)}: {inner[0]})"
        return f"({', '.join(key + each for key, each in zip(value, inner, strict=True))})"
    if isinstance(value, list) and value and isinstance(value[0], dict):
        shared = max({keys(each) for each in value}, key=len)
        return f"[{shared}]"
    return ""


def write_images(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(12):
        place = folder / NAMES[number % 3]
        place.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(place / f"{number}.png"), rng.integers(0, 256, (40, 40, 3), np.uint8))
    with (folder.parent / "boxes.csv").open("w", newline="") as stream:
        ids = [f"{NAMES[number % 3]}/{number}.png" for number in range(12)]
        csv.writer(stream).writerows([("sample_id", "x0", "y0", "x1", "y1"), *((i, 5, 6, 20, 25) for i in ids)])


def swapped_runs(root: Path) -> tuple[Path, Path]:
    """Two runs, in the second of which two classes have changed places."""
    plan, rows = run_pairs.make_rows(1)
    old = run_pairs.write(root / "old", plan, rows)
    new_plan, _ = run_pairs.make_rows(2)
    new_rows = run_pairs.permute_classes(rows, [1, 0, 2, 3, 4])
    new_rows.columns["label"] = rows.columns["label"]
    return old, run_pairs.write(root / "new", new_plan, new_rows)


def without_digest(run: Path) -> Path:
    (run / "shards" / "shard-00000.h5.sha256").unlink()
    return run


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What every command says of a small classifier, its dataset, two runs, and pictures of them."""
    root = tmp_path_factory.mktemp("json")
    write_images(root / "data")
    model, data, run = root / "model.pth", root / "data", root / "run"
    train = ("--epochs", 1, "--arch", "shufflenet_v2_x0_5", "--preprocess", "stl10", "--image-size", 64, *COMPUTE)
    boxes = ("--annotations", root / "boxes.csv")
    again = ("--checkpoint", model, "--data", data)
    found = {
        "train": run_json("train", data, "--out", model, *train),
        "evaluate": run_json("evaluate", model, data, *COMPUTE),
        "explain": run_json("explain", model, data, "--out", run, "--shard-size", 5, *COMPUTE),
        "merge": run_json("merge", run),
    }
    with pytest.MonkeyPatch.context() as patch:  # what serves would serve until it is told to stop
        patch.setitem(sys.modules, "batchcam.commands.view.server", mock.MagicMock())
        found["view"] = run_json("view", run)
    found |= {
        "info": run_json("info", run),
        "render": run_json("render", run, "--out", root / "sheet.png"),
        "report": run_json("report", run, "--out", root / "report.html"),
        "sample": run_json("sample", run, "--n", 3, "--out", root / "review"),
        "review": run_json("review", root / "review", "--max", "open=5"),
        "compare": run_json("compare", *swapped_runs(root), "--max-flips", 0),
        "trend": run_json("trend", run),
        "verify": run_json("verify", without_digest(run)),
        "localize": run_json("localize", run, *boxes),
        "faithfulness": run_json("faithfulness", run, *again, "--samples", 2, "--steps", 2, "--device", "cpu"),
        "discover": run_json("discover", run, *again, "--device", "cpu"),
        "nightly": run_json("nightly", root / "none.pth", data, root / "nights"),
        "retrain": run_json("retrain", data, data, root / "models/first", "--arch", "none"),
        "promote": run_json("promote", root / "boxes.csv", data, root / "models/second"),
        "submit": run_json("submit", "--dry-run", root / "none.pth", data, root / "run"),
        "jobs": run_json("jobs", root / "jobs"),
        "export": run_json("export", run, "--to", "csv", "--out", root / "table"),
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("TRAIN_PER_CLASS", 4), ("TEST_PER_CLASS", 5), ("EPOCHS", 1), ("IMAGE_SIZE", 64)):
            patch.setattr(demo, name, value)
        found["demo"] = run_json("demo", "--out", root / "demo", "--threads", 1)
    return {name: ended.said for name, ended in found.items()}


KEYS = {
    "demo": """
        (run, picture, samples, judged, accuracy, peak_in_object, centre_in_object, trained_on, findings, seconds,
        exit_code)
    """,
    "train": """
        (checkpoint, epochs, best_epoch, train_accuracy, train_samples, train_left_out, val_accuracy, val_samples,
        val_left_out, val_trained_on, learned_by_heart, unreadable, history[(epoch, train_loss, train_accuracy,
        train_samples, train_left_out, val_loss, val_accuracy, val_samples, val_left_out, val_trained_on, unreadable)],
        problem_type, exit_code)
    """,
    "evaluate": """
        (samples, labelled, unreadable, non_finite, accuracy, trained_on, unseen_labelled, unseen_accuracy,
        classes[(name, labelled, correct, predicted, left_out, intervals(accuracy))], group_by, groups, problem_type,
        intervals(accuracy, unseen_accuracy), needed, level, cluster, clusters, notes, exit_code)
    """,
    "explain": """
        (run, run_id, samples, shards, unreadable, trained_on, seconds, complete, merged(totals(samples, labelled,
        correct, accuracy, status(unreadable, non finite, constant map, no positive evidence),
        largest_identity_residual, trained_on), findings, shards, bytes, kept), dry_run, to_do_samples, to_do_shards,
        to_do_bytes, run_shards, task, task_from, done_for_others, left_to_others, left_out, exit_code)
    """,
    "merge": """
        (totals(samples, labelled, correct, accuracy, status(unreadable, non finite, constant map, no positive
        evidence), largest_identity_residual, trained_on), findings, shards, bytes, kept, exit_code)
    """,
    "verify": """
        (run, run_id, shards, samples, unreadable, bytes, recomputed, manifest_sha256, signed_by, unchecked,
        unconfined, found[(kind, file, message, array, rows, first_sample)], notes, runs, exit_code)
    """,
    "info": """
        (run, complete, plan(checkpoint_sha256, dataset_fingerprint, class_names, target_layer,
        preprocessing(image_size, interpolation, mean, resize, std), precision, architecture, identity, sample_count,
        sample_id_bytes, batch_size, shard_size, cams, maps, channels, grid_size, input_size, method, control,
        schema_version, training_known), run_id, origin(class_names_from, command, created, folder, host, job,
        options(by_digest, cams, classifier(arch, arch_option, bits, checkpoint, class_names, columns, crop_pct,
        fit, image_size, interpolation, label_kind, mean, model, pixels, preprocess, range, resize, root, std, suffix,
        transform, weights_key), compute(batch_size, device, engine, precision, sample_timeout, start_method, threads,
        workers), control, data, dry_run, features, findings, identity, label_separator, maps, max_unreadable, memory,
        method, new_since, out, problem_type, quiet, retry_unreadable, shard_size, share_only, stage_to, target_layer,
        task, tasks, threshold, thresholds_from, time_limit_s, tokens), pid, remarks, resources(device, engine,
        start_method, task, task_from, threads, workers), restarts, user), shards_landed, shards, lost_shards,
        totals(accuracy,
        correct, labelled, largest_identity_residual, samples, status(constant map, no positive evidence, non finite,
        unreadable), trained_on), trained_on,
        classes[(name, labelled, correct, predicted, left_out, intervals(accuracy))],
        tasks[(device, engine, host, images_per_s, job, outcome, peak_memory_bytes,
        peak_memory_loader_bytes, pid, restarts, samples, seconds, seconds_explaining, seconds_landing,
        seconds_storing, seconds_waiting_for_images,
        seconds_waiting_for_others, shards, start_method, started, task, task_from, threads, trained_on, unreadable,
        user, versions(batchcam, compressor, h5py, hdf5, numpy, python, torch, torchvision), workers, written)], notes,
        unreadable, runs, sigmoids, pairs, spatial, group_by, groups, intervals(accuracy), needed, level, cluster,
        clusters, exit_code)
    """,
    "render": """
        (run, out, files, selected, pictures, unreadable, missing_originals, unread_originals, changed_originals,
        without_map, data, lost_files, exit_code)
    """,
    "view": """
        (run, samples, verdicts, verdicts_file, lost_files, failed, exit_code)
    """,
    "report": """
        (out, bytes, complete, samples, trained_on, pictures, without_image, changed, lost_files, findings, flips,
        level, cluster, clusters, notes, gates, gatherings, overlap(compared, twice(count, ids), training), labelled,
        left_out, accuracy, intervals(accuracy), needed, exit_code)
    """,
    "sample": """
        (run, out, pool, size, drawn, strata[(reason, size, drawn)], without_image, changed, lost_files, notes,
        exit_code)
    """,
    "review": """
        (run_id, draw, pool, size, samples, level, files[(file, sha256, changed)], reviewers(), agreement,
        shares[(verdict, samples, share, interval, most, most_interval)], cases[(sample_id, state, verdicts())], notes,
        gates[(option, limit, value, interval, passed)], exit_code)
    """,
    "localize": """
        (error, error_kind, exit_code)
    """,
    "faithfulness": """
        (error, error_kind, exit_code)
    """,
    "trend": """
        (nights, reference, events(), judged, waiting, alarms, past, left_out(), findings, alarm_only, out, exit_code)
    """,
    "discover": """
        (error, error_kind, exit_code)
    """,
    "nightly": """
        (run, outcome, latest, removed, mails, exit_code)
    """,
    "retrain": """
        (version, decision, promoted, exit_code)
    """,
    "promote": """
        (version, decision, promoted, exit_code)
    """,
    "submit": """
        (run, explain, finish, lines, exit_code)
    """,
    "jobs": """
        (folder, copied, kept, exit_code)
    """,
    "export": """
        (error, error_kind, exit_code)
    """,
    "compare": """
        (old, new, old_run_id, new_run_id, old_samples, new_samples, apart(unreadable in both, not finite in both),
        paired_by_content, ambiguous, changed_inputs, renamed(), relabelled, totals(compared, not_finite,
        flips, flips_percent, fixed, broken, changed, old_confidence,
        new_confidence, logit_change, maps, spearman, spearman_deviation, spearman_median, spearman_p10, cosine,
        top_iou, peak_shift, without_maps(constant in both), labelled, old_accuracy, new_accuracy, accuracy_drop, lost,
        p),
        classes[(name, labelled, old_correct, new_correct, fixed, broken, old_predicted, new_predicted, left, maps,
        logit_change, spearman, cosine, top_iou, peak_shift, spearman_deviation, intervals(accuracy_drop,
        spearman))], transitions[(old, new, count)],
        exchanges[(classes, samples, followed, same_weights, maps, spearman, spearman_as_named)], movers[(reason,
        sample_id, label, old_prediction, new_prediction, flip, old_confidence, new_confidence, confidence_change,
        map_class, logit_change, spearman, cosine, top_iou, peak_shift, new_sample_id)], confidence,
        intervals(flips_percent, old_accuracy, new_accuracy, accuracy_drop, spearman), cluster, clusters,
        design_effects(), group_by, groups, gates[(option, limit, value,
        verdict, passed, reason, low, high, needed, not_judged)], noise, findings, notes, out, problem_type, exit_code)
    """,
}


@pytest.mark.parametrize("command", [name for name, command in cli.commands.items() if not command.hidden])
def test_the_keys_of_a_summary_are_these(said: dict[str, Any], command: str) -> None:
    assert keys(said[command]) == " ".join(KEYS[command].split())
