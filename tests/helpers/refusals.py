"""What explain refuses, and what it says then: the table is a test, and the page of the docs that lists it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import cv2
import numpy as np
import torch
from torch import nn

from batchcam.network.checkpoint import pack_checkpoint
from tests.helpers.desk import NAMES, SAID, SMALL, Desk, state
from tests.helpers.networks import GapNetwork, seeded, torchvision_network

HERE = __name__


class NormedOverBatch(GapNetwork):
    """A network whose answer for an image depends on the images beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3, affine=False, track_running_stats=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(self.norm(images))


@dataclasses.dataclass(frozen=True)
class Refusal:
    """An input that explain refuses.

    Attributes:
        given: what it is, in the docs' words.
        says: the whole error, without the folder of what was given; … stands for any words.
        cause: makes the input.
        code: how the command ends.
    """

    given: str
    says: str
    cause: Callable[[Desk], object]
    code: int = 1


def own(desk: Desk, names: tuple[str, ...] = NAMES) -> None:
    """Let the checkpoint be one that says everything."""
    desk.model, desk.view = "", ()
    network = torchvision_network(SMALL, 3)
    desk.checkpoint.write_bytes(pack_checkpoint(network.state_dict(), SMALL, names, SAID, {}))


def own_with(*words: object) -> Callable[[Desk], None]:
    def cause(desk: Desk) -> None:
        own(desk)
        desk.words = words

    return cause


def said(**changes: object) -> Callable[[Desk], None]:
    """Give the desk other values."""

    def cause(desk: Desk) -> None:
        for name, value in changes.items():
            setattr(desk, name, value)

    return cause


def rows(*lines: tuple[str, ...], names: tuple[str, ...] = NAMES) -> Callable[[Desk], None]:
    return lambda desk: desk.manifest(*lines, names=names)


def text(content: bytes) -> Callable[[Desk], None]:
    def cause(desk: Desk) -> None:
        (desk.folder / "list.csv").write_bytes(content)
        desk.data = str(desk.folder / "list.csv")

    return cause


def stored(content: bytes) -> Callable[[Desk], None]:
    return lambda desk: desk.checkpoint.write_bytes(content)


def labels(*values: str, names: tuple[str, ...] = NAMES) -> Callable[[Desk], None]:
    return rows(("path", "label"), *((f"{number}.png", value) for number, value in enumerate(values, 1)), names=names)


def saved(content: Callable[[], object]) -> Callable[[Desk], None]:
    return lambda desk: desk.save(content())


def kept(*words: object) -> Callable[[Desk], None]:
    """Let a run be there, and ask for something else."""

    def cause(desk: Desk) -> None:
        assert desk.explain()[0] == 0
        desk.words = words

    return cause


def emptied(desk: Desk) -> None:
    for path in desk.class_folders(*NAMES).glob("*/*.png"):
        path.write_bytes(b"")


def of_twelve_bits(desk: Desk) -> None:
    for path in desk.class_folders(*NAMES).glob("*/*.png"):
        cv2.imwrite(str(path), np.full((8, 8), 4095, np.uint16))


def compressed(desk: Desk) -> None:
    (desk.folder / "photos.tar.gz").write_bytes(b"\x1f\x8b")
    desk.data = str(desk.folder / "photos.tar.gz")


def without_images(desk: Desk) -> None:
    (desk.class_folders("ant") / "ant/1.png").unlink()


def inside(desk: Desk) -> None:
    desk.data = str(desk.class_folders(*NAMES).parent)


def numbered(desk: Desk) -> None:
    desk.class_folders("0", "1", "2")
    desk.words = ("--label-kind", "indices")


def renamed(desk: Desk) -> None:
    own(desk)
    desk.class_names("bee", "ant", "cat")


def in_a_folder(desk: Desk) -> None:
    (desk.checkpoint / "version_0").mkdir(parents=True)
    torch.save(state(), desk.checkpoint / "version_0/last.ckpt")


def carrying(desk: Desk) -> None:
    desk.save({"state_dict": state(), "classes": NAMES, "class_names": NAMES[::-1]})


REFUSALS: tuple[Refusal, ...] = (
    Refusal(
        "`train/`, `val/`, `test/` where class folders should be",
        "images: its folders are parts of a dataset, not classes: train, val; did you mean images/val?",
        lambda d: d.class_folders("train", "val"),
    ),
    Refusal(
        "class folders without images",
        "images: no images in its class folders: looked for .apng, .avif, …",
        without_images,
    ),
    Refusal(
        "a run inside of its dataset",
        "--out run: is, or lies in, the dataset: the run would become one of its classes; choose another --out",
        inside,
        2,
    ),
    Refusal(
        "images of which none of the first can be read",
        "images: none of the first 3 images can be read: empty file: is the storage there? Run the same "
        "command again when it is",
        emptied,
        75,
    ),
    Refusal(
        "images of which none of the first is of a kind that can be read",
        "images: none of the first 3 images can be read: 16-bit values of at most 4095: a dark image, or one of fewer "
        "bits? Say --bits 16, or how many are used, such as --bits 12",
        of_twelve_bits,
    ),
    Refusal(
        "a manifest with columns of other names",
        "list.csv: line 1: no column named path: the header needs path[,label][,id], found image_id, diagnosis: say "
        "--columns path=image_id,label=diagnosis, with --root and --suffix where need be",
        text(b"image_id;diagnosis\n1;ant\n"),
    ),
    Refusal(
        "a manifest whose paths lack their ending",
        "list.csv: none of its files is there, but 1.png: say --suffix .png",
        rows(("path", "label"), ("1", "ant"), ("2", "bee")),
    ),
    Refusal(
        "a tar that is compressed as a whole",
        "photos.tar.gz: is compressed as a whole, so that no image can be read alone: unpack it to a .tar",
        compressed,
    ),
    Refusal(
        "a manifest in another encoding than UTF-8, or UTF-16 with its mark",
        "list.csv: neither UTF-8 nor marked as UTF-16, but another encoding, such as Windows-1252: save it as UTF-8, "
        "such as by iconv -f WINDOWS-1252 -t UTF-8",
        text("path,label\n1.png,Bär\n".encode("cp1252")),
    ),
    Refusal(
        "two columns that may be the label, or the path",
        "list.csv: line 1: two columns named label, or that could be it: class, target: rename one",
        text(b"path,class,target\n1.png,a,b\n"),
    ),
    Refusal(
        "several classes of one sample",
        "list.csv: line 3: label cat|dog is several labels (multi-label), and a sample has one here: "
        "--problem-type multi-label reads them where each is a class of the network",
        labels("ant", "cat|dog"),
    ),
    Refusal(
        "one id twice",
        "list.csv: line 3: id '1.png' is already on line 2: remove one, or add a column id with a different "
        "value for each line",
        rows(("path",), ("1.png",), ("1.png",)),
    ),
    Refusal(
        "a class that the model does not know",
        "list.csv: the model does not know these classes of the dataset: dog; name them as the model does",
        labels("ant", "dog"),
    ),
    Refusal(
        "a number that is no class index and no class name",
        "list.csv: label 7 of sample 1 is outside the 3 classes: labels are 0…2, -1 where not known; and as a"
        " class name the model does not know 1",
        labels("1", "7"),
    ),
    Refusal(
        "a negative class index",
        "list.csv: label -1: class indices start at 0; leave the field empty where the label is not known, or"
        " name the classes with --class-names if these are names",
        labels("-1", "0", names=()),
    ),
    Refusal(
        "named classes where `--label-kind` says indices",
        "images: names its classes, such as 0, where --label-kind, or the run, says that labels are class "
        "indices: give indices, or leave the option out",
        numbered,
    ),
    Refusal(
        "fewer classes than the checkpoint has",
        "images: has 2 classes, the checkpoint 3; name them all with --class-names FILE",
        lambda d: d.class_folders("ant", "bee"),
    ),
    Refusal(
        "`--class-names` with a name twice",
        "--class-names names.txt: expected one name a line, each once",
        lambda d: d.class_names("ant", "ant", "cat"),
        2,
    ),
    Refusal(
        "`--class-names` with fewer names than classes",
        "network.pth: 2 class names for 3 classes",
        lambda d: d.class_names("ant", "bee"),
    ),
    Refusal(
        "`--class-names` other than the checkpoint's, or in another order",
        "--class-names names.txt: not the class names that the checkpoint says, in their order; leave the option out",
        renamed,
        2,
    ),
    Refusal(
        "a checkpoint that names fewer classes than it has",
        "network.pth: 2 class names for 3 classes",
        lambda d: own(d, NAMES[:2]),
    ),
    Refusal(
        "a checkpoint that names its classes twice, and differently",
        "network.pth: its classes and class_names name other classes, or in another order; say --class-names "
        "FILE with the ones that are meant",
        carrying,
    ),
    Refusal(
        "no architecture",
        "network.pth: does not say its architecture; name it with --arch, such as resnet18, or --model",
        said(model=""),
        2,
    ),
    Refusal(
        "a network of transformers' that is not here",
        "--arch hf:somebody/net: no directory with a config.json, no model in the cache of Hugging Face, and no kind "
        "of network that transformers has, such as resnet: `hf download somebody/net config.json` brings it to the "
        "cache, or give the directory as the checkpoint",
        said(model="", words=("--arch", "hf:somebody/net")),
        2,
    ),
    Refusal(
        "another architecture than the checkpoint says",
        "--arch resnet18: the checkpoint says shufflenet_v2_x0_5; leave the option out",
        own_with("--arch", "resnet18"),
        2,
    ),
    Refusal(
        "weights of another architecture",
        "network.pth: its keys are not shufflenet_v2_x0_5's: … missing (…); … unexpected (…); name its own "
        "architecture with --arch; a changed network is built by --model module:callable",
        said(model="", words=("--arch", SMALL)),
    ),
    Refusal(
        "a checkpoint of several networks",
        "network.pth: holds several networks' weights: say which with --weights-key generator, critic",
        saved(lambda: {"generator": state(), "critic": state()}),
    ),
    Refusal(
        "weights that are not there",
        "network.pth: --weights-key ema: no weights there; it holds the top, with names that begin with stem,"
        " body, head",
        said(words=("--weights-key", "ema")),
    ),
    Refusal(
        "a whole pickled network",
        "network.pth: refused: it holds more than tensors and plain values: an object of "
        "tests.helpers.networks.GapNetwork, and no state dict; in the program that made it: "
        "torch.save(network.state_dict(), 'weights.pth')",
        saved(lambda: seeded(GapNetwork)),
    ),
    Refusal(
        "a folder of a training",
        "network.pth: not a checkpoint, but a directory: name the checkpoint in it, such as version_0/last.ckpt",
        in_a_folder,
    ),
    Refusal(
        "a Git LFS pointer",
        "network.pth: not a checkpoint, but a Git LFS pointer, which stands for the file: fetch it with `git lfs pull`",
        stored(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"),
    ),
    Refusal(
        "a network whose answer for an image depends on the others",
        "the network's answer for an image depends on the other images of its batch: alone, its logits differ"
        " by …; 'norm' (BatchNorm2d) normalises by the statistics of the batch, as it has no running ones "
        "(track_running_stats=False)",
        said(model=f"{HERE}:NormedOverBatch"),
    ),
    Refusal(
        "a layer whose maps do not add up to the logits",
        "target layer 'stem' is not what the classifier pools: mean(CAM) + bias misses the logit by … of its "
        "size (tolerance 0.0001); leave --target-layer out to find the right one, or say --no-identity",
        said(words=("--target-layer", "stem")),
    ),
    Refusal(
        "maps of all classes by gradients",
        "--cams all: --method gradcam takes a backward pass for each class; choose predicted, predicted+label"
        " or topk:N",
        said(words=("--method", "gradcam", "--cams", "all")),
        2,
    ),
    Refusal(
        "no preprocessing",
        "the checkpoint does not say its preprocessing; say --preprocess imagenet, stl10 or torchvision's "
        "name of the weights, or all of --image-size, --mean and --std",
        said(view=()),
        2,
    ),
    Refusal(
        "other preprocessing than the checkpoint says",
        "the checkpoint was trained with other preprocessing: {'resize': [10], 'image_size': [8, 8], 'mean': "
        "[0.5, 0.5, 0.5], 'std': [0.5, 0.5, 0.5], 'interpolation': 'bilinear'}; leave the options out",
        own_with("--preprocess", "imagenet"),
        2,
    ),
    Refusal(
        "two options that say the size of one image",
        "--resize and --crop-pct exclude each other: each says what an image is resized to",
        said(words=("--resize", "9", "--crop-pct", "0.9")),
        2,
    ),
    Refusal(
        "a crop larger than the image is after resizing",
        "image_size: 8x8 is larger than what resize 7 guarantees: crop less or resize to more",
        said(words=("--resize", "7")),
        2,
    ),
    Refusal(
        "a share that is none",
        "--task 4/4: expected i/n with i from 0 to n-1, such as 0/4",
        said(words=("--task", "4/4")),
        2,
    ),
    Refusal(
        "a device that is not there",
        "--device cuda:99: not on this machine; there are: …",
        said(words=("--device", "cuda:99")),
    ),
    Refusal(
        "a GPU that was asked for where none works",
        "--device auto: a GPU was asked for, as CUDA_VISIBLE_DEVICES=0 says, but torch … finds none that "
        "works: …; mend that, or say --device cpu",
        said(variables={"CUDA_VISIBLE_DEVICES": "0"}),
    ),
    Refusal(
        "a run that was planned otherwise",
        "run: was planned otherwise: maps (uint8 there, none here); leave the option out, or choose another --out",
        kept("--maps", "none"),
    ),
)
