"""What was compiled or generated for other releases than those beside it: for NumPy 1, by another protobuf."""

from collections.abc import Iterator

from packaging.specifiers import SpecifierSet
from packaging.version import Version

from doctor.case import Case
from doctor.diagnosis.mechanism import Known
from doctor.diagnosis.moves import known_names, to_range
from doctor.diagnosis.pair_changes import raised, with_version
from doctor.finding import Change, Finding
from doctor.linking.compiled import built_for_numpy_1, generated_modules
from doctor.linking.link import STANDARD_LIBRARY, Linker


def old_binaries(case: Case, knowledge: Known, linker: Linker) -> Iterator[Finding]:
    """Find extension modules that were built for NumPy 1, beside NumPy 2."""
    numpy = case.environment.version("numpy")
    if numpy is None or numpy < Version("2"):
        return
    told: set[str] = set()
    for path, visit in linker.compiled.items():
        owner = linker.owner(visit.module)
        if owner in (None, STANDARD_LIBRARY, "numpy", *told) or visit.reached == "lazy":
            continue
        if not linker.requires(str(owner), "numpy"):
            continue
        library = built_for_numpy_1(path)
        if library is None:
            continue
        told.add(str(owner))
        changes = [move.change for move in to_range(case, knowledge, "numpy", "<2")]
        changes = changes or [Change("pin", "Lower numpy to a release before 2.", ("numpy<2",))]
        built = _first_after_numpy_2(case, knowledge, str(owner))
        yield Finding(
            "built-for-numpy-1", "import/binary_abi", "error", 0.9,
            f"{with_version(case, str(owner))} was compiled for NumPy 1, and NumPy {numpy} is here.",
            (f"{library} of {owner} asks for `numpy.core.multiarray` and knows no numpy._core",),
            f"{visit.by} fails: NumPy 2 refuses extension modules that only know the C interface of NumPy 1.",
            (*changes, *built), culprits=("numpy", str(owner)), source="the bytes of the installed extension modules",
            provable=visit.by if visit.by.startswith("import ") else None, check=f'python -c "{visit.by}"',
        )  # fmt: skip


def _first_after_numpy_2(case: Case, knowledge: Known, owner: str) -> list[Change]:
    two = next((one.uploaded for one in knowledge.metadata.releases("numpy") if one.version == Version("2.0.0")), None)
    here = case.environment.version(owner)
    later = [one for one in knowledge.metadata.releases(owner)
             if two and here and one.uploaded >= two and one.version > here]  # fmt: skip
    return [move.change for move in to_range(case, knowledge, owner, f">={later[0].version}")] if later else []


def old_generated(case: Case, knowledge: Known, linker: Linker) -> Iterator[Finding]:
    """Find modules that an old compiler of protocol buffers wrote beside a new runtime, and the other way round."""
    runtime = case.environment.version("protobuf")
    if runtime is None:
        return
    for name in known_names(case):
        one = case.environment.find(name)
        for made in generated_modules(one) if one and name != "protobuf" else ():
            module = made.file.removesuffix(".py").replace("/", ".")
            visit = linker.visited.get(module)
            level = "error" if visit and visit.reached == "import" else "warning"
            by = visit.by if visit and visit.reached == "import" else f"import {module}"
            if made.old and runtime >= Version("3.21"):
                why = (
                    f"protobuf {runtime} refuses descriptors that are created directly, as compilers before 3.20 wrote."
                )
                range_, twig = "<3.21", "was written for protobuf before 3.21"
            elif visit and made.made_by and runtime < Version(".".join(map(str, made.made_by))):
                needed = ".".join(map(str, made.made_by))
                why = f"It asks for protobuf {needed} at least when it is imported."
                range_, twig = f">={needed}", f"was written for protobuf {needed} or newer"
            else:
                continue
            moves = [move.change for move in to_range(case, knowledge, "protobuf", range_)]
            changes = (*(moves or [Change("pin", f"Move protobuf to {range_}.", (f"protobuf{range_}",))]),
                       *(move.change for move in raised(case, knowledge, name)))  # fmt: skip
            if SpecifierSet(range_).contains("3.20.3"):
                slow = (("PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION", "python"),)
                changes += (Change("environment", "Or use the slow implementation in Python.", environment=slow),)
            yield Finding(
                "generated-for-other-protobuf", "import/wrong_version", level, 0.85 if level == "error" else 0.75,
                f"{with_version(case, name)} has a module that {twig}, and protobuf {runtime} is here.",
                (f"{made.file}: `Descriptors` are made as `protobuf` {range_} takes them",), why, changes,
                culprits=("protobuf", name), source="the sources of the installed packages", provable=by,
                check=f'python -c "{by}"',
            )  # fmt: skip
            break
