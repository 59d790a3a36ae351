"""A population that is there: what is missing or stale is trained anew, aloud."""

import subprocess
import sys
from pathlib import Path

from beautilog import logger

from constants import PACKAGE_ROOT, PROJECT_ROOT
from data.data_error import DataError
from data.network_population import Population, load_population

_TRAINER = "NetworkPopulationTrainer"


def open_population(folder: Path, networks: int) -> Population:
    """Read the first networks of a population; train it first where it is missing, stale or too small.

    Args:
        folder: folder of the population.
        networks: number of networks that are needed.

    Raises:
        DataError: it could not be trained.
    """
    try:
        population = load_population(folder)
        if len(population) >= networks:
            return population.first(networks)
        reason = f"the population in {folder} has {len(population)} networks, {networks} are asked for."
    except DataError as error:
        reason = str(error)
    logger.info(f"{reason} It is trained now: {networks} networks, a few minutes.")
    script = [str(PACKAGE_ROOT / "train.py")] if PROJECT_ROOT == PACKAGE_ROOT else ["-m", "menagerie", "train"]
    words = [f"networks={networks}", "publish=on", f"population={folder.resolve()}", "plot_at_end=off"]
    done = subprocess.run([sys.executable, *script, _TRAINER, *words])
    if done.returncode:
        raise DataError(
            f"the population could not be trained (exit code {done.returncode}); its own lines are above. "
            f"To go on: `{_TRAINER} {' '.join(words[:3])} --resume`."
        )
    return load_population(folder).first(networks)
