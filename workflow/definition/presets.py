"""Settings of presets, of workflow.yaml and of the files that its key `settings` names: one set."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from constants.nearest import meant, nearest
from workflow.definition.nodes import Node, Problems, root_of
from workflow.definition.numbers import number_of

Settings = Mapping[str, object]


@dataclass
class Presets:
    """Settings by preset, with where each stands.

    Attributes:
        settings: value of each setting, by preset.
        nodes: where that value stands, by preset and setting.
        places: where a preset begins, for what it lacks: of each file that names it, by the preset's name.
        told: presets and settings of theirs that a mistake was told of.
        is_whole: whether all files were read; else settings that seem not to be there may be in the others.
    """

    settings: dict[str, dict[str, object]] = field(default_factory=dict)
    nodes: dict[str, dict[str, Node]] = field(default_factory=dict)
    places: dict[tuple[Problems, str], Node] = field(default_factory=dict)
    told: set[tuple[str, str]] = field(default_factory=set)
    is_whole: bool = True

    def files(self) -> dict[str, str]:
        """Return the name of the file in which each setting stands."""
        return {key: node.problems.path.name for nodes in self.nodes.values() for key, node in nodes.items()}


def read_presets(node: Node | None, files: Node | None) -> tuple[Presets, list[Problems]]:
    """Read the presets.

    Args:
        node: value of the key `presets`, whose names are the presets that there are.
        files: value of the key `settings`: names of files of the form `preset: {setting: value}`.

    Returns:
        The presets, and the mistakes in the files that were read beside workflow.yaml.
    """
    presets = Presets()
    for preset, own in ((node.mapping() or {}) if node is not None else {}).items():
        presets.settings[preset], presets.nodes[preset] = {}, {}
        _take(presets, preset, own)
    if node is not None and not presets.settings:
        node.problem("names no preset; one is needed, such as `cpu: {}`")
    problems = []
    names: list[str] = []
    for each in files.items("file") if files is not None else []:
        name = each.text()
        if name is None:
            continue
        if name in names:
            each.problem(f"{name} is named twice")
            continue
        names.append(name)
        problems.append(_read_file(presets, name, each))
    return presets, problems


def check_presets(presets: Presets, used: Sequence[str], is_whole: bool) -> None:
    """Check that all presets have the same settings, of the same kind, and that something uses them.

    Args:
        presets: the presets.
        used: settings that steps name.
        is_whole: whether these are all; not where a step could not be read.
    """
    every = list(dict.fromkeys(key for own in presets.settings.values() for key in own))
    idle = [key for key in every if key not in used and (is_whole or _lost(presets, key, used))]
    stood_for: set[tuple[str, str]] = set()  # preset and setting that a misspelt one stands for
    for key in idle:
        near = _lost(presets, key, used) or nearest(key, used)
        for name, nodes in presets.nodes.items():
            if key in nodes:
                stood_for |= {(name, near)} if near else set()
                nodes[key].problem(f"is a setting that no step uses{f'; did you mean {near}?' if near else ''}")
    lacking: dict[tuple[Node, str, str], list[str]] = {}
    for key in every:
        have = [name for name, own in presets.settings.items() if key in own]
        first = presets.nodes[have[0]][key].problems
        for name in presets.settings:
            if key not in idle and name not in have and (name, key) not in stood_for:
                place = presets.places.get((first, name)) or presets.places[first, have[0]]
                lacking.setdefault((place, name, have[0]), []).append(key)
        _check_kinds(presets, key)
    for (place, name, other), keys in lacking.items():
        homes = ", ".join(dict.fromkeys(presets.nodes[other][key].place for key in keys))
        place.problems.add(place.line, f"{name} lacks {', '.join(keys)}, which {other} has ({homes})")


def _lost(presets: Presets, key: str, used: Sequence[str]) -> str | None:
    """Return the setting, of nearly this name, that is used and that a preset lacks."""
    return nearest(key, [one for one in used if any(one not in own for own in presets.settings.values())])


def _check_kinds(presets: Presets, key: str) -> None:
    """A setting that is a number in one preset is one in all: else "sixteen" would reach a script."""
    found = {name: nodes[key] for name, nodes in presets.nodes.items() if key in nodes}
    numbers = {name for name in found if number_of(presets.settings[name][key]) is not None}
    if not numbers:
        return
    for name, node in found.items():
        value = presets.settings[name][key]
        if name not in numbers and (name, key) not in presets.told:
            other = next(one for one in found if one in numbers)
            presets.told.add((name, key))
            node.problem(f"is {value!r}; needed is a number, as {other} has it ({presets.settings[other][key]})")


def _read_file(presets: Presets, name: str, named: Node) -> Problems:
    path = named.problems.path.parent / name
    problems = Problems(path)
    if not path.is_file():
        there = [one.name for one in path.parent.glob("*.y*ml") if one != named.problems.path]
        named.problem(f"{name} is not there{meant(name, there)}")
        presets.is_whole = False
        return problems
    root = root_of(path, problems)
    known = tuple(presets.settings)
    found = Node(root, problems, name).mapping(known) if root is not None else None
    if root is None and not problems.texts:
        problems.add(1, f"it is empty; needed are the presets {', '.join(known)}")
    # A preset whose name is misspelt would lack all that the file says of it, which is told by its name.
    presets.is_whole &= not problems.texts
    for preset, each in (found or {}).items():
        _take(presets, preset, each)
    return problems


def _take(presets: Presets, name: str, node: Node) -> None:
    """Add settings of a preset; one that is there already, in this file or another, is a mistake."""
    presets.places[node.problems, name] = node
    for key, value in (node.mapping() or {}).items():
        first = presets.nodes[name].get(key)
        if first is not None:
            value.problem(f"is there already, in {first.place}")
            continue
        plain = value.plain()
        if plain is None or plain == "" or isinstance(plain, Mapping):
            value.problem(f"{'has keys of its own' if plain else 'is empty'}; needed is a value")
            presets.told.add((name, key))
        presets.settings[name][key], presets.nodes[name][key] = plain, value
