"""DeepSpeed's float32 master weights and optimizer state, by parameter.

In: its engine after the start. Out: live ranges of flattened parameters, as a checkpoint has them. DeepSpeed
updates flat tensors, one for each parameter group; each worker holds a range of a parameter as a range of
such a tensor. All that is read here of its optimizers is private to DeepSpeed; the tests compare it with
plain torch for the version that the extra `deepspeed` pins (docs/decisions/0006-checkpoint-format.md).
"""

from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from raystack.checkpoint.state import OPTIMIZER, Shard, State
from raystack.training.optimizer import NUMBERS


@dataclass(frozen=True)
class _Range:
    """The position of this worker's part of a trainable parameter."""

    name: str
    flat: Tensor
    """The float32 tensor that the optimizer updates, and the key of its state."""
    at: int
    """First element in `flat`."""
    length: int
    """Number of elements; 0 if all of the parameter is on other workers."""
    start: int
    """First element in the flattened parameter."""
    total: int
    replicated: bool = False

    def of(self, tensor: Tensor) -> Shard:
        """Return this range of `flat`, or of an optimizer state of its shape."""
        # A scalar state, such as the step, is equal on all workers.
        if tensor.dim() == 0:
            return Shard.whole(tensor)
        return Shard(
            tensor.detach().view(-1)[self.at : self.at + self.length], self.start, self.total, self.replicated
        )


class Masters:
    """This worker's part of the master weights and of the optimizer's state."""

    def __init__(self, engine: Any, bare: nn.Module, stage: int, *, built_in: bool) -> None:
        self._optimizer, self._bare, self._stage = engine.optimizer, bare, stage
        self._built_in = built_in
        self._base: torch.optim.Optimizer = engine.basic_optimizer
        self._on_nvme = self._find_on_nvme()
        self._held = self._locate()
        if built_in:
            self._make_state()
        else:
            # DeepSpeed has made a step, after which this state may not be that of a new run.
            self._base.state.clear()

    def state(self) -> dict[str, Shard]:
        """Return all parameters and the optimizer's state: live, or copied if they are on NVMe."""
        parts = {f"model/{name}": part for name, part in self._frozen()}
        for flat, ranges in self._held:
            with self._in_memory(flat, changed=False) as swapped:
                for each in ranges:
                    for name, part in self._parts(each):
                        parts[name] = replace(part, data=part.data.clone()) if swapped else part
        return parts

    def flats(self, names: Set[str]) -> list[Tensor]:
        """Return the flat tensors all of whose parameters are in `names`."""
        return [flat for flat, ranges in self._held if all(each.name in names for each in ranges)]

    def weights(self) -> dict[str, Shard]:
        """Return the trained parameters, which have to be in memory, live."""
        ranges = (each for _, held in self._held for each in held)
        return {f"model/{each.name}": each.of(each.flat) for each in ranges if each.length}

    def prepare(self) -> None:
        """Make sure that there is a state to read a checkpoint into."""
        if not self._built_in:
            self._make_state()

    def take(self, state: State, left: Set[str]) -> None:
        """Take over what is not live in a filled `state`, and renew the weights that are computed with.

        `left` has the names in it that were not filled.
        """
        for flat, ranges in self._held:
            with self._in_memory(flat, changed=True) as swapped:
                for each in ranges:
                    self._put(each, state, swapped)
            if not self._built_in and all(
                f"{OPTIMIZER}{each.name}/{key}" in left for each in ranges for key in self._base.state[flat]
            ):
                del self._base.state[flat]
        self.renew()

    def restore(self, original: Mapping[str, Tensor]) -> None:
        """Set the master weights to `original`, the values that the task's model() returned."""
        # The engine makes its masters of the weights after it has rounded them to the low precision.
        for flat, ranges in self._held:
            with self._in_memory(flat, changed=True):
                for each in ranges:
                    each.of(each.flat).data.copy_(
                        original[each.name].reshape(-1)[each.start : each.start + each.length]
                    )
        self.renew()

    @torch.no_grad()
    def renew(self) -> None:
        """Cast the master weights to the weights that are computed with, on all workers."""
        optimizer = self._optimizer
        if optimizer is self._base:
            return
        if self._stage == 0:
            for masters, parameters in self._master_groups():
                torch._foreach_copy_([parameter.data for parameter in parameters], masters)
        elif self._stage < 3:
            optimizer.update_lp_params()
        else:
            optimizer._partition_all_parameters()
            for index, flat in enumerate(optimizer.fp32_partitioned_groups_flat):
                with self._in_memory(flat, changed=False):
                    optimizer._reassign_or_swap_out_partitioned_parameters(index)
            # Second copies, of `secondary_shard`, have the weights of before; a forward pass makes new ones.
            split: list[Any] = list(self._bare.parameters())
            for parameter in split:
                parameter.ds_secondary_tensor = None
            if optimizer.persistent_parameters:
                optimizer.persistent_parameters[0].all_gather(optimizer.persistent_parameters)

    @contextmanager
    def untouched(self, names: Set[str]) -> Iterator[None]:
        """Let the engine's step in the block leave the parameters in `names` as they are.

        They have no gradient, but lie in the flat tensors, which are decayed as a whole.
        """
        held = [(flat, [each for each in ranges if each.name in names]) for flat, ranges in self._held]
        masters = {}
        for flat, ranges in held:
            with self._in_memory(flat, changed=True):
                for each in ranges:
                    part = each.of(each.flat).data
                    masters[each.name] = part.clone()
                    part.zero_()  # zero does not decay, and gets no momentum
        named: list[tuple[str, Any]] = list(self._bare.named_parameters())
        low = [
            (tensor, tensor.clone())
            for name, parameter in named
            if name in names
            for tensor in (parameter.data, *([parameter.ds_tensor.data] if self._stage == 3 else []))
        ]
        yield
        for flat, ranges in held:
            with self._in_memory(flat, changed=True):
                for each in ranges:
                    each.of(each.flat).data.copy_(masters[each.name])
        for tensor, values in low:
            tensor.copy_(values)

    def _parts(self, each: _Range) -> Iterator[tuple[str, Shard]]:
        """Yield this worker's part of one parameter: its master weights and the optimizer's state."""
        if each.length:
            yield f"model/{each.name}", each.of(each.flat)
        for key, value in self._base.state.get(each.flat, {}).items():
            number = isinstance(value, NUMBERS)
            if number or isinstance(value, Tensor):
                part = each.of(torch.tensor(value, dtype=torch.float64) if number else value)
                if part.data.numel():
                    yield f"{OPTIMIZER}{each.name}/{key}", part

    def _put(self, each: _Range, state: State, swapped: bool) -> None:
        """Take over from `state` what is not live in it: copies of swapped tensors, and plain numbers."""
        if swapped:
            for name, part in self._parts(each):
                part.data.copy_(state[name].data)
        # DeepSpeed's CPU Adam counts its steps in an int.
        for key, value in self._base.state[each.flat].items():
            if isinstance(value, NUMBERS):
                number = state[f"{OPTIMIZER}{each.name}/{key}"].data.item()
                self._base.state[each.flat][key] = type(value)(number)

    @contextmanager
    def _in_memory(self, flat: Tensor, *, changed: bool) -> Iterator[bool]:
        """Swap `flat` and its optimizer state into memory if they are on NVMe; yield whether they are.

        With `changed` they are written back at the end.
        """
        index = self._on_nvme.get(id(flat))
        if index is None:
            yield False
            return
        self._optimizer._optimizer_states_and_gradient_swap_in(index)
        yield True
        if changed:
            self._optimizer._optimizer_states_and_gradient_swap_out(index)
        else:
            self._optimizer._release_swap_buffers(index)

    def _find_on_nvme(self) -> dict[int, int]:
        """Return the indices, by id, of the flat tensors that are in memory only while they are updated."""
        if self._stage < 3 or not self._optimizer.swap_optimizer:
            return {}
        flats = self._optimizer.fp32_partitioned_groups_flat
        # DeepSpeed keeps small subgroups in memory.
        return {
            id(flat): index
            for index, flat in enumerate(flats)
            if self._optimizer._swappable_optimizer_subgroup(index)
        }

    def _locate(self) -> list[tuple[Tensor, list[_Range]]]:
        """Return the ranges of all trainable parameters, grouped by flat tensor."""
        # By id, because tensors compare by element; grouped, so that each is swapped in once.
        held: dict[int, tuple[Tensor, list[_Range]]] = {}
        for each in self._each_range():
            held.setdefault(id(each.flat), (each.flat, []))[1].append(each)
        return list(held.values())

    def _each_range(self) -> Iterator[_Range]:
        """Yield one range per trainable parameter, for each of DeepSpeed's optimizers."""
        names = {parameter: name for name, parameter in self._bare.named_parameters()}
        for masters, parameters in self._master_groups():
            for index, parameter in enumerate(parameters):
                name = names[parameter]
                if self._stage == 0:
                    yield _Range(
                        name, masters[index], 0, parameter.numel(), 0, parameter.numel(), replicated=True
                    )
                elif self._stage == 3:
                    # All partitions have the same length, with padding in the last ones, which is cut off.
                    _, at, held = self._optimizer.grad_position[self._optimizer.get_param_id(parameter)]
                    start = min(
                        held * self._optimizer._get_param_partition_rank(parameter), parameter.ds_numel
                    )
                    yield _Range(
                        name, masters[0], at, min(held, parameter.ds_numel - start), start, parameter.ds_numel
                    )
                # Stages 1 and 2 split a group as a whole: a parameter may lie on one worker, or across some.
                elif (here := parameter._hp_mapping) is not None:
                    at, start = here.hp_fragment_address.start, here.lp_fragment_address.start
                    yield _Range(
                        name, masters[0], at, here.hp_fragment_address.numel, start, parameter.numel()
                    )
                else:
                    yield _Range(name, masters[0], 0, 0, 0, parameter.numel())

    def _master_groups(self) -> Iterator[tuple[list[Tensor], list[Any]]]:
        """Yield the float32 tensors that the optimizer updates, with the parameters they are masters of.

        There is one tensor for all parameters of a group, or one for each.
        """
        optimizer = self._optimizer
        if optimizer is self._base:
            yield from ((group["params"], group["params"]) for group in optimizer.param_groups)
        elif self._stage == 0:
            yield from zip(optimizer.fp32_groups, optimizer.fp16_groups, strict=True)
        elif self._stage == 3:
            yield from (
                ([flat], group)
                for flat, group in zip(
                    optimizer.fp32_partitioned_groups_flat, optimizer.fp16_groups, strict=True
                )
            )
        elif hasattr(optimizer, "bf16_groups"):
            yield from (
                ([flat], group)
                for flat, group in zip(
                    optimizer.fp32_groups_flat_partition, optimizer.bf16_groups, strict=True
                )
            )
        else:
            flats = optimizer.single_partition_of_fp32_groups
            yield from (([flat], group) for flat, group in zip(flats, optimizer.bit16_groups, strict=True))

    def _frozen(self) -> Iterator[tuple[str, Shard]]:
        """Yield the parameters that are not trained, whose only copy is the one that is computed with."""
        frozen: list[tuple[str, Any]] = [
            each for each in self._bare.named_parameters() if not each[1].requires_grad
        ]
        for name, parameter in frozen:
            if self._stage < 3:
                yield name, Shard.whole(parameter)
                continue
            held = parameter.ds_tensor
            start = min(
                held.ds_numel * self._optimizer._get_param_partition_rank(parameter), parameter.ds_numel
            )
            yield name, Shard(held.data.view(-1)[: parameter.ds_numel - start], start, parameter.ds_numel)

    def _make_state(self) -> None:
        """Create the optimizer's state, so that a checkpoint can be read into it before the first step."""
        # Optimizers create their state in their first step. This one has the rate 0 and zero gradients and
        # changes no weight; it goes tensor by tensor, because each is swapped in from NVMe by itself.
        groups = self._base.param_groups
        of = {
            id(flat): group
            for group, flats in zip(groups, self._flats_by_group(), strict=True)
            for flat in flats
        }
        for flat, _ in self._held:
            with self._in_memory(flat, changed=True):
                kept, flat.grad = flat.grad, torch.zeros_like(flat)
                self._base.param_groups = [{**of[id(flat)], "params": [flat], "lr": 0.0}]
                self._base.step()
                flat.grad = kept
                for key, value in self._base.state[flat].items() if self._built_in else ():
                    self._base.state[flat][key] = value.zero_() if isinstance(value, Tensor) else 0
        self._base.param_groups = groups

    def _flats_by_group(self) -> list[list[Tensor]]:
        masters = [flats for flats, _ in self._master_groups()]
        if self._stage < 3:
            return masters
        groups: list[list[Tensor]] = [[] for _ in self._base.param_groups]
        for sub_group, flats in enumerate(masters):
            groups[self._optimizer.sub_group_to_group_id[sub_group]] += flats
        return groups
