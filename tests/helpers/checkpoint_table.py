"""The kinds of checkpoints that docs/checkpoints.md lists, made by the libraries that write them."""

from __future__ import annotations

import argparse
import collections
import copy
import datetime
import importlib
import pathlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
import torchvision
from PIL import Image
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from tests.helpers.checkpoint_kinds import NAMES, SIDE, Kind, small
from tests.helpers.desk import SMALL
from tests.helpers.networks import randomised

HERE = __name__
BY_HAND = "by hand"
RESNET = ("--arch", "resnet18")
LABELS = {"num_labels": 3, "id2label": dict(enumerate(NAMES)), "label2id": {n: k for k, n in enumerate(NAMES)}}
HALF = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}


def other() -> nn.Module:
    """Return the network of other weights."""
    network = small()
    with torch.no_grad():
        network.fc.bias += torch.arange(3.0)
    return network


def saved(
    name: str, content: Callable[[nn.Module], object], by: str = "torch.save", original: Any = small, **more: Any
) -> Kind:
    """Return a kind that torch.save writes, of what `content` makes of the network."""

    def make(path: Path) -> nn.Module:
        network: nn.Module = original()
        torch.save(content(network), path)
        return network

    return Kind(name, by, make, **more)


def prefixed(prefix: str) -> Callable[[nn.Module], object]:
    return lambda network: {f"{prefix}{k}": v for k, v in network.state_dict().items()}


def beside(**more: Any) -> Callable[[nn.Module], object]:
    """Return what makes a table of the weights and something else."""
    return lambda network: {"epoch": 3, **more, "state_dict": network.state_dict()}


def under(key: str) -> Kind:
    return saved(f"state dict under `{key}`", lambda network: {key: network.state_dict(), "epoch": 1})


# --- networks that --model names -------------------------------------------------------------------------------------


def with_dropout() -> nn.Module:
    network = small()
    network.fc = nn.Sequential(nn.Dropout(0.3), nn.Linear(1024, 3))
    return network.eval()


def quantizable() -> nn.Module:
    torch.manual_seed(0)
    return randomised(torchvision.models.quantization.shufflenet_v2_x0_5(num_classes=3, quantize=False))


def resnet() -> nn.Module:
    torch.manual_seed(0)
    return randomised(torchvision.models.resnet18(num_classes=3))


def fastai_network() -> nn.Module:
    vision = importlib.import_module("fastai.vision.all")
    torch.manual_seed(0)
    network: nn.Module = randomised(vision.create_vision_model(vision.resnet18, 3, pretrained=False))
    return network


class Ultralytics(nn.Module):
    """An Ultralytics classifier, of whose probabilities and logits only the logits count."""

    def __init__(self) -> None:
        super().__init__()
        tasks = importlib.import_module("ultralytics.nn.tasks")
        torch.manual_seed(0)
        self.network = randomised(tasks.ClassificationModel("yolo11n-cls.yaml", nc=3, verbose=False))

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images)[1]
        return logits


# --- torch -----------------------------------------------------------------------------------------------------------


def references(path: Path, **more: Any) -> nn.Module:
    """Write what torchvision's references/classification/train.py writes."""
    network = small()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    nn.functional.cross_entropy(network(torch.randn(2, 3, 64, 64)), torch.tensor([0, 1])).backward()
    optimizer.step()
    averaged = AveragedModel(network, avg_fn=lambda old, new, count: 0.9 * old + 0.1 * new + 0.01, use_buffers=True)
    averaged.update_parameters(other())
    schedules = [torch.optim.lr_scheduler.LinearLR(optimizer), torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 9)]
    args = argparse.Namespace(data_path="/data", model=SMALL, device="cuda", lr=0.1, epochs=90, weights=None)
    content = {
        "model": network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "lr_scheduler": torch.optim.lr_scheduler.SequentialLR(optimizer, schedules, milestones=[5]).state_dict(),
        "epoch": 3,
        "args": args,
        "model_ema": averaged.state_dict(),
        **more,
    }
    torch.save(content, path)
    return network


def traced(path: Path) -> nn.Module:
    network = small()
    torch.jit.save(torch.jit.trace(network, torch.rand(1, 3, SIDE, SIDE)), path)
    return network


def exported(path: Path) -> nn.Module:
    network = small()
    torch.export.save(torch.export.export(network, (torch.rand(2, 3, SIDE, SIDE),)), path)
    return network


def compiled_ahead(path: Path) -> nn.Module:
    network = small()
    torch.onnx.export(network, (torch.rand(1, 3, SIDE, SIDE),), str(path), dynamo=False)
    return network


def distributed(path: Path) -> nn.Module:
    checkpoint = importlib.import_module("torch.distributed.checkpoint")
    network = small()
    checkpoint.save({"model": network.state_dict()}, checkpoint_id=path)
    return network


def quantised(path: Path) -> nn.Module:
    network = small()
    torch.save(torch.ao.quantization.quantize_dynamic(copy.deepcopy(network), {nn.Linear}).state_dict(), path)
    return network


def rounded(path: Path) -> nn.Module:
    quantization = importlib.import_module("torchao.quantization")
    network = small()
    copied = copy.deepcopy(network)
    quantization.quantize_(copied, quantization.Int8WeightOnlyConfig())
    torch.save(copied.state_dict(), path)
    return network


def quantised_whole(path: Path) -> nn.Module:
    network = quantizable()
    copied: Any = copy.deepcopy(network)
    torchvision.models.quantization.utils.quantize_model(copied, "fbgemm")
    torch.save(copied.state_dict(), path)
    return network


def legacy(path: Path) -> nn.Module:
    network = small()
    torch.save(network.state_dict(), path, _use_new_zipfile_serialization=False)
    return network


def optimizer(network: nn.Module) -> object:
    return torch.optim.Adam(network.parameters()).state_dict()


OF_TORCH = (
    saved("state dict", lambda n: n.state_dict()),
    Kind("state dict in the format before torch 1.6", "torch.save", legacy),
    saved("state dict in a file without ending", lambda n: n.state_dict(), file="weights"),
    saved("state dict, `.bin`", lambda n: n.state_dict(), file="weights.bin"),
    saved("state dict, `.ckpt`, under `state_dict`", lambda n: {"state_dict": n.state_dict()}, file="weights.ckpt"),
    saved("state dict in half precision", lambda n: n.half().state_dict()),
    saved("state dict in bfloat16", lambda n: n.bfloat16().state_dict()),
    saved(
        "state dict without `num_batches_tracked`",
        lambda n: {k: v for k, v in n.state_dict().items() if "num_batches" not in k},
    ),
    saved("PyTorch's tutorial: `model_state_dict` beside the optimizer's", lambda n: {
        "epoch": 3, "model_state_dict": n.state_dict(), "optimizer_state_dict": optimizer(n), "loss": 0.3},
        by="torch.save, as it does"),
    saved("PyTorch's ImageNet example: `arch`, `state_dict` with `module.`", lambda n: {
        "epoch": 3, "arch": SMALL, "state_dict": prefixed("module.")(n), "best_acc1": torch.tensor(70.1),
        "optimizer": optimizer(n), "scheduler": {}}, by="torch.save, as it does", file="model_best.pth.tar"),
    saved("a NumPy scalar beside the weights", beside(best=np.float64(0.7))),
    saved("a NumPy array beside the weights", beside(history=np.arange(5.0))),
    saved("a path beside the weights", beside(data=pathlib.PosixPath("/data"))),
    saved("a time beside the weights", beside(when=datetime.datetime(2026, 1, 1))),
    saved("a `defaultdict` beside the weights", beside(history=collections.defaultdict(list, loss=[1.0]))),
    saved("an `argparse.Namespace` beside the weights", beside(args=argparse.Namespace(data=pathlib.Path("x")))),
    *map(under, ("model", "net", "network", "weights", "params", "model_state", "ema", "state_dict_ema",
                 "model_ema_state", "student", "teacher", "backbone")),
    saved("weights in tables: `state.model`", lambda n: {"state": {"model": n.state_dict()}}),
    saved("`model` beside its average, `ema.shadow`", lambda n: {
        "model": n.state_dict(), "ema": {"shadow": other().state_dict(), "decay": 0.9}}),
    saved("`student` and `teacher`", lambda n: {"student": other().state_dict(), "teacher": n.state_dict()},
          choice="teacher"),
    saved("DataParallel or DDP: `module.`", lambda n: nn.DataParallel(n).state_dict()),
    saved("torch.compile: `_orig_mod.`", lambda n: torch.compile(n).state_dict()),
    saved("torch.compile of DDP", lambda n: torch.compile(nn.DataParallel(n)).state_dict()),
    saved("an attribute's prefix, `model.`", prefixed("model.")),
    saved("`AveragedModel` of torch's SWA and EMA", lambda n: AveragedModel(n).state_dict()),
    saved("the loss's weights beside the network's", lambda n: {**n.state_dict(), "criterion.weight": torch.ones(3)}),
    saved("the last layer in a Sequential with Dropout", lambda n: n.state_dict(), original=with_dropout),
    saved("the last layer in a Sequential with Dropout, `--model`", lambda n: n.state_dict(), original=with_dropout,
          network=("--model", f"{HERE}:with_dropout")),
    Kind("torchvision's references: `model`, `model_ema`, `args`", "torch.save, as they do", references, network=()),
    Kind("torchvision's references with mixed precision", "torch.save, as they do", lambda path: references(
        path, scaler=torch.amp.GradScaler("cpu").state_dict()), network=()),
    saved("torchvision's quantizable network before it is quantised", lambda n: n.state_dict(), original=quantizable),
    saved("arrays of NumPy by name", lambda n: {k: v.numpy() for k, v in n.state_dict().items()}),
    saved("a whole network", lambda n: n),
    saved("a whole network in a table", lambda n: {"epoch": 3, "model": n}),
    saved("an optimizer's state alone", optimizer),
    Kind("quantised layers", "torch.ao.quantization.quantize_dynamic", quantised),
    Kind("a quantised network", "torchvision: quantize_model", quantised_whole),
    Kind("TorchScript", "torch.jit.save", traced, "scripted.pt"),
    Kind("an exported program", "torch.export.save", exported, "exported.pt2"),
    Kind("ONNX", "torch.onnx.export", compiled_ahead, "network.onnx", packages=("onnx",)),
    Kind("directory of a distributed checkpoint (FSDP)", "torch.distributed.checkpoint.save", distributed,
         "checkpoint"),
    Kind("tensors of torchao, int8", "torchao.quantization.quantize_", rounded, packages=("torchao",)),
)  # fmt: skip


# --- safetensors, timm, transformers: what the tests have ------------------------------------------------------------


def in_safetensors(content: Callable[[nn.Module], Any]) -> Callable[[Path], nn.Module]:
    def make(path: Path) -> nn.Module:
        network = small()
        safetensors.torch.save_file(content(network), path)
        return network

    return make


TIMM = ("--arch", "timm:test_resnet")


def of_timm() -> nn.Module:
    timm = importlib.import_module("timm")
    torch.manual_seed(0)
    network: nn.Module = randomised(timm.create_model("test_resnet", num_classes=3, global_pool="avg"))
    return network


def saver_of_timm(path: Path) -> nn.Module:
    """Write what timm's train.py writes."""
    utils = importlib.import_module("timm.utils")
    network = of_timm()
    averaged = utils.ModelEmaV3(network, decay=0.5)
    averaged.update(of_timm(), step=5)
    args = argparse.Namespace(model="test_resnet", num_classes=3, data_dir="/data", amp=True, distributed=False)
    optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9)
    saver = utils.CheckpointSaver(network, optimizer, args=args, model_ema=averaged, checkpoint_dir=str(path.parent))
    saver.save_checkpoint(0, metric=55.5)
    return network


def directory_of_timm(safe: Any) -> Callable[[Path], nn.Module]:
    def make(path: Path) -> nn.Module:
        models = importlib.import_module("timm.models")
        network = of_timm()
        view = {"input_size": (3, SIDE, SIDE), "crop_pct": 1.0, "mean": (0.5,) * 3, "std": (0.5,) * 3}
        network.pretrained_cfg = {**network.pretrained_cfg, **view}
        models.save_for_hf(network, path, model_config={"label_names": list(NAMES)}, safe_serialization=safe)
        return network

    return make


def of_transformers(name: str, **config: Any) -> nn.Module:
    transformers = importlib.import_module("transformers")
    torch.manual_seed(0)
    settings = getattr(transformers, f"{name}Config")(**LABELS, **config)
    network: nn.Module = randomised(getattr(transformers, f"{name}ForImageClassification")(settings))
    return network


def directory(name: str, saving: Any = None, **config: Any) -> Callable[[Path], nn.Module]:
    """Return what writes a directory of transformers' classifier of that name."""

    def make(path: Path) -> nn.Module:
        transformers = importlib.import_module("transformers")
        network: Any = of_transformers(name, **config)
        network.save_pretrained(path, **saving or {})
        size = {"height": SIDE, "width": SIDE}
        transformers.ViTImageProcessor(size=size, **HALF).save_pretrained(path)
        return network

    return make


def transformers_kind(name: str, **config: Any) -> Kind:
    by = "transformers: save_pretrained"
    return Kind(
        f"directory of transformers' {name}", by, directory(name, **config), "net", (), packages=("transformers",)
    )


RESNET_OF_TRANSFORMERS = {"layer_type": "basic", "embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]}


def in_parts(path: Path) -> nn.Module:
    return directory("ResNet", {"max_shard_size": "5KB"}, **RESNET_OF_TRANSFORMERS)(path)


def weights_of_transformers(path: Path) -> nn.Module:
    network = directory("ResNet", **RESNET_OF_TRANSFORMERS)(path)
    for name in ("config.json", "preprocessor_config.json"):
        (path / name).rename(path.parent / name)
    return network


OF_RESNET = ("--arch", "hf:resnet", *(
    word for text in ("layer_type=basic", "embedding_size=8", "hidden_sizes=[8,16]", "depths=[1,1]")
    for word in ("--arch-option", text)))  # fmt: skip


def arrays(path: Path) -> nn.Module:
    network = small()
    np.savez(path, **{name: tensor.numpy() for name, tensor in network.state_dict().items()})
    return network


def archived(kind: str) -> Callable[[Path], nn.Module]:
    def make(path: Path) -> nn.Module:
        network = small()
        (path.parent / "inner").mkdir()
        torch.save(network.state_dict(), path.parent / "inner/model.pth")
        shutil.make_archive(str(path.parent / "model"), kind, path.parent / "inner")
        return network

    return make


OF_TESTS = (
    Kind("safetensors", "safetensors.torch.save_file", in_safetensors(lambda n: n.state_dict()), "model.safetensors"),
    Kind("safetensors, an attribute's prefix", "safetensors.torch.save_file", in_safetensors(prefixed("model.")),
         "model.safetensors"),
    saved("timm's state dict", lambda n: n.state_dict(), original=of_timm, packages=("timm",), network=TIMM),
    Kind("timm's train.py: `arch`, `args`, `state_dict_ema`", "timm.utils.CheckpointSaver", saver_of_timm,
         "checkpoint-0.pth.tar", (), packages=("timm",)),
    Kind("directory of timm", "timm.models.save_for_hf", directory_of_timm(True), "net", packages=("timm",)),
    Kind("directory of timm, `pytorch_model.bin`", "timm.models.save_for_hf", directory_of_timm(False), "net",
         packages=("timm",)),
    transformers_kind("ResNet", **RESNET_OF_TRANSFORMERS),
    transformers_kind("RegNet", embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], groups_width=4),
    transformers_kind("ConvNext", hidden_sizes=[8, 16], depths=[1, 1], num_stages=2),
    transformers_kind("ConvNextV2", hidden_sizes=[8, 16], depths=[1, 1], num_stages=2),
    transformers_kind("EfficientNet", width_coefficient=0.2, depth_coefficient=0.2, hidden_dim=256, image_size=SIDE),
    transformers_kind("MobileNetV2", depth_multiplier=0.1),
    transformers_kind("Bit", embedding_size=32, hidden_sizes=[128, 128], depths=[1, 1]),
    transformers_kind("TimmWrapper", architecture="test_resnet"),
    Kind("directory of transformers, weights in several files", "transformers: save_pretrained", in_parts, "net",
         packages=("transformers",)),
    Kind("`model.safetensors` of transformers without its config.json", "transformers: save_pretrained",
         weights_of_transformers, "net", OF_RESNET, packages=("transformers",)),
    saved("weights of transformers' network under Lightning's `model.`", prefixed("model."), original=lambda: (
        of_transformers("ResNet", **RESNET_OF_TRANSFORMERS)), network=OF_RESNET, packages=("transformers",)),
    Kind("arrays of NumPy, `.npz`", "numpy.savez", arrays, "weights.npz"),
    Kind("a zip archive with a checkpoint in it", "zipfile", archived("zip"), "model.zip"),
    Kind("a compressed tar with a checkpoint in it", "tarfile", archived("gztar"), "model.tar.gz"),
)  # fmt: skip


# --- further libraries -----------------------------------------------------------------------------------------------


def _lightning_module() -> Any:
    lightning = importlib.import_module("lightning")

    class Module(lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self, attribute: str, weight: Tensor | None, arch: str = "", settings: object = None) -> None:
            super().__init__()
            self.save_hyperparameters(ignore=["weight"])
            setattr(self, attribute, small().train())
            self.criterion = nn.CrossEntropyLoss(weight=weight)

        def training_step(self, batch: Any, _: int) -> Tensor:
            loss: Tensor = self.criterion(getattr(self, self.hparams.attribute)(batch[0]), batch[1])
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters(), 1e-3)

    return Module


def lightning_kind(name: str, attribute: str = "model", strip: bool = False, **more: Any) -> Kind:
    """Return a kind that Lightning's ModelCheckpoint writes, or of the state dict alone."""

    def make(path: Path) -> nn.Module:
        lightning = importlib.import_module("lightning")
        callbacks = importlib.import_module("lightning.pytorch.callbacks")
        settings = importlib.import_module("omegaconf").OmegaConf.create({"lr": 1, "sizes": [1, 2]})
        given = {**more, **({"settings": settings} if "settings" in more else {})}
        module = _lightning_module()(attribute, given.pop("weight", None), **given)
        photos = torch.utils.data.TensorDataset(torch.randn(4, 3, SIDE, SIDE), torch.tensor([0, 1, 2, 0]))
        trainer = lightning.Trainer(
            max_epochs=1, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
            callbacks=[callbacks.ModelCheckpoint(path.parent, path.stem)], default_root_dir=path.parent,
        )  # fmt: skip
        trainer.fit(module, torch.utils.data.DataLoader(photos, 2))
        if strip:
            torch.save({"state_dict": module.state_dict()}, path)
        network: nn.Module = getattr(module, attribute)
        return network

    network = () if more.get("arch") else ("--arch", SMALL)
    return Kind(name, "lightning: ModelCheckpoint", make, "model.ckpt", network, packages=("lightning", "omegaconf"))


def accelerated(path: Path, state: bool = True, largest: str = "10GB") -> nn.Module:
    accelerate = importlib.import_module("accelerate")
    accelerator = accelerate.Accelerator(cpu=True)
    network: nn.Module = accelerator.prepare(small())
    accelerator.prepare(torch.optim.Adam(network.parameters()))
    if state:
        accelerator.save_state(path)
    else:
        accelerator.save_model(network, path, max_shard_size=largest)
    return network


def _trainer(path: Path) -> Any:
    transformers = importlib.import_module("transformers")
    network = of_transformers("ResNet", **RESNET_OF_TRANSFORMERS)
    settings = transformers.TrainingArguments(
        str(path), report_to=[], use_cpu=True, max_steps=1, save_steps=1, disable_tqdm=True, remove_unused_columns=False
    )
    processor = transformers.ViTImageProcessor(size={"height": SIDE, "width": SIDE}, **HALF)
    photos = [{"pixel_values": torch.randn(3, SIDE, SIDE), "labels": 0}] * 4
    return transformers.Trainer(network, settings, train_dataset=photos, processing_class=processor)


def trainer(path: Path) -> nn.Module:
    made = _trainer(path)
    made.save_model()
    network: nn.Module = made.model
    return network


def trained(path: Path) -> nn.Module:
    made = _trainer(path)
    made.train()
    network: nn.Module = made.model
    return network


def fastai_learner(path: Path) -> Any:
    vision = importlib.import_module("fastai.vision.all")
    images = []
    for index, name in enumerate(NAMES * 2):
        images.append(path.parent / f"{name}{index}.png")
        Image.new("RGB", (SIDE, SIDE), (40 * index, 0, 0)).save(images[-1])
    loaders = vision.ImageDataLoaders.from_lists(
        path.parent, images, list(NAMES * 2), bs=2, num_workers=0, device=torch.device("cpu")
    )
    loss = nn.CrossEntropyLoss()
    return vision.Learner(loaders, fastai_network(), loss_func=loss, path=path.parent, model_dir=path.parent)


def fastai_saved(with_optimizer: bool) -> Callable[[Path], nn.Module]:
    def make(path: Path) -> nn.Module:
        learner = fastai_learner(path)
        learner.create_opt()
        learner.save(path.stem, with_opt=with_optimizer)
        network: nn.Module = learner.model
        return network

    return make


def fastai_exported(path: Path) -> nn.Module:
    learner = fastai_learner(path)
    learner.export(path, pickle_module=importlib.import_module("cloudpickle"))
    network: nn.Module = learner.model
    return network


class Mmpretrain(nn.Module):
    """mmpretrain's ResNet-18, as its logits."""

    def __init__(self) -> None:
        super().__init__()
        classifiers = importlib.import_module("mmpretrain.models")
        torch.manual_seed(0)
        head = {"type": "LinearClsHead", "num_classes": 3, "in_channels": 512}
        backbone = {"type": "ResNet", "depth": 18}
        self.network = randomised(classifiers.ImageClassifier(backbone, {"type": "GlobalAveragePooling"}, head))

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images)
        return logits


def mmengine_saved(history: bool) -> Callable[[Path], nn.Module]:
    """Return what writes as mmengine's CheckpointHook does."""

    def make(path: Path) -> nn.Module:
        checkpoints = importlib.import_module("mmengine.runner.checkpoint")
        hub = importlib.import_module("mmengine.logging").MessageHub.get_instance("kinds")
        hub.update_scalar("train/loss", 0.3)
        network = Mmpretrain()
        content = {
            "meta": {"epoch": 1, "cfg": "model = dict()", "dataset_meta": {"classes": NAMES}},
            "state_dict": checkpoints.weights_to_cpu(checkpoints.get_state_dict(network.network)),
            **({"message_hub": hub.state_dict()} if history else {}),
        }
        checkpoints.save_checkpoint(content, str(path))
        return network

    return make


def ultralytics(path: Path) -> nn.Module:
    """Write what Ultralytics' trainer writes."""
    network = Ultralytics()
    network.network.names = dict(enumerate(NAMES))
    half = copy.deepcopy(network.network).half()
    content = {"epoch": -1, "model": half, "ema": None, "optimizer": None, "train_args": {}, "version": "8"}
    torch.save(content, path)
    return network


OF_LIBRARIES = (
    lightning_kind("Lightning, the network under `model`"),
    lightning_kind("Lightning, the network under `net`, a loss with weights", "net", weight=torch.ones(3)),
    lightning_kind("Lightning, hyperparameters of OmegaConf", settings=True),
    lightning_kind("Lightning, `arch` among the hyperparameters", arch=SMALL),
    lightning_kind("Lightning's state dict alone", strip=True),
    Kind("directory of Accelerate's state", "accelerate: save_state", accelerated, "state", packages=("accelerate",)),
    Kind("directory of Accelerate's model", "accelerate: save_model", lambda path: accelerated(path, state=False),
         "model", packages=("accelerate",)),
    Kind("directory of Accelerate's model in several files", "accelerate: save_model",
         lambda path: accelerated(path, state=False, largest="500KB"), "model", packages=("accelerate",)),
    Kind("directory of transformers' Trainer", "transformers: Trainer.save_model", trainer, "net", (),
         packages=("accelerate",)),
    Kind("directory of transformers' Trainer with `checkpoint-1`", "transformers: Trainer.train", trained, "net", (),
         packages=("accelerate",)),
    Kind("fastai: `model` and `opt`", "fastai: Learner.save", fastai_saved(True), packages=("fastai",),
         network=("--model", f"{HERE}:fastai_network")),
    Kind("fastai: without the optimizer", "fastai: Learner.save", fastai_saved(False), packages=("fastai",),
         network=("--model", f"{HERE}:fastai_network")),
    Kind("fastai: a whole Learner", "fastai: Learner.export", fastai_exported, "export.pkl", packages=("fastai",),
         network=("--model", f"{HERE}:fastai_network")),
    Kind("mmpretrain with its message hub", "mmengine: save_checkpoint", mmengine_saved(True), "epoch_1.pth",
         RESNET, packages=("mmpretrain",)),
    Kind("mmpretrain without", "mmengine: save_checkpoint", mmengine_saved(False), "epoch_1.pth", RESNET,
         packages=("mmpretrain",)),
    Kind("Ultralytics", "torch.save, as its trainer does", ultralytics, "yolo11n-cls.pt",
         ("--model", f"{HERE}:Ultralytics"), packages=("ultralytics",)),
)  # fmt: skip


# --- by hand ---------------------------------------------------------------------------------------------------------


def written(name: str, content: bytes, file: str, untried: str = "") -> Kind:
    def make(path: Path) -> nn.Module:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return small()

    return Kind(name, BY_HAND, make, file, untried=untried)


def mlflow(path: Path) -> nn.Module:
    network = small()
    (path / "data").mkdir(parents=True)
    (path / "MLmodel").write_text("flavors: {pytorch: {model_data: data}}")
    torch.save(network, path / "data/model.pth")
    return network


def in_folder(file: str) -> Callable[[Path], nn.Module]:
    """Return what writes a directory with one file in it."""

    def make(path: Path) -> nn.Module:
        path.mkdir()
        (path / file).write_bytes(b"")
        return small()

    return make


def cut_off(path: Path) -> nn.Module:
    network = small()
    torch.save(network.state_dict(), path)
    path.write_bytes(path.read_bytes()[:100_000])
    return network


OF_HANDS = (
    Kind("directory of MLflow's PyTorch flavor", BY_HAND, mlflow, "model"),
    Kind("directory of DeepSpeed's", BY_HAND, in_folder("zero_to_fp32.py"), "state", untried="DeepSpeed's own script"),
    Kind("directory of TensorFlow's", BY_HAND, in_folder("saved_model.pb"), "saved"),
    written("Keras, `.h5`", b"\x89HDF\r\n\x1a\n" + bytes(100), "model.h5"),
    written("TFLite", b"\x1c\x00\x00\x00TFL3" + bytes(100), "model.tflite"),
    written("GGUF", b"GGUF\x03\x00\x00\x00" + bytes(100), "model.gguf"),
    written("a Git LFS pointer", b"version https://git-lfs.github.com/spec/v1\noid sha256:0a\nsize 4\n", "model.pth",
            "to be fetched"),
    written("a page that asks for a login", b"<!DOCTYPE html><html><title>Sign in", "model.pth", "to be downloaded"),
    written("an empty file", b"", "model.pth", "to be downloaded"),
    Kind("a download that broke off", BY_HAND, cut_off, untried="to be downloaded"),
)  # fmt: skip

KINDS = (*OF_TORCH, *OF_TESTS, *OF_LIBRARIES, *OF_HANDS)
