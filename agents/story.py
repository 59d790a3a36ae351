"""The story of a run: what was tried, why, and what came of it."""

from collections.abc import Iterator

from agents.state import Agreed, Difference, Round, TuneState
from agents.task.task_file import Task
from constants.counting import counted


def story_of(task: Task, state: TuneState) -> list[str]:
    """Tell a run in lines of Markdown.

    Args:
        task: what was wanted.
        state: what is known.
    """
    return list(_lines(task, state))


def _lines(task: Task, state: TuneState) -> Iterator[str]:
    yield task.description
    yield ""
    if "judge" in state:
        yield f"- The judge and the labels: {agreement_text(state['judge'])}"
    if (baseline := state["baseline"]) is not None:
        yield (
            f"- {task.model} as it is: {task.metric} {baseline['value']:.4g} of {baseline['scale']:g}, "
            f"{counted(len(baseline['scores']), 'test row')}"
        )
    for each in state["rounds"]:
        for change in state.get("applied", []):
            if change["round"] == each["number"]:
                yield f"- Changed for {change['finding']} ({change['commit'][:10]}): {', '.join(change['told'])}"
        yield from _round_lines(task, each)
    if state["stop"]:
        yield f"- The end: {state['stop']}."
    if state["best"]:
        yield f"- The best is round {state['best']}."
    elif state["stop"]:
        yield "- No round was better than the base model; nothing was exported."


def _round_lines(task: Task, each: Round) -> Iterator[str]:
    trained, measured = each["trained"], each["measured"]
    told = ", ".join(f"{name} = {value}" for name, value in each["settings"].items())
    yield f"- Round {each['number']} ({each['commit'][:10]}): {told}"
    if trained["error"]:
        yield f"  - failed: {trained['error'].splitlines()[0]}"
    if measured is not None and each["gain"] is not None:
        kept = "kept" if each["kept"] else "not kept"
        gain = difference_text(each["gain"])
        yield f"  - {task.metric} {measured['value']:.4g}; against the base model {gain}; {kept}"
    if each["against_best"] is not None:
        yield f"  - against the best before it {difference_text(each['against_best'])}"
    for number, one in enumerate(each.get("found", [])):
        yield f"  - found {one['name'].replace('_', ' ')} ({one['weight']:.2f}): {one['evidence'][0]}"
        if not number and trained["error"]:  # what a person has to do about it
            yield from (f"    {line}" for line in one["evidence"][1:])


def agreement_text(found: Agreed) -> str:
    """Return how far a judge agrees with labels."""
    return (
        f"Cohen's kappa {found['kappa']:.2f} [{found['low']:.2f}, {found['high']:.2f}], the same verdict on "
        f"{found['accuracy']:.0%} of {counted(found['rows'], 'answer')}"
    )


def difference_text(found: Difference) -> str:
    """Return a difference with its interval and what may be said of it."""
    return f"{found['mean']:+.4g} [{found['low']:+.4g}, {found['high']:+.4g}], {found['verdict']}"
