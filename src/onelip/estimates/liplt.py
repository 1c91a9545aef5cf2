r"""LipLT on estimates: differentiable constants of logit differences, for training.

Every norm of the recursion (equation 19 of Fazlyab et al., 2023) is that of a path: in at the
network's input or behind a nonlinearity, through the linear parts of the blocks, out in front of a
nonlinearity. One vector travels along each path. All of them go through a block in one batch, so a
power step on *all* norms is one sweep forwards and one back, whatever the depth. The directions
are kept from step to step: with a learning rate that lets weights move slowly, one power step each
is enough. The constants of the logits themselves need no iteration: ten rows are pushed back.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from onelip.chains import Block, Chain, LinearMap, Shape, Split, composed, identity

Path = tuple[int, int]
"""Source and target: 0 is the input, j + 1 the output of nonlinearity j; k is the input of k."""


class _Stage(NamedTuple):
    """A block after loop transformation: what passes on, and what is 1-Lipschitz inside."""

    block: Block
    split: Split
    out: LinearMap  # after the nonlinearity

    @classmethod
    def of(cls, block: Block) -> "_Stage":
        outer = identity(block.hidden) if block.outer is None else block.outer
        return cls(block, block.nonlinearity.split(block.inner.outputs), outer)

    @property
    def enters(self) -> LinearMap:
        """Map from the 1-Lipschitz nonlinearity's output to the block's."""
        return composed([self.split.after, self.out])

    @property
    def passes(self) -> bool:
        """Whether anything linear leads through the block."""
        return self.split.centre is not None or self.block.skip is not None

    def onward(self, x: Tensor, y: Tensor) -> Tensor:
        """The linear part of the block, from its input x and ``y = inner(x)``."""
        parts = [] if self.block.skip is None else [self.block.skip(x)]
        if self.split.centre is not None:
            parts.append(self.out(self.split.centre(y)))
        return parts[0] if len(parts) == 1 else parts[0] + parts[1]

    def back(self, g: Tensor) -> Tensor:
        """The adjoint of the linear part of the block."""
        parts = [] if self.block.skip is None else [self.block.skip.adjoint(g)]
        if self.split.centre is not None:
            parts.append(self.block.inner.adjoint(self.split.centre.adjoint(self.out.adjoint(g))))
        return parts[0] if len(parts) == 1 else parts[0] + parts[1]


class LipLTEstimate(nn.Module):
    """Estimates, from below, of LipLT's constants of all differences of two logits.

    They follow the weights with gradients, and must not reach a certificate:
    ``onelip.bounds.LipLT`` proves what this estimates. In training mode each call moves
    the directions of the power iterations one step on, for the next call.

    Shape: a call on a chain gives ``(classes, classes)``, symmetric, 0 on the diagonal.
    Cost: about that of a forward and a backward pass of a batch of ``(blocks / 2 + 1)^2 + classes``
    samples, and one sweep back in training mode.

    Args:
        chain: the network; only its shapes are kept.
        iterations: power steps at construction.
        seed: of the first directions.
        most_classes: beyond so many logits their rows are not pushed back through the network: the
            constants are the distances of the rows times that of the rest, as the authors do it.

    Example:
        >>> from onelip.chains import Block, Chain, Dense, Elementwise
        >>> block = Block(Dense(torch.eye(3)), Elementwise.of(nn.ReLU()))
        >>> chain = Chain((block,), Dense(torch.eye(3)))
        >>> LipLTEstimate(chain)(chain)[0, 1].detach()
        tensor(1.4142)

    Reference: Fazlyab, Entesari, Roy, Chellappa, "Certified Robustness via Dynamic Margin
    Maximization and Improved Lipschitz Regularization", NeurIPS 2023, Theorem 3.3.
    """

    def __init__(
        self, chain: Chain, *, iterations: int = 10, seed: int = 0, most_classes: int = 100
    ) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        like = _like(chain.last)
        self.by_rows = chain.last.rows <= most_classes
        stages = [_Stage.of(block) for block in chain.blocks]
        self.paths = _paths(stages, through=not self.by_rows)
        for source, target in self.paths:
            shape = _source_shape(stages, source)
            start = torch.randn(1, *shape, generator=generator).to(like)
            self.register_buffer(_name((source, target)), start / _lengths(start))
        with torch.enable_grad():
            for _ in range(iterations):
                directions = self._directions()
                self._move(directions, _sweep(stages, directions))

    def forward(self, chain: Chain) -> Tensor:
        """The constants of a chain of the shapes given at construction."""
        stages = [_Stage.of(block) for block in chain.blocks]
        directions = self._directions()
        images = _sweep(stages, directions)
        if self.training and torch.is_grad_enabled():
            self._move(directions, images)
        norms = {path: _lengths(image).squeeze() for path, image in images.items()}
        reach: list[Tensor] = []
        for target in range(len(stages) + (not self.by_rows)):
            terms = [
                norm * (reach[source - 1] if source else 1.0)
                for (source, end), norm in norms.items()
                if end == target
            ]
            reach.append(torch.stack(terms).sum())
        if self.by_rows:
            return _of_differences(chain.last, stages, reach)
        return distances(chain.last.adjoint(_basis(chain.last)).flatten(1)) * reach[-1]

    def _directions(self) -> dict[Path, Tensor]:
        """Vectors of the power iterations, by path, as leaves of a new graph."""
        return {path: self.get_buffer(_name(path)).clone().requires_grad_() for path in self.paths}

    def _move(self, directions: dict[Path, Tensor], images: dict[Path, Tensor]) -> None:
        """One power step: the gradient of half the squared length of ``A v`` is ``A^T A v``."""
        energy = torch.stack([image.square().sum() for image in images.values()]).sum() / 2
        moved = torch.autograd.grad(energy, list(directions.values()), retain_graph=True)
        for path, direction in zip(directions, moved, strict=True):
            length = _lengths(direction)
            if length > 0:  # a zero map moves nothing
                self.get_buffer(_name(path)).copy_(direction / length)


class ProductEstimate(nn.Module):
    """Constants from the product of the layers' norms, as GloRo networks are trained.

    Shape: a call on a chain gives ``(classes, classes)``, symmetric, 0 on the diagonal.
    Cost: that of a batch of one sample, forwards and backwards.

    Args:
        chain: the network, of plain layers; only its shapes are kept.
        iterations: power steps at construction.
        seed: of the first directions.

    Reference: Leino, Wang, Fredrikson, "Globally-Robust Neural Networks", ICML 2021.
    """

    def __init__(self, chain: Chain, *, iterations: int = 10, seed: int = 0) -> None:
        super().__init__()
        if not chain.plain:
            raise ValueError("a product of norms is for plain layers: use LipLTEstimate")
        generator = torch.Generator().manual_seed(seed)
        like = _like(chain.last)
        for k, block in enumerate(chain.blocks):
            start = torch.randn(1, *block.inputs, generator=generator).to(like)
            self.register_buffer(_name((k, k)), start / _lengths(start))
        with torch.no_grad():
            for _ in range(iterations):
                self._norms(chain, move=True)

    def forward(self, chain: Chain) -> Tensor:
        """The constants of a chain of the shapes given at construction."""
        rows = chain.last.adjoint(_basis(chain.last))
        constants = [block.nonlinearity.constant for block in chain.blocks]
        product = torch.stack(self._norms(chain, move=self.training)).prod()
        return distances(rows.flatten(1)) * product * torch.tensor(constants).prod().to(rows)

    def _norms(self, chain: Chain, *, move: bool) -> list[Tensor]:
        norms = []
        for k, block in enumerate(chain.blocks):
            direction = self.get_buffer(_name((k, k))).clone()
            image = block.inner(direction)
            norms.append(_lengths(image).squeeze())
            if move:
                with torch.no_grad():
                    back = block.inner.adjoint(image)
                    if back.any():
                        self.get_buffer(_name((k, k))).copy_(back / _lengths(back))
        return norms


def _paths(stages: list[_Stage], *, through: bool) -> list[Path]:
    """All sources and targets with something linear between them, and to the end if ``through``."""
    paths = []
    for source in range(len(stages) + through):
        for target in range(source, len(stages) + through):
            paths.append((source, target))
            if target < len(stages) and not stages[target].passes:
                break
    return paths


def _sweep(stages: list[_Stage], directions: dict[Path, Tensor]) -> dict[Path, Tensor]:
    """The images of all directions, each in front of its target, one batch per block."""
    images: dict[Path, Tensor] = {}
    state, alive = torch.empty(0), list[Path]()
    for k in range(len(stages) + 1):
        fresh = [path for path in directions if path[0] == k]
        if fresh:
            entering = torch.cat([directions[path] for path in fresh])
            entering = stages[k - 1].enters(entering) if k else entering
            state, alive = torch.cat([state, entering]) if alive else entering, alive + fresh
        if k == len(stages):
            images |= dict(zip(alive, state.split(1), strict=True)) if alive else {}
            break
        image = stages[k].block.inner(state)
        ends = torch.tensor([path[1] == k for path in alive])
        ending, alive = [p for p in alive if p[1] == k], [p for p in alive if p[1] > k]
        images |= dict(zip(ending, stages[k].split.before(image[ends]).split(1), strict=True))
        if alive:
            state = stages[k].onward(state[~ends], image[~ends])
    return images


def _source_shape(stages: list[_Stage], source: int) -> Shape:
    return stages[0].block.inputs if source == 0 else stages[source - 1].split.after.inputs


def _of_differences(last: LinearMap, stages: list[_Stage], reach: list[Tensor]) -> Tensor:
    """The last level, for all pairs of rows: no iteration is needed, the rows are pushed back."""
    g = last.adjoint(_basis(last))
    terms = []
    for stage, constant in zip(reversed(stages), reversed(reach), strict=True):
        terms.append(distances(stage.enters.adjoint(g).flatten(1)) * constant)
        if not stage.passes:
            return torch.stack(terms).sum(0)
        g = stage.back(g)
    return torch.stack([*terms, distances(g.flatten(1))]).sum(0)


def distances(rows: Tensor) -> Tensor:
    """Distances between rows, with gradients that stay finite on the diagonal."""
    gram = rows @ rows.T
    lengths = gram.diagonal()
    squares = lengths[:, None] + lengths - 2 * gram
    smallest = torch.finfo(rows.dtype).eps * lengths.detach().amax().clamp_min(1e-30)
    roots = squares.clamp_min(smallest).sqrt()
    return roots * (1 - torch.eye(len(rows), device=rows.device, dtype=rows.dtype))


def _basis(last: LinearMap) -> Tensor:
    """The unit vectors of the logits."""
    basis: Tensor = torch.eye(last.rows).to(_like(last)).unflatten(1, last.outputs)
    return basis


def _like(linear: LinearMap) -> Tensor:
    """A tensor of the type and on the device of a map's weights."""
    weights: list[Tensor | None] = [
        getattr(part, "weight", None) for part in getattr(linear, "maps", (linear,))
    ]
    found: list[Tensor] = [weight.detach() for weight in weights if weight is not None]
    return found[0] if found else torch.zeros(())


def _lengths(vectors: Tensor) -> Tensor:
    """Euclidean lengths over a batch, shaped to divide it."""
    lengths: Tensor = torch.linalg.vector_norm(
        vectors, dim=list(range(1, vectors.ndim)), keepdim=True
    )
    return lengths


def _name(path: Path) -> str:
    return f"direction_{path[0]}_{path[1]}"
