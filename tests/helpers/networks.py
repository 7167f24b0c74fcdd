"""Tiny networks that end in global average pooling and one linear layer, and some that do not."""

from __future__ import annotations

import torch
import torchvision
from torch import Tensor, nn

torch.set_num_threads(1)

CHANNELS = 4
CLASSES = 3


class GapNetwork(nn.Module):
    """Two convolutions, pooling, one linear layer: (N, 3, H, W) to (N, 3)."""

    def __init__(self, bias: bool = True) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, CHANNELS, 3, stride=2, padding=1), nn.ReLU(inplace=True))
        self.body = nn.Sequential(nn.Conv2d(CHANNELS, CHANNELS, 3, stride=2, padding=1), nn.ReLU(inplace=True))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(CHANNELS, CLASSES, bias=bias)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.pool(self.body(self.stem(images))).flatten(1))


class ResidualNetwork(nn.Module):
    """ResNet's end in small: the last block adds its input in place to what `bn` gave, then rectifies in place."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, CHANNELS, 3, stride=4, padding=1)
        self.block = ResidualBlock()
        self.head = nn.Linear(CHANNELS, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.block(self.stem(images)).mean((2, 3)))


class ResidualBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(CHANNELS)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, features: Tensor) -> Tensor:
        out = self.bn(self.conv(features))
        out += features
        return self.relu(out)


class MaxPoolNetwork(GapNetwork):
    """Global maximum pooling, for which CAM does not hold."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.AdaptiveMaxPool2d(1)


class FunctionalReluNetwork(GapNetwork):
    """DenseNet's end: what is pooled is no module's output."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(CHANNELS, CHANNELS, 3, stride=2, padding=1))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.body(self.stem(images)).relu().mean((2, 3)))


class ConvolutionalHeadNetwork(nn.Module):
    """SqueezeNet's end: the last convolution gives a map per class, and what is pooled is the logit."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, CHANNELS, 3, stride=4, padding=1)
        self.head = nn.Sequential(
            nn.Conv2d(CHANNELS, CLASSES, 1), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.stem(images))


class TwoLinearNetwork(GapNetwork):
    """Two linear layers in a row, which are one."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Sequential(nn.Dropout(0.5), nn.Linear(CHANNELS, 7), nn.Identity(), nn.Linear(7, CLASSES))


class NormedNetwork(GapNetwork):
    """ConvNeXt's end: a layer norm between pooling and the linear layer."""

    def __init__(self, affine: bool = True) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(CHANNELS, eps=1e-2, elementwise_affine=affine)
        if affine:
            nn.init.normal_(self.norm.weight)
            nn.init.normal_(self.norm.bias)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.norm(self.pool(self.body(self.stem(images))).flatten(1)))


class NormBetweenNetwork(NormedNetwork):
    """A linear layer, a layer norm, a linear layer: the norm divides by what depends on more than the mean."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(CHANNELS, CHANNELS)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.norm(self.first(self.pool(self.body(self.stem(images))).flatten(1))))


class TwoLayerNetwork(GapNetwork):
    """MobileNetV3's end: an activation between two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Sequential(nn.Linear(CHANNELS, 7), nn.ReLU(), nn.Linear(7, CLASSES))


class FunctionalActivationNetwork(TwoLayerNetwork):
    """An activation between two linear layers that is no module."""

    def forward(self, images: Tensor) -> Tensor:
        first, _, last = self.head
        return last(first(self.pool(self.body(self.stem(images))).flatten(1)).tanh())


class FailingNetwork(GapNetwork):
    """Raises after its target layer ran."""

    def forward(self, images: Tensor) -> Tensor:
        super().forward(images)
        raise RuntimeError("out of memory, say")


class RandomDropNetwork(GapNetwork):
    """Not deterministic: what the linear layer takes is not what the layer gave."""

    noisy = False

    def forward(self, images: Tensor) -> Tensor:
        pooled = self.pool(self.body(self.stem(images))).flatten(1)
        return self.head(pooled + 1 if self.noisy else pooled)


def randomised(network: nn.Module, seed: int = 0) -> nn.Module:
    """Return `network` in evaluation mode, its batch normalisation with statistics as if it had learned."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            with torch.no_grad():
                module.weight.copy_(torch.rand(module.num_features, generator=generator) * 0.8 + 0.4)
                module.bias.copy_(torch.randn(module.num_features, generator=generator) * 0.2)
                module.running_mean.copy_(torch.randn(module.num_features, generator=generator) * 0.2)
                module.running_var.copy_(torch.rand(module.num_features, generator=generator) + 0.5)
    return network.eval()


def seeded(factory: type[nn.Module], seed: int = 0) -> nn.Module:
    """Return `factory()` with weights that `seed` decides, in evaluation mode."""
    torch.manual_seed(seed)
    return randomised(factory(), seed)


def torchvision_network(name: str, class_count: int = 4) -> nn.Module:
    """Return torchvision's network of that name with random weights, in evaluation mode."""
    torch.manual_seed(1)
    extra = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    network = torchvision.models.get_model(name, weights=None, num_classes=class_count, **extra)
    if name.startswith("vit_"):  # whose head starts with zeros
        nn.init.normal_(network.heads.head.weight, std=0.05)
    return randomised(network)


def random_images(count: int, height: int, width: int, seed: int = 0) -> Tensor:
    """Return normalised images, float32 (count, 3, height, width)."""
    return torch.randn((count, 3, height, width), generator=torch.Generator().manual_seed(seed))


def hook_count(network: nn.Module) -> int:
    """Return how many hooks of any kind hang on any module."""
    return sum(len(v) for m in network.modules() for k, v in vars(m).items() if k.endswith("_hooks"))


class OtherChannelsNetwork(GapNetwork):
    """Takes images of another number of channels than three."""

    def __init__(self, channels: int, classes: int = CLASSES) -> None:
        super().__init__()
        self.stem[0] = nn.Conv2d(channels, CHANNELS, 3, stride=2, padding=1)
        self.head = nn.Linear(CHANNELS, classes)


def grey_findings() -> nn.Module:
    """Return a network as torchxrayvision's are: one channel, 18 findings."""
    return seeded(lambda: OtherChannelsNetwork(1, 18))


def five_channels() -> nn.Module:
    return seeded(lambda: OtherChannelsNetwork(5))
