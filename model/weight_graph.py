"""A family of networks as a graph: layers of units, and the weight tensors between them.

Units of a hidden width have no order (a permutation of them changes nothing), input positions and output classes have
one. Which is which follows from `model.zoo_families.permutation_groups`.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from model.zoo_families import family_shapes, permutation_groups


@dataclass(frozen=True)
class UnitLayer:
    """A set of units.

    Attributes:
        name: name of the layer, unique in the family.
        units: number of units.
        ordered: whether the units keep their places: input positions, output classes.
        writers: names of the weight tensors whose rows are the units.
        readers: names of the weight tensors whose columns are the units.
        vectors: names of the tensors with one number a unit: biases, gains of norms.
        rescalable: whether a unit's incoming weights can be divided, and its outgoing ones multiplied, by one positive
            number without changing what the network computes: true where nothing but ReLU lies between them.
    """

    name: str
    units: int
    ordered: bool
    writers: tuple[str, ...]
    readers: tuple[str, ...]
    vectors: tuple[str, ...]
    rescalable: bool

    @property
    def is_input(self) -> bool:
        """Whether no weights lead to the units."""
        return not self.writers


@dataclass(frozen=True)
class WeightTensor:
    """Weights between two layers of units, in the order of the forward pass.

    Attributes:
        name: name of the parameter.
        source: number of the layer of units that is read.
        target: number of the layer of units that is written.
        kernel: numbers for each pair of units: positions of a convolution's kernel.
    """

    name: str
    source: int
    target: int
    kernel: int


@dataclass(frozen=True)
class WeightGraph:
    """The units of a family's networks and the weights between them.

    Attributes:
        family: name of the family.
        layers: layers of units.
        tensors: weights between them, from the input to the output.
        shapes: shape of each parameter, in the order of a flat vector.
    """

    family: str
    layers: tuple[UnitLayer, ...]
    tensors: tuple[WeightTensor, ...]
    shapes: dict[str, torch.Size]

    @property
    def units(self) -> int:
        """Units of all layers."""
        return sum(layer.units for layer in self.layers)

    def split(self, vectors: torch.Tensor) -> dict[str, torch.Tensor]:
        """Cut flat vectors (n, parameters): weights (n, units out, units in, kernel), others (n, units)."""
        parts = vectors.split([shape.numel() for shape in self.shapes.values()], dim=1)
        return {
            name: part.reshape(len(part), *shape[:2], -1) if len(shape) > 1 else part
            for (name, shape), part in zip(self.shapes.items(), parts, strict=True)
        }

    def balanced(self, vectors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Give each unit whose scale is free incoming weights and bias of norm 1; the networks compute the same.

        Args:
            vectors: (n, parameters) float32.

        Returns:
            The same networks, (n, parameters), and for each unit (n, units, 2) the logarithms of the norm that its
            incoming weights had, and of that of its outgoing weights as they are now.
        """
        parts = {name: part.clone() for name, part in self.split(vectors).items()}
        norms = []
        for layer in self.layers:
            # Where several tensors write, as to a residual stream, the first counts: what the others write has been
            # read from the units themselves.
            first = layer.writers[:1]
            incoming = [parts[name].square().sum((2, 3)) for name in first]
            incoming += [parts[name].square() for name in layer.vectors if _module(name) == _module(first[0])]
            norm = (sum(incoming) if incoming else vectors.new_ones(len(vectors), layer.units)).sqrt().clamp(min=1e-6)
            if layer.rescalable:
                for name in layer.writers:
                    parts[name] /= norm[:, :, None, None]
                for name in layer.vectors:
                    parts[name] /= norm
                for name in layer.readers:
                    parts[name] *= norm[:, None, :, None]
            norms.append(norm)
        outgoing = []
        for layer, norm in zip(self.layers, norms, strict=True):
            squares = [parts[name].square().sum((1, 3)) for name in layer.readers]
            outgoing.append((sum(squares) if squares else torch.ones_like(norm)).sqrt().clamp(min=1e-6))
        logs = torch.stack([torch.cat(norms, dim=1).log(), torch.cat(outgoing, dim=1).log()], dim=2)
        return torch.cat([part.flatten(1) for part in parts.values()], dim=1), logs


def weight_graph(family: str) -> WeightGraph:
    """Return the graph of a family of `model.zoo_families`."""
    shapes = family_shapes(family)
    group_of = {place: number for number, group in enumerate(permutation_groups(family)) for place in group}
    numbers: dict[int | str, int] = {}  # of each group, or of a tensor's axis that is in none, its layer
    members: dict[int, list[tuple[str, int]]] = {}
    for name, axis in _places(shapes):
        layer = numbers.setdefault(group_of.get((name, axis), f"{_module(name)} {axis}"), len(numbers))
        members.setdefault(layer, []).append((name, axis))
    layers = []
    for key, number in numbers.items():
        places = members[number]
        matrices = [(name, axis) for name, axis in places if len(shapes[name]) > 1]
        vectors = tuple(name for name, _ in places if len(shapes[name]) == 1)
        writers = tuple(name for name, axis in matrices if axis == 0)
        readers = tuple(name for name, axis in matrices if axis == 1)
        normed = any(f"{_module(name)}.weight" not in (*writers, *readers) for name in vectors)  # a norm's gain
        name, axis = places[0]
        ordered = isinstance(key, str)
        layers.append(
            UnitLayer(
                name=_module(name) if axis == 0 else f"input of {_module(name)}",
                units=shapes[name][axis],
                ordered=ordered,
                writers=writers,
                readers=readers,
                vectors=vectors,
                rescalable=not ordered and not normed,
            )
        )
    place_of = {place: number for number, places in members.items() for place in places}
    tensors = tuple(
        WeightTensor(name, place_of[name, 1], place_of[name, 0], shape[2:].numel())
        for name, shape in shapes.items()
        if len(shape) > 1
    )
    return WeightGraph(family, tuple(layers), tensors, dict(shapes))


def _places(shapes: dict[str, torch.Size]) -> Iterator[tuple[str, int]]:
    for name, shape in shapes.items():
        if len(shape) > 1:
            yield name, 1
        yield name, 0


def _module(name: str) -> str:
    return name.rpartition(".")[0]
