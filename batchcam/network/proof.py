"""The proof: find the layer that the logits are an exact linear map of, and measure that they are."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from batchcam.errors import ModelError
from batchcam.network.affine import affine_head, affine_layer
from batchcam.network.compiled import CompiledNetwork
from batchcam.network.gains import behind
from batchcam.network.heads import Head, heads
from batchcam.network.ledger import Heard, Ledger, find_ledger
from batchcam.network.tail import ending
from batchcam.network.target_layer import ALL_TOKENS, ATTENTION, CLASS_AND_TOKENS, TOKENS, TargetLayer
from batchcam.network.terms import Gain, Norm, Terms
from batchcam.network.tokens import MOST_PREFIX, TokenGrids
from batchcam.network.tracing import Trace, finite_trace, output_of
from batchcam.rules import IDENTITY_TOLERANCE, OPENVINO, Tokens

FEATURE_TOLERANCE = 1e-5
"""A layer is what is pooled when its spatial mean is the pooled vector up to this share of its size."""

KINDS = tuple(TargetLayer("", relu, channels_last=last) for last in (False, True) for relu in (False, True))
"""What a network may do with a module's output before it pools it."""

TOKEN_KINDS = (TOKENS, ALL_TOKENS, CLASS_AND_TOKENS)
"""What it may pool of tokens."""

SIZE_OF_SEVERAL_CELLS = 64
"""Pixels a side: networks divide by 32 at most, nearly all of them."""

MOST_GAINS = 3
"""Activations and norms that are looked for between pooling and the classifier."""

WAY_OUT = "--method gradcam explains such networks, without an identity"


@dataclasses.dataclass(frozen=True)
class ExactNetwork:
    """A network in evaluation mode whose logits are an exact linear map of its pooled target layer.

    Attributes:
        network: images (N, C, H, W) to logits (N, K).
        target_layer: the activations that are explained, see TargetLayer.
        weight: W of the map from pooled activations to logits, float32 (K, C), detached.
        bias: b of that map, float32 (K,).
        grid_size: (h, w) of the activations.
        residual: largest abs(mean(CAM) + bias - logit) on the probe, relative to max(1, largest abs(logit)).
        norm: what the pooled activations are divided by, None where it is nothing.
        ledger: how the logits are a sum over tokens, where these are no layer's mean.
        gains: what lies between these sums and the classifier that is not linear, the first one first.
        engine_choice: why it is computed by what computes it; "" where there was no choice.
    """

    network: nn.Module
    target_layer: str
    weight: Tensor
    bias: Tensor
    grid_size: tuple[int, int]
    residual: float
    norm: Norm | None = None
    ledger: Ledger | None = None
    gains: tuple[Gain, ...] = ()
    engine_choice: str = ""

    @property
    def layer(self) -> nn.Module:
        """The module whose output is explained."""
        if isinstance(self.network, CompiledNetwork):
            return self.network.target
        return self.network.get_submodule(TargetLayer.parse(self.target_layer).name)

    @property
    def engine(self) -> str:
        """What computes the network, as a plan has it."""
        return OPENVINO if isinstance(self.network, CompiledNetwork) else ""

    @property
    def class_count(self) -> int:
        """K."""
        return self.weight.shape[0]

    @property
    def channels(self) -> int:
        """C of the activations."""
        return self.weight.shape[1]

    def classifier(self) -> tuple[np.ndarray, np.ndarray]:
        """Return W and b as a record holds them."""
        return self.weight.cpu().numpy(), self.bias.cpu().numpy()

    @property
    def has_offset(self) -> bool:
        """Whether some of the logits, besides their bias, lies in no cell."""
        layer = TargetLayer.parse(self.target_layer)
        return layer.gained or (bool(layer.tokens) and layer.pooled != TOKENS)

    @property
    def told(self) -> str:
        """What maps are of, for people; "" for the mean of a layer."""
        remarks = [self.ledger.told] if self.ledger else []
        if self.gains:
            remarks.append(
                "maps: activations or norms lie between what is pooled and the classifier; each counts by what it "
                "multiplies the sample's own numbers by; what biases add there is part of the offset"
            )
        return "; ".join(remarks)

    def terms(self, captured: Tensor | Heard) -> Terms:
        """Return what the logits are a sum of, float32, from what was captured of a forward pass."""
        return self._terms(captured, self.gains)

    def _terms(self, captured: Tensor | Heard, gains: Sequence[Gain]) -> Terms:
        first, *weights = [*(gain.weight for gain in self.gains), self.weight]
        if isinstance(captured, Heard):
            assert self.ledger is not None
            terms = self.ledger.terms(captured)
        else:
            terms = TargetLayer.parse(self.target_layer).terms(captured.float(), first, self.norm)
        for gain, weight in zip(gains, weights, strict=False):
            terms = gain.through(terms, weight)
        return terms

    def features(self, captured: Tensor | Heard) -> Tensor:
        """Return f, (N, C) float32, from what was captured: W f + b = logits; no part of f is set apart as offset."""
        if self.gains:
            *before, last = self.gains
            return last.values(self._terms(captured, before))
        if isinstance(captured, Heard):
            assert self.ledger is not None
            return self.ledger.features(captured)
        return TargetLayer.parse(self.target_layer).features(captured.float(), self.norm)


def prove(
    network: nn.Module, probe: Tensor, target_layer: str | None = None, tokens: Tokens | None = None
) -> ExactNetwork:
    """Find the layer of whose spatial mean the logits are an exact linear map, and measure the identity on a probe.

    Where there is none, what attention brings from tokens into the one that the classifier takes, see `ledger`.

    Args:
        network: in evaluation mode, on the probe's device.
        probe: normalised images, (N, C, H, W).
        target_layer: name of a layer to take instead of the one found; the identity is measured all the same.
        tokens: which tokens are cells; None: to be found.

    Raises:
        ModelError: there is no such layer, none of that name, or no finite logits.
    """
    if len(probe) == 1:
        probe = torch.cat([probe, probe.flip(3)])  # what is constant shows in two
    trace = finite_trace(network, probe)
    found = list(heads(network, trace))
    layer = None if target_layer is None else TargetLayer.parse(target_layer)
    grids = TokenGrids(network, probe, trace, (layer and layer.tokens) or tokens)
    if layer is None or layer.pooled == ATTENTION or layer.gained:
        proved = _searched(network, probe, trace, found, grids)[0]
        if target_layer not in (None, proved.target_layer):
            raise ModelError(f"target layer {target_layer!r}: the network has none of this kind; leave it out")
        return proved
    output = output_of(network, trace, layer.name, layer.takes)
    channels = layer.vector(output).shape[1]
    # the logits themselves are what is pooled only where no linear layer gives them
    fitting = [head for _, head in found[1:] or found if head.width == channels]
    if not fitting and (affine_map := affine_head(network, probe, layer)):
        fitting = [affine_map]
    if not fitting:
        last = found[-1][1]
        raise ModelError(
            f"target layer {target_layer!r} has {channels} channels, the classifier {last.layer!r} takes {last.width}"
        )
    return min((_measured(network, trace, layer, head)[0] for head in fitting), key=lambda m: m.residual)


def require_identity(proved: ExactNetwork, precision: str) -> None:
    """Raise ModelError, with the measured residual, unless mean(CAM) + bias is the logit."""
    tolerance = IDENTITY_TOLERANCE[precision]
    if not proved.residual <= tolerance:
        raise ModelError(
            f"target layer {proved.target_layer!r} is not what the classifier pools: mean(CAM) + bias misses the logit "
            f"by {proved.residual:.2g} of its size (tolerance {tolerance:g}); leave --target-layer out to find the "
            "right one, or say --no-identity"
        )


_Proved = tuple[ExactNetwork, Terms]  # and what its logits are a sum of, of the probe


def _searched(
    network: nn.Module,
    probe: Tensor,
    trace: Trace,
    found: list[tuple[Tensor, Head]],
    grids: TokenGrids,
    most_gains: int = MOST_GAINS,
) -> _Proved:
    """Return the network by whatever way its logits, or what of it the trace has for these, are a sum over cells.

    Raises:
        ModelError: there is none.
    """
    try:
        layer, head = _pooled_layer(network, trace, found, grids)
        _require_grid(network, probe, layer, trace.outputs[layer.name])
        return _measured(network, trace, layer, head)
    except ModelError:
        if proved := _with_ledger(network, probe, trace, found, grids):
            return proved
        affine = affine_layer(network, probe, trace) if most_gains == MOST_GAINS else None
        if affine is not None:
            _require_grid(network, probe, affine[0], trace.outputs[affine[0].name])
            return _measured(network, trace, *affine)
        if most_gains and (proved := _gained(network, probe, trace, found, grids, most_gains - 1)):
            return proved
        raise


def _gained(
    network: nn.Module,
    probe: Tensor,
    trace: Trace,
    found: list[tuple[Tensor, Head]],
    grids: TokenGrids,
    most_gains: int,
) -> _Proved | None:
    for each in behind(network, trace, found):
        entering = dataclasses.replace(trace, logits=each.entering)
        try:
            inner, terms = _searched(network, probe, entering, each.found, grids, most_gains)
        except ModelError:
            continue
        gain = Gain(inner.weight, inner.bias, each.activation, each.head.norm)
        weight, bias = each.head.weight.float(), each.head.bias.float()
        terms = gain.through(terms, weight)
        proved = dataclasses.replace(
            inner,
            target_layer=str(dataclasses.replace(TargetLayer.parse(inner.target_layer), gained=True)),
            weight=weight,
            bias=bias,
            residual=_relative_residual(terms, bias, trace.logits),
            gains=(*inner.gains, gain),
        )
        return proved, terms
    return None


def _with_ledger(
    network: nn.Module, probe: Tensor, trace: Trace, found: list[tuple[Tensor, Head]], grids: TokenGrids
) -> _Proved | None:
    if (ledger_and_heard := find_ledger(network, probe, trace, found, grids)) is None:
        return None
    ledger, heard = ledger_and_heard
    layer = TargetLayer(
        ledger.place.module,
        normed=ledger.norm.kind if ledger.norm else "",
        tokens=ledger.tokens,
        pooled=ATTENTION,
        layers=len(ledger.branches),
    )
    terms = ledger.terms(heard)
    proved = ExactNetwork(
        network=network,
        target_layer=str(layer),
        weight=ledger.weight,
        bias=ledger.bias,
        grid_size=(ledger.tokens.height, ledger.tokens.width),
        residual=_relative_residual(terms, ledger.bias, trace.logits),
        norm=ledger.norm,
        ledger=ledger,
    )
    return proved, terms


def _pooled_layer(
    network: nn.Module, trace: Trace, found: list[tuple[Tensor, Head]], grids: TokenGrids
) -> tuple[TargetLayer, Head]:
    """Return the layer whose mean is one of the vectors, and its head: of several, the one with most cells."""
    fitting = [
        (layer, head)
        for vector, head in found
        for kind in KINDS
        if (layer := _layer_with_mean(network, trace, vector, kind))
    ]
    if not fitting:
        fitting = [(layer, head) for vector, head in found if (layer := _tokens_with_mean(trace, vector, grids))]
    if fitting:
        return max(fitting, key=lambda each: _cell_count(each[0].grid(trace.outputs[each[0].name])))
    if len(found) == 1:
        raise ModelError(
            f"no linear layer gives the network's output{_in_the_way(network, trace)}: CAM needs global average "
            f"pooling and one linear layer at the end; {WAY_OUT}"
        )
    vector, head = found[1]
    raise ModelError(
        f"no module's output, averaged over space, is what the last linear layer {head.layer!r} takes"
        f"{_tokens_in_the_way(trace, vector)}: CAM needs global average pooling right before it, which VGG, AlexNet "
        f"and others do not have, or attention that is added to it; {WAY_OUT}"
    )


def _tokens_in_the_way(trace: Trace, vector: Tensor) -> str:
    """Return whose tokens are averaged, though no grid is known of them."""
    limit = FEATURE_TOLERANCE * vector.float().abs().amax()
    for name, output in trace.outputs.items():
        if output.ndim == 3 and len(output) == len(vector) and output.shape[2] == vector.shape[1]:
            for prefix in range(min(MOST_PREFIX, output.shape[1] - 1) + 1):
                if (output[:, prefix:].float().mean(1) - vector.float()).abs().amax() <= limit:
                    before = f", and {prefix} before these" if prefix else ""
                    return (
                        f" (it is the mean of {output.shape[1] - prefix} tokens of {name!r}{before}, whose grid is not "
                        "found: say which tokens are cells with --tokens)"
                    )
    return ""


def _in_the_way(network: nn.Module, trace: Trace) -> str:
    """Return what the network ends in, by what it returns and by its last layer."""
    tail = ending(trace.logits)
    name = next((n for n in reversed(trace.outputs) if not any(network.get_submodule(n).children())), None)
    last = f"its last layer is {name!r} ({type(network.get_submodule(name)).__name__})" if name else ""
    said = (f"it returns what a {tail} does: let it return what enters that" if tail else "", last)
    told = "; ".join(part for part in said if part)
    return f" ({told})" if told else ""


def _layer_with_mean(network: nn.Module, trace: Trace, vector: Tensor, kind: TargetLayer) -> TargetLayer | None:
    """Return the layer whose spatial mean `vector` is: of several, the one with most cells, then the outermost."""
    scale = vector.float().abs().amax().clamp(min=1e-30)

    def fits(output: Tensor) -> bool:
        if output.ndim != 4 or kind.grid(output).shape[:2] != vector.shape:
            return False
        return bool((kind.vector(output.float()) - vector.float()).abs().amax() <= FEATURE_TOLERANCE * scale)

    fitting = {name: kind.grid(output) for name, output in trace.outputs.items() if fits(output)}
    # the first one to run tells where the features come from: a pooling layer's single cell is its own mean
    if not fitting or _pools_otherwise(network, trace, kind, next(iter(fitting))):
        return None
    name = min(fitting, key=lambda name: (-_cell_count(fitting[name]), name.count(".")))
    return dataclasses.replace(kind, name=name)


def _tokens_with_mean(trace: Trace, vector: Tensor, grids: TokenGrids) -> TargetLayer | None:
    """Return the tokens whose mean `vector` is: the outermost ones."""
    limit = FEATURE_TOLERANCE * vector.float().abs().amax()
    for name in sorted(trace.outputs, key=lambda name: name.count(".")):
        output = trace.outputs[name]
        if (
            output.ndim != 3
            or len(output) != len(vector)
            or output.shape[2] not in (vector.shape[1], vector.shape[1] / 2)
        ):
            continue
        if (tokens := grids.of(output.shape[1])) is None:
            continue
        for pooled in TOKEN_KINDS:
            layer = TargetLayer(name, tokens=tokens, pooled=pooled)
            mean = layer.vector(output.float())
            if mean.shape == vector.shape and (mean - vector.float()).abs().amax() <= limit:
                return layer
    return None


def _pools_otherwise(network: nn.Module, trace: Trace, kind: TargetLayer, name: str) -> bool:
    """Return whether layer `name`, such as a global maximum pooling, makes one cell of many without weights."""
    before, after = trace.inputs[name], kind.grid(trace.outputs[name])
    learned = any(True for _ in network.get_submodule(name).parameters())
    return not learned and before.ndim == 4 and _cell_count(kind.grid(before)) > 1 and _cell_count(after) == 1


def _cell_count(grid: Tensor) -> int:
    return grid.shape[2] * grid.shape[3]


def _require_grid(network: nn.Module, probe: Tensor, layer: TargetLayer, output: Tensor) -> None:
    """Refuse a layer that gives one cell though the image is large enough for more: such maps show no place."""
    height, width = (max(side, SIZE_OF_SEVERAL_CELLS) for side in probe.shape[2:])
    if _cell_count(layer.grid(output)) == 1 and (height, width) != tuple(probe.shape[2:]):
        try:
            output = finite_trace(network, F.interpolate(probe[:1], (height, width))).outputs[layer.name]
        except Exception:  # whatever a network for one size of images raises at another
            return
    if _cell_count(layer.grid(output)) == 1:
        raise ModelError(
            f"what the classifier takes, {layer.name!r}, has one cell for images of {height}x{width}: CAM needs global "
            f"average pooling of a grid right before the classifier; {WAY_OUT}"
        )


def _measured(network: nn.Module, trace: Trace, layer: TargetLayer, head: Head) -> _Proved:
    weight, bias = head.weight.float(), head.bias.float()
    terms = layer.terms(trace.outputs[layer.name].float(), weight, head.norm)
    height, width = terms.cells[0].values.shape[2:]
    proved = ExactNetwork(
        network=network,
        target_layer=str(dataclasses.replace(layer, normed=head.norm.kind if head.norm else "")),
        weight=weight,
        bias=bias,
        grid_size=(height, width),
        residual=_relative_residual(terms, bias, trace.logits),
        norm=head.norm,
    )
    return proved, terms


def _relative_residual(terms: Terms, bias: Tensor, logits: Tensor) -> float:
    """Return how far the terms are from adding up to the logits, as a share of the sample's largest logit.

    Means of cells are the means of their maps: what is proved here of the layer, the explainer measures of every map.
    """
    residual = (terms.logits() + bias - logits.float()).abs().amax(1)
    return float((residual / logits.float().abs().amax(1).clamp(min=1)).amax())
