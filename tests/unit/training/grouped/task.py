"""A small regression whose model has what parameter groups tell apart: an input, blocks, norms and a head."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raystack.task import Objective, Progress, Signature, TensorSpec

WIDTH, SAMPLES = 6, 44


class Block(nn.Module):
    """A norm, a layer with a bias, a residual."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.inner = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = x + torch.tanh(self.inner(self.norm(x)))
        return result


class Model(nn.Module):
    """An input layer, two blocks, a norm and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(WIDTH, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(2))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for block in self.blocks:
            x = block(x)
        result: Tensor = self.head(self.norm(x))
        return result


class Samples:
    """Pairs (x [6], y [2]) that depend on their index alone."""

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        x = torch.randn(WIDTH, generator=torch.Generator().manual_seed(index))
        return x, torch.stack([x.sum(), x.prod()])


class Lion(torch.optim.Optimizer):
    """Chen et al. 2023, with a state that nobody needs: a number, a tensor that does not begin with zeros."""

    def __init__(self, groups: Any) -> None:
        super().__init__(groups, {"lr": 1e-3, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for one in group["params"]:
                if one.grad is None:
                    continue
                state = self.state[one]
                if not state:
                    state["steps"], state["scale"] = 0, torch.ones_like(one)
                    state["average"] = torch.zeros_like(one)
                state["steps"] += 1
                state["scale"].mul_(0.9)
                update = (0.9 * state["average"] + 0.1 * one.grad).sign() * (1 + 1 / state["steps"])
                one.mul_(1 - group["lr"] * group["weight_decay"]).sub_(group["lr"] * update * state["scale"])
                state["average"].lerp_(one.grad, 0.01)


class Lamb(torch.optim.Optimizer):
    """Plain descent by the norm of a parameter (You et al. 2020), which is no element's own."""

    def __init__(self, groups: Any) -> None:
        super().__init__(groups, {"lr": 1e-3})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for one in group["params"]:
                if one.grad is not None:
                    one.sub_(group["lr"] * (1 + one.norm()) * one.grad)


class Counting(torch.optim.SGD):
    """Keeps a state in its groups."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        super().step()
        for group in self.param_groups:
            group["k"] = group.get("k", 0) + 1


def make(kind: str, parameters: list[tuple[str, nn.Parameter]]) -> torch.optim.Optimizer:
    """The optimizer of a kind, with two groups, the second of which has another rate."""
    bodies = [one for name, one in parameters if not name.startswith("head")]
    heads = [one for name, one in parameters if name.startswith("head")]
    groups = [{"params": bodies, "lr": 2e-3}, {"params": heads, "lr": 1e-2}]
    made: dict[str, Callable[[], Any]] = {
        "lion": lambda: Lion(groups),
        "adamax": lambda: torch.optim.Adamax(groups),
        "lamb": lambda: Lamb(groups),
        "counting": lambda: Counting(groups, lr=0.1),
        "lbfgs": lambda: torch.optim.LBFGS(bodies + heads),
        "forgets": lambda: torch.optim.SGD(bodies, lr=0.1),
        "nothing": lambda: None,
    }
    return made[kind]()  # type: ignore[no-any-return]


class Grouped:
    """The regression as a task."""

    signature = Signature((TensorSpec("x", "float32", (-1, WIDTH)),), (TensorSpec("y", "float32", (-1, 2)),))

    def model(self) -> nn.Module:
        return Model()

    def blocks(self, model: nn.Module) -> Iterable[nn.Module]:
        return model.blocks if isinstance(model, Model) else ()

    def train_data(self) -> Samples:
        return Samples()

    def eval_data(self) -> None:
        return None

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        x, y = batch
        return F.mse_loss(model(x), y)

    def metrics(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Mapping[str, Tensor]:
        return {}

    def predict(self, model: nn.Module, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return {"y": model(inputs["x"])}


class Own(Grouped):
    """The same, with an optimizer of its own."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def optimizer(self, parameters: list[tuple[str, nn.Parameter]]) -> torch.optim.Optimizer:
        return make(self.kind, parameters)


class Pair(nn.Module):
    """A generator of y from x, and a critic of both."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh(), nn.Linear(WIDTH, 2))
        self.critic = nn.Sequential(nn.Linear(WIDTH + 2, WIDTH), nn.Tanh(), nn.Linear(WIDTH, 1))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.generator(x)
        return result


class Gan(Grouped):
    """A GAN: the critic is trained in each step, the generator in every other one."""

    def __init__(self, fault: str = "") -> None:
        self.fault = fault

    def model(self) -> nn.Module:
        return Pair()

    def critic_loss(self, model: Any, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, int]:
        x, y = batch
        real, fake = model.critic(torch.cat([x, y], 1)), model.critic(torch.cat([x, model(x).detach()], 1))
        return (F.softplus(-real) + F.softplus(fake)).sum(), len(x)

    def generator_loss(
        self, model: Any, batch: tuple[Tensor, Tensor], progress: Progress
    ) -> tuple[Tensor, dict[str, Tensor]]:
        made = model(batch[0])
        loss = F.softplus(-model.critic(torch.cat([batch[0], made], 1))).mean()
        return loss + progress.fraction * made.square().mean(), {"size": made.norm()}

    def objectives(self, model: Any) -> Mapping[str, Objective]:
        critic = Objective(self.critic_loss, model.critic, optimizer=self.adam)
        generator = Objective(self.generator_loss, "generator.*", every=2)
        faults = {
            "both": {"critic": critic, "generator": replace(generator, parameters="*")},
            "left": {"critic": replace(critic, parameters=("critic.0.*",)), "generator": generator},
            "never": {"critic": replace(critic, every=3), "generator": generator},
            "name": {"critic": replace(critic, parameters="critik.*"), "generator": generator},
        }
        return faults.get(self.fault, {"critic": critic, "generator": generator})

    def adam(self, parameters: list[tuple[str, nn.Parameter]]) -> torch.optim.Optimizer:
        return torch.optim.Adam([one for _, one in parameters], lr=2e-2)
