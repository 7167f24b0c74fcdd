"""The loop over batches: a worker's shards, explained and landed, and what it records of itself."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import importlib.metadata
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import h5py
import numpy as np
import torch
import torchvision

from batchcam.commands.explain.assembly import Assembly
from batchcam.commands.explain.claims import Claims
from batchcam.commands.explain.config import EVERYTHING, ExplainConfig
from batchcam.commands.explain.inputs import trained_on
from batchcam.commands.explain.memory import Memory
from batchcam.commands.explain.planning import resources
from batchcam.commands.explain.retry import RecordedShard
from batchcam.data.loader import BatchStream, LoadedBatch, RangeBatches, is_loader_death, loader_died
from batchcam.errors import DatasetError, ModelError, StoppedEarlyError
from batchcam.job.console import Progress, note
from batchcam.job.processes import peak_memory
from batchcam.job.scheduler import Share, utc_now, whereabouts
from batchcam.job.stop import stop_if_asked
from batchcam.maps.explainer import ExplainedBatch, Explainer, Request, Submitted
from batchcam.maps.preparation import ExplainableNetwork
from batchcam.rules import Status
from batchcam.store.compression import COMPRESSOR
from batchcam.store.features import missed
from batchcam.store.manifest import STAMPS
from batchcam.store.plan import Plan, Shard
from batchcam.store.schema import LABELS, TRAINED_ON, meta_array
from batchcam.store.shard import LandedShard, ShardBuilder, ShardWriter
from batchcam.version import version

RESTARTS = 3
"""How often loader processes are started again when one dies."""

FEWEST_JUDGED = 8
"""Images of which too many may be unreadable: of fewer, one is not a share."""

STAGES = ("waiting_for_images", "explaining", "storing", "waiting_for_others")
"""What a worker spends its time on; landing goes on in the background."""


@dataclasses.dataclass
class UnderWay:
    """A shard that is not full yet.

    Attributes:
        counts: of its samples, the unreadable ones and those that the network was trained on.
        unreadable: which of them could not be read, bool (n,), of each batch.
        sha256: digests of their images, uint8 (n, 32), likewise.
    """

    builder: ShardBuilder
    counts: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    unreadable: list[np.ndarray] = dataclasses.field(default_factory=list)
    sha256: list[np.ndarray] = dataclasses.field(default_factory=list)


class Work:
    """The loop over the batches of the shards that a worker claims, and what it counts."""

    def __init__(
        self,
        config: ExplainConfig,
        plan: Plan,
        assembly: Assembly,
        explainable: ExplainableNetwork,
        claims: Claims,
        recorded: Mapping[int, RecordedShard],
        device: torch.device,
        memory: Memory,
    ) -> None:
        self.landed: list[LandedShard] = []
        self.counts: collections.Counter[str] = collections.Counter()
        self._start = time.perf_counter()
        self._stages = dict.fromkeys(STAGES, 0.0)
        self._landing_s = 0.0
        self._samples = 0
        self._config, self._plan, self._assembly, self._explainable = config, plan, assembly, explainable
        self._claims, self._recorded, self._device = claims, recorded, device
        self._memory = memory
        self._classifier = explainable.classifier()
        self._shards = plan.shards
        self._recent: collections.deque[tuple[str, bool]] = collections.deque(
            maxlen=max(FEWEST_JUDGED, plan.shard_size)
        )

    @property
    def trained_on(self) -> int | None:
        """Of the samples that have landed, those that the network was trained on; None where that is not known."""
        return self.counts[TRAINED_ON] if self._plan.training_known else None

    @property
    def seconds(self) -> float:
        """How long the loop over batches has been running, without waiting for other workers."""
        return time.perf_counter() - self._start - self._stages["waiting_for_others"]

    def run(self, tell: Callable[[], None]) -> None:
        """Explain and land every shard that this worker can claim.

        Args:
            tell: called after every shard, to record how far the work is.

        Raises:
            StoppedEarlyError: a signal or the time limit; the shard under way is given up.
            LoaderDiedError: a loader process died, and again after every restart.
        """
        self._start = time.perf_counter()
        processes, restarts = self._memory.processes, 0
        while self._has_more():
            try:
                self._explain(tell, processes)
            except Exception as error:
                if not is_loader_death(error):
                    raise
                died = loader_died(error)
                if restarts == RESTARTS:
                    raise died from error
                # the usual reason is that the memory was not enough for all of them
                processes, restarts = max(1, processes // 2), restarts + 1
                note(f"{died}; restart {restarts} of {RESTARTS}, with --workers {processes}", self._config.quiet)
                self._claims.begin_again()
                self._recent.clear()

    def _has_more(self) -> bool:
        with self._counted("waiting_for_others"):
            return self._claims.wait()

    def _explain(self, tell: Callable[[], None], processes: int) -> None:
        plan, assembly, explainable, claims = self._plan, self._assembly, self._explainable, self._claims
        request = Request(
            *(plan.cams, plan.maps, plan.input_size, plan.precision, plan.identity, plan.threshold_logits),
            features=plan.features,
        )
        landing_s = self._landing_s
        with (
            # forks the loader processes, before any thread of the writer starts
            BatchStream(
                assembly.dataset,
                self._index_lists(),
                processes,
                self._device,
                self._config.compute.start_method,
                plan.batch_size,
                self._memory.room,
            ) as batches,
            Explainer(explainable, assembly.preprocessing, request, self._device) as explainer,
            Progress("explain", claims.own_samples, "images", self._config.quiet) as progress,
            claims.leases.beating(),
            ShardWriter(self._config.out, plan, *explainable.classifier(), on_landed=claims.finish) as writer,
        ):
            writer.landed[:0] = self.landed
            self.landed = writer.landed  # also what lands after an error
            under_way: UnderWay | None = None
            for batch, labels, explained in self._explained(batches, explainer):
                shard = self._shard_of(batch)
                if under_way is None or under_way.builder.shard != shard:
                    under_way = UnderWay(writer.builder(shard))
                    if not claims.is_own(shard):
                        progress.expect(shard.count)
                columns, texts = self._rows(batch, labels, explained.columns())
                with self._counted("storing"):
                    under_way.builder.append(columns, texts)
                self._samples += len(labels)
                self._note_batch(batch, columns, under_way)
                progress.count(len(labels))
                if under_way.builder.rows == shard.count:
                    self._finish(under_way, writer)
                    under_way = None
                    self._landing_s = landing_s + writer.busy_s
                    tell()
            with self._counted("storing"):
                writer.wait()
            self._landing_s = landing_s + writer.busy_s

    def _shard_of(self, batch: LoadedBatch) -> Shard:
        return self._shards[int(batch.indices[0]) // self._plan.shard_size]

    def _finish(self, full: UnderWay, writer: ShardWriter) -> None:
        shard = full.builder.shard
        if not self._is_wanted(full):
            self._claims.finish(shard)
            return
        self.counts += full.counts
        with self._counted("storing"):
            writer.submit(full.builder, replace=shard.index in self._recorded)

    def _note_batch(self, batch: LoadedBatch, columns: Mapping[str, np.ndarray], under_way: UnderWay) -> None:
        under_way.counts["unreadable"] += int(batch.unreadable.sum())
        if self._plan.training_known:
            under_way.counts[TRAINED_ON] += int((columns[TRAINED_ON] == 1).sum())
        self._recent.extend(zip(batch.errors, batch.unsupported, strict=True))
        under_way.unreadable.append(batch.unreadable)
        under_way.sha256.append(batch.sha256.numpy())

    def _is_wanted(self, full: UnderWay) -> bool:
        """Return whether a full shard is to land; one that is tried again only where more of it can be read."""
        if len(self._recent) >= min(FEWEST_JUDGED, self._plan.sample_count):
            self._require_images()
        before = self._recorded.get(full.builder.shard.index)
        return before is None or before.improves(np.concatenate(full.unreadable), np.concatenate(full.sha256))

    def _require_images(self) -> None:
        refused = [error for error, unsupported in self._recent if unsupported]
        unreadable = [error for error, _ in self._recent if error]
        count = len(self._recent)
        most = self._config.max_unreadable * count  # in hundredths
        anyway = f"--max-unreadable {EVERYTHING} records them as unreadable"
        if len(refused) * 100 > most:
            raise DatasetError(f"{len(refused)} of the last {count} images are refused: {refused[-1]}; {anyway}")
        if len(unreadable) * 100 > most:
            raise StoppedEarlyError(
                f"{len(unreadable)} of the last {count} images can't be read: {unreadable[-1]}: is the storage there? "
                f"Run the same command again when it is; {anyway}"
            )

    def _index_lists(self) -> Iterator[list[int]]:
        """Yield the batches of each shard when its turn comes; the loader asks for some ahead of those it has made."""
        for shard in self._claims:
            for indices in RangeBatches([(shard.first, shard.count)], self._plan.batch_size):
                if self._claims.is_overtaken(shard):
                    break
                yield indices

    @contextlib.contextmanager
    def _counted(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self._stages[stage] += time.perf_counter() - start

    def _next(self, batches: BatchStream) -> LoadedBatch | None:
        with self._counted("waiting_for_images"):
            batch = next(batches, None)
        if batch:
            stop_if_asked()
        return batch

    def _explained(
        self, batches: BatchStream, explainer: Explainer
    ) -> Iterator[tuple[LoadedBatch, np.ndarray, ExplainedBatch]]:
        """Yield each batch, its labels, and what came out, while a GPU goes on with the next one.

        Batches of a shard that another worker has landed are left out.
        """
        under_way: collections.deque[tuple[LoadedBatch, np.ndarray, Submitted]] = collections.deque()
        stopped = None
        try:
            while batch := self._next(batches):
                if self._claims.look_whether_overtaken(self._shard_of(batch)):
                    continue
                labels = self._assembly.labels[batch.indices.numpy()]
                with self._counted("explaining"):
                    under_way.append((batch, labels, explainer.submit(batch.pixels, labels, batch.unreadable)))
                if len(under_way) > batches_ahead(self._device):
                    yield self._result(*under_way.popleft())
        except StoppedEarlyError as error:
            stopped = error
        while under_way:
            yield self._result(*under_way.popleft())
        if stopped:
            raise stopped

    def _result(
        self, batch: LoadedBatch, labels: np.ndarray, submitted: Submitted
    ) -> tuple[LoadedBatch, np.ndarray, ExplainedBatch]:
        with self._counted("explaining"):
            explained = submitted.result()
            if self._plan.features:
                self._require_features(explained)
            return batch, labels, explained

    def _require_features(self, explained: ExplainedBatch) -> None:
        sound = explained.status & (Status.UNREADABLE | Status.NON_FINITE) == 0
        wrong = sound & missed(explained.columns(), *self._classifier, self._plan.precision)
        if wrong.any():
            raise ModelError(
                f"row {int(wrong.argmax())} of a batch: features as {self._plan.features} do not give the logits "
                f"(precision {self._plan.precision}); leave --features out, or choose float32 and fp32"
            )

    def _rows(
        self, batch: LoadedBatch, labels: np.ndarray, explained: dict[str, np.ndarray]
    ) -> tuple[dict[str, np.ndarray], dict[str, list[str]]]:
        """Return a batch's rows as the schema names them: arrays, and texts."""
        source = self._assembly.source
        columns = {
            "sample_index": batch.indices.numpy(),
            "input_sha256": batch.sha256.numpy(),
            "input_bytes": source.sizes[batch.indices.numpy()],
            TRAINED_ON: trained_on(self._assembly, batch.sha256.numpy()),
            "label": labels,
            "crop_box": batch.crop_box.numpy(),
            "image_size": batch.image_size.numpy(),
            **explained,
        }
        if self._assembly.findings is not None:
            columns[LABELS] = self._assembly.findings.values[batch.indices.numpy()]
        said = {"sample_id": source.sample_ids, **{meta_array(n).name: source.meta[n] for n in self._plan.meta}}
        texts = {name: [column[i] for i in batch.indices.tolist()] for name, column in said.items()}
        texts["error"] = batch.errors
        stored = [a.name for a in self._plan.arrays if a.name not in texts]  # a run of an older schema has fewer
        return {name: columns[name] for name in stored}, texts

    def record(self) -> dict[str, Any]:
        """Return what the loop counted, for the task's record."""
        seconds = self.seconds
        own, loader = peak_memory()
        return {
            "shards": [landed.shard.file for landed in self.landed],
            STAMPS: [landed.stamp for landed in self.landed if landed.stamp],
            "samples": sum(landed.shard.count for landed in self.landed),
            "unreadable": self.counts["unreadable"],
            TRAINED_ON: self.trained_on,
            **({"engine_choice": choice} if (choice := self._explainable.engine_choice) else {}),
            "seconds": round(seconds, 3),
            "images_per_s": round(self._samples / seconds, 2),
            **{f"seconds_{stage}": round(spent, 3) for stage, spent in self._stages.items()},
            "seconds_landing": round(self._landing_s, 3),
            "peak_memory_bytes": own,
            "peak_memory_loader_bytes": loader,
            **_peak_gpu_memory(self._device),
        }


def _peak_gpu_memory(device: torch.device) -> dict[str, int]:
    if device.type != "cuda":
        return {}
    return {"peak_memory_gpu_bytes": torch.cuda.max_memory_allocated(device)}


def batches_ahead(device: torch.device) -> int:
    """Return how many batches a device is given while the host stores the one before: a CPU would gain nothing."""
    return 1 if device.type == "cuda" else 0


def task_record(config: ExplainConfig, plan: Plan, mine: Share, device: torch.device) -> dict[str, Any]:
    """Return what is known of a task when it starts: where it runs, on what, with which versions."""
    return {
        **resources(config, plan, mine, device),
        "started": utc_now(),
        **whereabouts(),
        "versions": {
            "batchcam": version(),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
            "numpy": np.__version__,
            "h5py": h5py.__version__,
            "hdf5": h5py.version.hdf5_version,
            "compressor": COMPRESSOR,
            **({plan.engine: importlib.metadata.version(plan.engine)} if plan.engine else {}),
        },
    }
