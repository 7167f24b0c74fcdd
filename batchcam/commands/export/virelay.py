"""A ViRelAy project: images and CAMs as HDF5, laid out as its reader reads them (virelay 0.6, model.py).

Its published specification names other groups than its reader looks for; the reader holds. The large arrays lie in
parts, which land one by one; two small files show them as one dataset each, which is also what CoRelAy wants.
Its client opens a project only with an analysis.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import h5py
import numpy as np

from batchcam.commands.export.folder import ExportFolder
from batchcam.commands.export.form import Task
from batchcam.commands.export.originals import network_view, search_notes
from batchcam.errors import RunError, one_line
from batchcam.pictures import heatmap
from batchcam.pictures.originals import ORIGIN, Originals, State, open_originals
from batchcam.pictures.overlay import GREY
from batchcam.record.map_clusters import COMPONENTS, MOST_CLUSTERS, RULE, DrawnMaps
from batchcam.record.rows import Choice, Outcome, Target, cam_blocks, class_names
from batchcam.record.similarity import says_nothing
from batchcam.store.layout import create_group, new_file, set_text
from batchcam.store.plan import Plan
from batchcam.store.run import Run

PROJECT_FILE: Final = "project.yaml"
LABEL_FILE: Final = "label-map.json"
DATASET_FILE: Final = "dataset.input.h5"
ATTRIBUTION_FILE: Final = "cam.attribution.h5"
ANALYSIS_FILE: Final = "cam.analysis.h5"
SAMPLES_FILE: Final = "samples.csv"
PART_FOLDER: Final = "parts"

CHANNELS: Final = 3  # with one channel, 7 of the viewer's 8 colour maps fail
CHUNK_PIXELS: Final = 2048
"""Most pixels of one channel in a chunk: its three equal channels then lie within deflate's window of 32 KiB."""

NAMES: Final = ("logits", "sample_index", "crop_box", *ORIGIN)
CLUSTERINGS: Final = {"kmeans": None, **{f"kmeans-{k:02d}": k for k in range(2, MOST_CLUSTERS + 1)}}
"""Clusterings of each class's maps by name, and into how many clusters; None: as many as `MapClusters` chooses."""

STRATEGIES: Final = {"predicted": "predicted_label", "label": "true_label"}


class Part:
    """Exported samples of one block of a shard, and their files; a part's content depends on its shard alone."""

    def __init__(self, first: int, places: slice) -> None:
        """Hold exported samples `places`, from the dataset's sample `first` on."""
        self.places = places
        self.count = places.stop - places.start
        self.attribution = f"{PART_FOLDER}/cam-{first:09d}.h5"
        self.input = f"{PART_FOLDER}/input-{first:09d}.h5"


def write(task: Task) -> Outcome:
    """Write the project, `project.yaml` last; with raw cells, which the viewer scales, where no size is asked for."""
    run, folder, size, choice = task.run, task.folder, task.size, task.choose()
    originals = open_originals(run, task.data)
    if len(choice.rows) >= 2**32:
        raise RunError(f"{run.path}: more samples than ViRelAy can count")
    parts, states, constant = [], np.zeros(len(choice.rows), np.uint8), 0
    maps = DrawnMaps(run, choice.rows, choice.classes)
    floats, pixels = (CHANNELS * side[0] * side[1] for side in (size or run.plan.grid_size, run.plan.input_size))
    for places, cams, block in cam_blocks(run, choice.rows, choice.classes, NAMES, 4 * floats + pixels):
        part = Part(int(block["sample_index"][0]), places)
        constant += int(says_nothing(cams).sum())
        maps.add(choice.rows[places], cams)
        _write_attribution(folder, part, cams, block["logits"], size)
        states[places] = _write_input(folder, originals, part, block, run.plan)
        parts.append(part)
        task.advance(part.count)
    _write_masters(run, folder, choice, parts, size)
    _write_analysis(run, folder, choice, maps)
    _write_samples(run, folder, choice, states)
    labels = np.zeros(0, np.int64) if run.plan.is_multi_label else run.label[choice.rows]
    unlabelled = int((labels < 0).sum())
    folder.write(LABEL_FILE, _label_map(run, unlabelled > 0))
    folder.write(PROJECT_FILE, _project(run, task.target).encode())
    counts = np.bincount(states, minlength=len(State))
    notes = search_notes(originals.where, counts, "grey in the viewer")
    if constant:
        notes.append(f"{constant} CAMs are constant: kept as they are; leave them out of a CoRelAy pipeline")
    if unlabelled:
        notes.append(f'{unlabelled} samples have no label: shown as class -1, "not known"')
    if run.plan.is_multi_label and (unknown := int((run.labels[choice.rows] < 0).sum())):
        notes.append(f"{unknown} labels are not known: ViRelAy has yes and no, and shows them as no")
    notes.append(f"clusters of maps are no findings; {ANALYSIS_FILE} says how they were found")
    return choice.outcome(*notes, changed=int(counts[State.CHANGED]))


def _write_attribution(
    folder: ExportFolder, part: Part, cams: np.ndarray, logits: np.ndarray, size: tuple[int, int] | None
) -> None:
    """Write CAMs and logits of a part unless they are there."""
    if folder.has(part.attribution):
        return
    maps = heatmap.upsample(cams, size) if size else cams
    height, width = maps.shape[1:]
    # the viewer sums the channels
    channels = np.broadcast_to((maps / np.float32(CHANNELS))[:, None], (len(maps), CHANNELS, height, width))
    chunk = (1, CHANNELS, max(1, min(height, CHUNK_PIXELS // width)), width)
    buffer = io.BytesIO()
    with new_file(buffer) as file:
        _create(file, "attribution", channels, chunks=chunk, compression="gzip", compression_opts=1, shuffle=True)
        _create(file, "prediction", logits)
    folder.write(part.attribution, buffer.getvalue())


def _write_input(
    folder: ExportFolder, originals: Originals, part: Part, block: Mapping[str, np.ndarray], plan: Plan
) -> np.ndarray:
    """Write the images of a part unless all of them are there; return what became of each, uint8 (n,)."""
    before = _states(folder, part)
    if before is not None and (originals.where is None or (before == State.FOUND).all()) and folder.has(part.input):
        return before
    pixels = np.full((part.count, CHANNELS, *plan.input_size), GREY, np.uint8)
    states = np.zeros(part.count, np.uint8)
    for at, box in enumerate(block["crop_box"].tolist()):
        original = originals.of({name: values[at] for name, values in block.items()})
        view = None
        if original.image is not None:
            view = network_view(original.image, box, plan.input_size, plan.padding)
        if view is not None:
            pixels[at] = view.transpose(2, 0, 1)
        states[at] = State.UNREADABLE if view is None and original.image is not None else original.state
    buffer = io.BytesIO()
    with new_file(buffer) as file:
        _create(file, "data", pixels, chunks=(1, *pixels.shape[1:]), compression="gzip", compression_opts=1)
        _create(file, "image_state", states)
    folder.write(part.input, buffer.getvalue())
    return states


def _states(folder: ExportFolder, part: Part) -> np.ndarray | None:
    """Return the states of the images that an earlier call wrote, None when there are none."""
    if not folder.lies(part.input):
        return None
    try:
        with h5py.File(folder.root / part.input, "r") as file:
            states: np.ndarray = file["image_state"][...]
    except (OSError, KeyError):
        return None
    return states if states.shape == (part.count,) else None


def _write_masters(
    run: Run, folder: ExportFolder, choice: Choice, parts: Sequence[Part], size: tuple[int, int] | None
) -> None:
    """Write the two files that show all parts as one dataset each, with the small columns in them."""
    count = len(choice.rows)
    # the reader takes bool (n, K) for several labels a sample
    labels = run.labels[choice.rows] == 1 if run.plan.is_multi_label else run.label[choice.rows]
    index = np.arange(count, dtype=np.uint32)  # rows of the dataset file, which holds the same samples
    attributions = [(part.attribution, part.places) for part in parts]
    buffer = io.BytesIO()
    with new_file(buffer) as file:
        map_shape = (count, CHANNELS, *(size or run.plan.grid_size))
        _refer(file, "attribution", map_shape, np.dtype(np.float32), np.nan, attributions)
        logits_shape = (count, len(run.class_names))
        _refer(file, "prediction", logits_shape, np.dtype(np.float32), np.nan, attributions)
        _create(file, "index", index)
        _create(file, "label", labels)
    folder.write(ATTRIBUTION_FILE, buffer.getvalue())
    buffer = io.BytesIO()
    with new_file(buffer) as file:
        shape = (count, CHANNELS, *run.plan.input_size)
        _refer(file, "data", shape, np.dtype(np.uint8), 0, [(part.input, part.places) for part in parts])
        _create(file, "index", index)
        _create(file, "label", labels)
    folder.write(DATASET_FILE, buffer.getvalue())


def _write_analysis(run: Run, folder: ExportFolder, choice: Choice, maps: DrawnMaps) -> None:
    """Write principal components and clusters of the maps of each class, a category; the reader wants equal names."""
    found = maps.clusters()
    points = np.zeros((len(choice.rows), COMPONENTS), np.float32)
    clusters = {name: np.zeros(len(points), np.int32) for name in CLUSTERINGS}
    for places, cams in maps.blocks():
        for class_ in np.unique(choice.classes[places]).tolist():
            here, of_class = choice.classes[places] == class_, found[class_]
            embedded = of_class.embedded(cams[here])
            points[places[here], : embedded.shape[1]] = embedded
            for name, count in CLUSTERINGS.items():
                clusters[name][places[here]] = of_class.assigned(embedded, count)
    buffer = io.BytesIO()
    with new_file(buffer) as file:
        set_text(file.attrs, "clusters", RULE)
        for class_, of_class in found.items():
            here, category = choice.classes == class_, _category(class_)
            for group in ("", "/embedding", "/cluster"):
                create_group(file, category + group)
            _create(file, f"{category}/index", np.flatnonzero(here).astype(np.uint32))
            _create(file, f"{category}/embedding/pca", points[here])
            # the client draws the last one as the first axis's
            file[f"{category}/embedding/pca"].attrs["eigenvalue"] = of_class.variances[::-1].astype(np.float32)
            for name, count in CLUSTERINGS.items():
                _create(file, f"{category}/cluster/{name}", clusters[name][here])
                attributes = file[f"{category}/cluster/{name}"].attrs
                set_text(attributes, "embedding", "pca")
                attributes["k"] = np.int64(count or of_class.count)
    folder.write(ANALYSIS_FILE, buffer.getvalue())


def _create(file: h5py.File, name: str, values: np.ndarray, **storage: Any) -> None:
    file.create_dataset(name, data=values, track_times=False, **storage)


def _refer(
    file: h5py.File,
    name: str,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    fill: float,
    sources: Sequence[tuple[str, slice]],
) -> None:
    """Create a virtual dataset over the datasets of the same name in other files; a missing file reads as `fill`."""
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_obj_track_times(False)  # create_virtual_dataset would put the time into the file
    properties.set_fill_value(np.array(fill, dtype))
    for source, places in sources:
        part = (places.stop - places.start, *shape[1:])
        target = h5py.h5s.create_simple(shape)
        target.select_hyperslab((places.start, *(0 for _ in shape[1:])), part)
        properties.set_virtual(target, source.encode(), name.encode(), h5py.h5s.create_simple(part))
    h5py.h5d.create(file.id, name.encode(), h5py.h5t.py_create(dtype), h5py.h5s.create_simple(shape), properties)


def _write_samples(run: Run, folder: ExportFolder, choice: Choice, states: np.ndarray) -> None:
    """Write which sample of the run each row of the project is."""
    rows = choice.rows
    columns = (
        range(len(rows)),
        run.sample_index[rows].tolist(),
        run.sample_id[rows],
        class_names(run, choice.classes),
        [State(state).name.lower() for state in states.tolist()],
    )
    folder.write_table(
        SAMPLES_FILE, ("row", "sample_index", "sample_id", "explained_class", "image"), zip(*columns, strict=True)
    )


def _category(class_: int) -> str:
    """Return how CoRelAy names a class that has no WordNet id."""
    return f"{class_:08d}"


def _label_map(run: Run, with_unknown: bool) -> bytes:
    # the reader needs the key word_net_id
    labels: list[dict[str, object]] = [
        {"index": index, "word_net_id": _category(index), "name": name} for index, name in enumerate(run.class_names)
    ]
    if with_unknown:  # meta_analysis asks for samples of every entry
        labels.append({"index": -1, "word_net_id": None, "name": "not known"})
    return (json.dumps(labels, indent=1) + "\n").encode()


def _project(run: Run, target: Target) -> str:
    height, width = run.plan.input_size
    name = one_line(run.path.resolve().name) or "run"
    values = {
        "name": f"{name} ({run.plan.run_id[:12]}, {target})",  # unique in a workspace, where it is the key
        "model": one_line(run.plan.architecture),
        "dataset": name,
    }
    # JSON strings are YAML's double-quoted ones; as they are: YAML knows no surrogate pairs
    quoted = {key: json.dumps(value, ensure_ascii=False) for key, value in values.items()}
    return f"""project:
  name: {quoted["name"]}
  model: {quoted["model"]}
  label_map: {LABEL_FILE}
  dataset:
    name: {quoted["dataset"]}
    type: hdf5
    path: {DATASET_FILE}
    input_width: {width}
    input_height: {height}
    up_sampling_method: none
    down_sampling_method: none
  attributions:
    attribution_method: CAM
    attribution_strategy: {STRATEGIES[target]}
    sources:
    - {ATTRIBUTION_FILE}
  analyses:
  - analysis_method: pca
    sources:
    - {ANALYSIS_FILE}
"""
