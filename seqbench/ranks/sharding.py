"""Training in shards (FSDP): each rank keeps a part of weights, gradients and optimizer state, and borrows the rest.

Zhao et al. 2023, arXiv 2304.11277; by torch's `fully_shard`, on CUDA and on a CPU. What trains is a copy of the module,
cut along the first axis. The module itself waits on the CPU and has whole weights for the time of an evaluation, so
tasks, search and metrics know of no shards; a model must fit on a device for inference.
"""
# B batch

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from seqbench import randomness
from seqbench.training.module import Module
from tasks.base import Batch, Task


class Sharding(DDPStrategy):
    """Lightning's strategy of many processes, with shards in place of whole copies."""

    def __init__(self, *, layers: Callable[[nn.Module], list[nn.Module]], **settings: Any) -> None:
        super().__init__(**settings)
        self.layers = layers

    def configure_ddp(self) -> None:
        """Cut the module: each of its layers that can be by itself, the rest as one."""
        module = self.model
        assert isinstance(module, Module)
        mesh = init_device_mesh(self.root_device.type, (self.world_size,))
        for layer in self.layers(module):
            fully_shard(layer, mesh=mesh, reshard_after_forward=True)
        fully_shard(module, mesh=mesh, reshard_after_forward=True)
        register_fsdp_forward_method(module, "training_step")


def replica(module: Module, task: Task) -> Module:
    """A copy of the module with weights of its own; the data of its task are shared."""
    internal = vars(nn.Module()).keys()
    kept = {id(value): value for name, value in vars(task).items() if name not in internal}
    kept |= {id(value): value for value in (module.exchange, module.weighs, module.optimizer, module.factor)}
    return copy.deepcopy(module, kept)


def separate_layers(module: Module, batch: Batch) -> list[nn.Module]:
    """Layers (elements of a ModuleList of the encoder) that a forward pass uses through their own forward alone.

    Found by a pass over `batch`: a part that is used from outside, as cross-attention's keys are, needs its weights
    when the layer is not under way. Nor is a layer one that shares a weight with what is not in it.
    """
    found = [
        layer
        for part in module.encoder.modules()
        if isinstance(part, nn.ModuleList)
        for layer in part
        if any(True for _ in layer.parameters())
    ]
    inside = {id(inner) for layer in found for inner in layer.modules() if inner is not layer}
    found = [layer for layer in found if id(layer) not in inside]
    owners: dict[int, set[int]] = {}  # weight -> the layers that it is in; 0 for the rest of the module
    inside = {id(inner) for layer in found for inner in layer.modules()}
    for layer in found:
        for weight in layer.parameters():
            owners.setdefault(id(weight), set()).add(id(layer))
    for part in module.modules():
        if id(part) not in inside:
            for weight in part.parameters(recurse=False):
                owners.setdefault(id(weight), set()).add(0)
    passes = [_Pass(layer) for layer in found]
    try:
        with randomness.isolated(0), torch.no_grad():
            module.task(module.encoder, batch)
    finally:
        for one in passes:
            one.end()
    used = {id(one.layer) for one in passes if one.used and not one.mixed}
    return [
        layer
        for layer in found
        if id(layer) in used and all(len(owners[id(weight)]) == 1 for weight in layer.parameters())
    ]


class _Pass:
    """Watches whether the parts of a layer are used while the layer is under way, and only then."""

    def __init__(self, layer: nn.Module) -> None:
        self.layer, self.under_way, self.used, self.mixed = layer, False, False, False
        self.handles = [layer.register_forward_pre_hook(self._begin), layer.register_forward_hook(self._after)]
        self.handles += [p.register_forward_pre_hook(self._inner) for p in layer.modules() if p is not layer]

    def _begin(self, *_: Any) -> None:
        self.under_way = self.used = True

    def _after(self, *_: Any) -> None:
        self.under_way = False

    def _inner(self, *_: Any) -> None:
        self.mixed = self.mixed or not self.under_way

    def end(self) -> None:
        """Watch no more."""
        for handle in self.handles:
            handle.remove()


class Shards:
    """The sharded copy that trains, beside the whole module that is evaluated and saved by name."""

    def __init__(self, whole: Module, trained: Module) -> None:
        self.whole, self.trained = whole, trained

    @property
    def cut(self) -> bool:
        """Whether the copy has been cut; before that, the whole module has all there is to know."""
        return any(isinstance(weight, DTensor) for weight in self.trained.parameters())

    def assemble(self, device: torch.device) -> None:
        """Bring the whole weights together, in the whole module, on a device. All ranks at once."""
        state = {
            name: value.full_tensor() if isinstance(value, DTensor) else value
            for name, value in self.trained.state_dict().items()
        }
        self.whole.load_state_dict(state)
        self.whole.to(device)

    def put_away(self) -> None:
        """Free the device of the whole weights."""
        self.whole.to("cpu")

    def state(self, optimizer: Optimizer) -> dict[str, Any]:
        """This rank's part of weights and optimizer state, on the CPU."""
        found: dict[str, Any] = _local({"weights": self.trained.state_dict(), "optimizer": optimizer.state_dict()})
        return found

    def weights(self) -> dict[str, Any]:
        """This rank's part of the weights, on the CPU."""
        found: dict[str, Any] = _local({"weights": self.trained.state_dict()})
        return found

    def load_optimizer(self, optimizer: Optimizer, state: dict[str, Any]) -> None:
        """Cut a whole optimizer state as the weights are cut."""
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        numbers = [number for group in state["param_groups"] for number in group["params"]]
        found = dict(state["state"])
        for number, parameter in zip(numbers, parameters, strict=True):
            if number in found and isinstance(parameter, DTensor):
                found[number] = {key: _cut(value, parameter) for key, value in found[number].items()}
        optimizer.load_state_dict({**state, "state": found})


def _cut(value: Any, like: DTensor) -> Any:
    if not isinstance(value, Tensor) or value.shape != like.shape:
        return value
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def _local(tree: Any) -> Any:
    """Plain containers and tensors; what is cut is {"shard": this rank's rows, "shape": of the whole}."""
    if isinstance(tree, DTensor):
        return {"shard": tree.to_local().detach().cpu().clone().contiguous(), "shape": list(tree.shape)}
    if isinstance(tree, Tensor):
        return tree.detach().cpu().clone()
    if isinstance(tree, dict):
        return {key: _local(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_local(value) for value in tree]
    return tree
