"""A power cut, simulated from the order of system calls: what was not synced is gone."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from .inject import PROCEED, Call, Verdict
from .material import Job, Watcher, told_interrupted, whole
from .registry import Bench, Outcome, fault_class
from .supervision import NEEDS_SECCOMP, watched

State = dict[str, bytes | None]
"""Contents of files by path; None: a folder."""


@dataclass
class Stored:
    """A file as the disk has it: what it held when it was synced last."""

    content: bytes = b""


@dataclass
class Disk:
    """What a disk may hold of a folder after a power cut, by the least that POSIX promises.

    A file's content is what it was at its last fsync; a name is there, or gone, for sure since its folder's fsync.

    Attributes:
        folder: the real one.
        names: files and folders (None) that the processes see, by path.
        synced: those that the disk has for sure.
    """

    folder: Path
    names: dict[str, Stored | None] = field(default_factory=dict)
    synced: dict[str, Stored | None] = field(default_factory=dict)

    def happened(self, call: Call) -> None:
        """Follow a call that has been made."""
        if call.name == "mkdir":
            self.names.setdefault(call.path, None)
        elif call.name == "open" and not self.names.get(call.path):
            self.names[call.path] = Stored()
        elif call.name == "rename" and call.source in self.names:
            self.names[call.path] = self.names.pop(call.source)
        elif call.name == "link" and call.source in self.names:
            self.names[call.path] = self.names[call.source]
        elif call.name == "unlink":
            self.names.pop(call.path, None)
        elif call.name == "fsync":
            self._sync(call.path)

    def _sync(self, path: str) -> None:
        if file := self.names.get(path):
            file.content = (self.folder / path).read_bytes()
            return
        for name in {*self.names, *self.synced}:
            if str(PurePosixPath(name).parent) == path:
                if name in self.names:
                    self.synced[name] = self.names[name]
                else:
                    del self.synced[name]

    def after_power_cut(self, names_survive: bool) -> State:
        """Return what is left: with every name, or with the synced ones only."""
        names = self.names if names_survive else self.synced
        reached: State = {}
        for name in sorted(names):
            parents = PurePosixPath(name).parents
            if all(str(parent) in reached or str(parent) == "." for parent in parents):
                file = names[name]
                reached[name] = file.content if file else None
        return reached


@fault_class(
    "a power cut before each system call of explain (simulated): unsynced content is gone, unsynced names too or not"
)
def power_cut(bench: Bench) -> Outcome:
    """Put down what a disk would hold, look at it, and run again."""
    outcome = Outcome(
        "what a file under its final name holds is the undisturbed run's; a run that was told to be done is there; the "
        "same command completes it: same bytes, no file left over, verify finds nothing"
    )
    if not bench.warm.can_watch:
        outcome.skipped = NEEDS_SECCOMP
        return outcome
    job = Job.prepare(bench.warm, 12, 4)
    states, at_the_end = _states(bench, job)
    lost = [name for name in job.files if f"run/{name}" not in at_the_end]
    outcome.case("after the end", [f"{name}: gone, although the run was told to be done" for name in lost])
    step = max(1, len(states) // bench.few(3, len(states)))
    for state in states[::step]:
        with bench.fresh("cut") as cut:
            cut.mkdir()
            for name, content in state.items():
                (cut / name).mkdir() if content is None else (cut / name).write_bytes(content)
            run = cut / "run"
            wrong = Watcher(run, job.files).look() + told_interrupted(run)
            again = bench.warm.run(job.explain(run))
            wrong += whole(run, job.files) if again.code == 0 else [f"rerun: {again}"]
        outcome.case(f"{len(state)} files and folders", wrong)
    return outcome


def _states(bench: Bench, job: Job) -> tuple[list[State], State]:
    """Return the different states of the disk in the course of one run, and what it has for sure after its end."""
    place = bench.folder / "real"
    place.mkdir()
    disk, states = Disk(place), list[State]()
    before: list[Call] = []

    def follow(_: int, call: Call) -> Verdict:
        note()
        before.append(call)
        return PROCEED

    def note() -> None:
        if before:
            disk.happened(before.pop())
        for names_survive in (True, False):
            state = disk.after_power_cut(names_survive)
            if state not in states:
                states.append(state)

    watched(bench.warm, [job.explain(place / "run")], place, follow)
    note()
    shutil.rmtree(place)
    return states, disk.after_power_cut(names_survive=False)
