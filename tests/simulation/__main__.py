"""`python -m tests.simulation orchestrated --runs 100000` simulates many runs; `--seed 42` tells one run's story."""

from __future__ import annotations

import argparse
import os
import sys
from functools import partial
from multiprocessing import Pool

from command_service.processes import FULFILMENTS
from shared.logs import configure_logs
from tests.simulation.properties import check
from tests.simulation.world import World


def failure(seed: int, form: str) -> str | None:
    """None where all properties hold."""
    world = World(seed, form)
    try:
        world.run()
        check(world)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is reported with its seed
        return f"seed {seed}: {error!r}"
    return None


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("form", choices=FULFILMENTS)
    arguments.add_argument("--runs", type=int, default=100_000)
    arguments.add_argument("--first", type=int, default=0, help="the seed of the first run")
    arguments.add_argument("--seed", type=int, help="tell the story of this run alone")
    given = arguments.parse_args()
    if given.seed is not None:
        world = World(given.seed, given.form)
        try:
            world.run()
            check(world)
        finally:
            sys.stdout.write(world.story() + "\n")
        return
    configure_logs("simulation", "CRITICAL")  # processes fail on purpose
    failed = 0
    with Pool(os.cpu_count()) as pool:
        seeds = range(given.first, given.first + given.runs)
        for found in pool.imap_unordered(partial(failure, form=given.form), seeds, chunksize=50):
            if found is not None:
                failed += 1
                sys.stdout.write(found + "\n")
    sys.stdout.write(f"{given.form}: {given.runs} runs, {failed} failed\n")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
