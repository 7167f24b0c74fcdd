"""The ledger: what attention brings from each token into the one that the classifier looks at, layer by layer.

The vector x that the classifier takes is a sum, x = start + attention + MLP + attention + …, and so its logits are, at
x's own deviation. Attention's parts are sums over tokens in turn: exact direct effects, as in Gandelsman et al. 2024,
https://arxiv.org/abs/2310.05916. They are found by their numbers, whatever the modules are called.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Final

import torch
from torch import Tensor, nn

from batchcam.network.attention import Attended, attention_calls
from batchcam.network.heads import Head
from batchcam.network.terms import Norm, Term, Terms, inverse_of
from batchcam.network.tokens import TokenGrids, token_grid
from batchcam.network.tracing import Trace
from batchcam.rules import Tokens

SUM_TOLERANCE: Final = 3e-7
"""A vector is the sum of two up to this share of its size: it was rounded once."""

NEGLIGIBLE: Final = 1e-6
"""Vectors of a smaller share of the sum are not looked for."""

LINK_TOLERANCE: Final = 1e-5
"""Two ways to compute a vector differ by less than this share of its size."""

MOST_LINKS: Final = 8  # between an attention and the sum that it is added to


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a vector of each sample is found: what a module gives, or takes, in one of its runs; of tokens, one."""

    module: str
    is_input: bool
    row: int
    run: int = 0

    def of(self, values: Tensor) -> Tensor | None:
        """Return the vector (N, C) in what the module gives or takes, None where there is none."""
        if values.ndim == 2:
            return values
        if values.ndim != 3 or 1 < values.shape[1] <= self.row:
            return None
        return values[:, self.row if values.shape[1] > 1 else 0]


@dataclasses.dataclass(frozen=True)
class Branch:
    """An attention that is added to x.

    Attributes:
        place: of what is added.
        call: which call of attention.
        weight: W of the linear map from what the call gives to the logits, float32 (K, C).
        bias: b of that map, (K,).
        norm: right behind the call.
    """

    place: Place
    call: int
    weight: Tensor
    bias: Tensor
    norm: Norm | None


@dataclasses.dataclass(frozen=True)
class Heard:
    """What a forward pass leaves for the ledger: the vectors of its places, and its calls of attention."""

    vectors: Mapping[Place, Tensor]
    calls: Mapping[int, Attended]


@dataclasses.dataclass(frozen=True)
class Ledger:
    """How the logits are a sum over tokens.

    Attributes:
        place: of x.
        tokens: the cells.
        weight, bias, norm: of the head behind x, as of `Head`, float32.
        branches: the attentions, the last one first.
    """

    place: Place
    tokens: Tokens
    weight: Tensor
    bias: Tensor
    norm: Norm | None
    branches: tuple[Branch, ...]

    @property
    def places(self) -> set[Place]:
        """Of all vectors that it needs."""
        return {self.place, *(branch.place for branch in self.branches)}

    @property
    def calls(self) -> frozenset[int]:
        """The attentions that it needs."""
        return frozenset(branch.call for branch in self.branches)

    @property
    def told(self) -> str:
        """What maps are of, for people."""
        several = f"of the last {len(self.branches)} layers" if len(self.branches) > 1 else "in the last layer"
        return (
            f"maps: what attention {several} brings from {self.tokens.cells} tokens ({self.tokens}) straight to the "
            "logits; the rest is their offset; by torch, where attention can be heard"
        )

    def features(self, heard: Heard) -> Tensor:
        """Return x at its own deviation, (N, C)."""
        x = heard.vectors[self.place].float()
        return x * inverse_of(self.norm, x)[:, None]

    def terms(self, heard: Heard) -> Terms:
        """Return the logits' terms: cells, other tokens and, of x, what no attention of these brought."""
        x = heard.vectors[self.place].float()
        scale = inverse_of(self.norm, x)
        rest = x - sum(heard.vectors[branch.place].float() for branch in self.branches)
        cells, others = [], [Term(rest[:, :, None, None], self.weight, scale)]
        for branch in self.branches:
            brought = heard.calls[branch.call].brought
            own = scale * inverse_of(branch.norm, brought.sum(1))
            cells.append(Term(token_grid(brought, self.tokens), branch.weight, own * self.tokens.cells))
            before = brought[:, : -self.tokens.cells].sum(1)
            others += [
                Term(before[:, :, None, None], branch.weight, own),
                Term(torch.ones_like(scale).view(-1, 1, 1, 1), branch.bias[:, None], scale),
            ]
        return Terms(tuple(cells), tuple(others))


def find_ledger(
    network: nn.Module, probe: Tensor, trace: Trace, found: list[tuple[Tensor, Head]], grids: TokenGrids
) -> tuple[Ledger, Heard] | None:
    """Return the ledger of the network's logits and what it has of the probe; None where no attention is found in them.

    Args:
        network: in evaluation mode, on the probe's device.
        probe: the images of the trace, at least two.
        trace: of the network.
        found: what `heads` yields.
    """
    for vector, head in reversed(found):
        if not head.layer or trace.inputs[head.layer].ndim > 3:
            continue
        place = _place(head.layer, trace, vector)
        calls = attention_calls(network, probe, place.row)
        search = _Search(network, trace, place.row, calls)
        weight, bias = head.weight.float(), head.bias.float()
        branches = list(search.branches(place, head.weight))
        tokens = {b.call: grids.of(calls[b.call].brought.shape[1]) for b in branches}
        grid = next((t for t in tokens.values() if t), None)
        if grid is None:
            continue
        same = tuple(b for b in branches if (t := tokens[b.call]) and (t.height, t.width) == (grid.height, grid.width))
        ledger = Ledger(place, grid, weight, bias, head.norm, same)
        return ledger, Heard({p: search.vector(p) for p in ledger.places}, calls)
    return None


def _place(module: str, trace: Trace, vector: Tensor) -> Place:
    """Return where in a module's input, in its last run, the vector is."""
    rows = trace.inputs[module].shape[1] if trace.inputs[module].ndim == 3 else 1
    run = sum(name == module for name, *_ in trace.calls) - 1
    places = [Place(module, True, row, run) for row in range(rows)]
    return next(
        (p for p in places if (found := p.of(trace.inputs[module])) is not None and torch.equal(found, vector)),
        places[0],
    )


@dataclasses.dataclass(frozen=True)
class _Row:
    """A vector of the trace, where it is first found, and when.

    Attributes:
        key: a random sum of all its numbers; equal vectors have equal ones, and the key of a sum is the sum of keys.
    """

    place: Place
    time: float
    vector: Tensor
    values: Tensor
    key: float

    @property
    def size(self) -> float:
        return float(self.vector.abs().amax())


class _Search:
    """Looks for attention among the summands of a vector."""

    def __init__(self, network: nn.Module, trace: Trace, row: int, calls: Mapping[int, Attended]) -> None:
        self._network, self._calls = network, calls
        self._sums = {index: call.brought.sum(1).double() for index, call in calls.items()}
        self._values: dict[Place, Tensor] = {}
        self._rows: dict[float, _Row] = {}
        self._givers: dict[float, list[Place]] = {}
        self._signs: dict[tuple[int, ...], Tensor] = {}
        for time, each, values in sorted(_events(trace, row), key=lambda event: event[0]):
            self._values[each] = values
            vector = each.of(values)
            if vector is None or len(vector) != len(trace.logits) or not vector.is_floating_point():
                continue
            found = self._row(each, time, vector.double(), values)
            self._rows.setdefault(found.key, found)
            if not each.is_input:
                self._givers.setdefault(found.key, []).append(each)

    def vector(self, place: Place) -> Tensor:
        """Return the vector (N, C) at a place."""
        vector = place.of(self._values[place])
        assert vector is not None
        return vector

    def branches(self, place: Place, weight: Tensor) -> Iterator[Branch]:
        """Yield the attentions that are added to the vector at `place`, of which the logits are W x, the last first."""
        vector = self.vector(place)
        whole: _Row | None = self._rows.get(self._row(place, 0, vector.double(), vector).key)
        while whole:
            split = self._split(whole)
            added, whole = split if split else (whole, None)
            if branch := self._branch(added, weight, whole.time if whole else -1):
                yield branch

    def _row(self, place: Place, time: float, vector: Tensor, values: Tensor) -> _Row:
        if vector.shape not in self._signs:
            generator = torch.Generator().manual_seed(0)
            signs = torch.randint(0, 2, vector.shape, generator=generator) * 2 - 1
            self._signs[vector.shape] = signs.to(vector)
        return _Row(place, time, vector, values, float((vector * self._signs[vector.shape]).sum()))

    def _split(self, whole: _Row) -> tuple[_Row, _Row] | None:
        """Return two earlier vectors that add up to `whole`, the later one first."""
        rows = [
            row
            for row in self._rows.values()
            if row.time < whole.time and row.vector.shape == whole.vector.shape and row.size > NEGLIGIBLE * whole.size
        ]
        keys = torch.tensor([row.key for row in rows], dtype=torch.float64)
        misses = (keys[:, None] + keys - whole.key).abs().triu(1)
        near = SUM_TOLERANCE * float(whole.vector.abs().sum())
        pairs = [(rows[i], rows[j]) for i, j in (misses <= near).triu(1).nonzero().tolist()]
        fitting = [(float((a.vector + b.vector - whole.vector).abs().amax()), b, a) for a, b in pairs]
        miss, later, earlier = min(fitting, key=lambda each: each[0], default=(torch.inf, whole, whole))
        return (later, earlier) if miss <= SUM_TOLERANCE * whole.size else None

    def _branch(self, added: _Row, weight: Tensor, since: float) -> Branch | None:
        """Return which attention `added` comes from, None where it is none, or not linear in it."""
        row, head = added, Head(weight, weight.new_zeros(len(weight)))
        for _ in range(MOST_LINKS):
            if (call := self._attention(row, head)) is not None:
                index, head = call
                return Branch(added.place, index, head.weight.float(), head.bias.float(), head.norm)
            link = None if head.norm is not None else self._behind(row, head) or self._scaled(row, head, since)
            if link is None:
                return None
            row, head = link
        return None

    def _attention(self, row: _Row, head: Head) -> tuple[int, Head] | None:
        """Return the call that gives `row`, and the head behind it."""
        for index, given in self._sums.items():
            if given.shape == row.vector.shape and _close(given, row.vector):
                return index, head
            projection = self._calls[index].projection
            if projection is None or projection[0].shape[1] != given.shape[1]:
                continue
            weight, bias = projection
            given = given @ weight.double().T + (0 if bias is None else bias.double())
            if given.shape == row.vector.shape and _close(given, row.vector):
                return index, head.behind_linear(weight, bias, "")
        return None

    def _behind(self, row: _Row, head: Head) -> tuple[_Row, Head] | None:
        """Return what a module with a linear map or a layer norm made `row` of."""
        for giver in self._givers.get(row.key, ()):
            place = dataclasses.replace(giver, is_input=True)
            values, name = self._values[place], place.module
            given, earlier = place.of(values), head.behind(self._network.get_submodule(name), name)
            if earlier is None or given is None or given.shape[1] != earlier.width:
                continue
            if earlier.fits(given, row.vector @ head.weight.T + head.bias):
                return self._row(place, row.time, given.double(), values), earlier
        return None

    def _scaled(self, row: _Row, head: Head, since: float) -> tuple[_Row, Head] | None:
        """Return an earlier vector that is `row` but for a factor of each channel, as of a layer scale."""
        for earlier in reversed(self._rows.values()):
            if not since < earlier.time < row.time or earlier.vector.shape != row.vector.shape:
                continue
            a, b = earlier.vector, row.vector
            if earlier.values.shape == row.values.shape:  # all tokens tell more than one
                a, b = (v.double().flatten(0, -2) for v in (earlier.values, row.values))
            factor = (a * b).sum(0) / a.square().sum(0).clamp(min=1e-300)
            if _close(a * factor, b):
                return earlier, Head(head.weight * factor, head.bias)
        return None


def _close(one: Tensor, other: Tensor) -> bool:
    return bool((one - other).abs().amax() <= LINK_TOLERANCE * other.abs().amax())


def _events(trace: Trace, row: int) -> Iterator[tuple[float, Place, Tensor]]:
    """Yield what modules took and gave, and when; a module begins before the first one inside of it ends."""
    begins: dict[str, int] = {}
    runs: Counter[str] = Counter()
    for end, (name, given, output) in enumerate(trace.calls):
        parts = name.split(".")
        for depth in range(1, len(parts) + 1):
            begins.setdefault(".".join(parts[:depth]), end)
        yield begins.pop(name) - 0.5, Place(name, True, row, runs[name]), given
        yield end, Place(name, False, row, runs[name]), output
        runs[name] += 1
