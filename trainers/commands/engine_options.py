"""`--on` and `--ray-address`: where a command plays episodes and trains runs."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console

from rate.errors import ConfigError
from rate.workers.engine import performing_on

ENGINES = ("local", "ray")


def add_engine_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose where the work is done."""
    parser.add_argument(
        "--on",
        choices=ENGINES,
        default="local",
        help="where it runs: in processes of this machine, or on a Ray cluster",
    )
    parser.add_argument(
        "--ray-address",
        metavar="HOST:PORT",
        help="the cluster's head, or auto (default: RAY_ADDRESS; else one is started here)",
    )


@contextmanager
def engine_of(
    options: argparse.Namespace,
    console: Console,
    cores: int | None = None,
    shared: Path | None = None,
) -> Iterator[None]:
    """Context in which work is done where the options of a command say.

    Args:
        options: The options of the command.
        console: Where the address and size of the cluster are printed.
        cores: The cores of a cluster that is started; None is all of them.
        shared: A folder that every node must see; it is made. None if there is none.

    Raises:
        ConfigError: If the cluster cannot be used.
    """
    if options.on == "local":
        if options.ray_address is not None:
            raise ConfigError("--ray-address goes with --on ray.")
        yield
        return
    from trainers.ray_cluster import Origin, check_nodes, connected

    with ExitStack() as stack:
        console.print(
            stack.enter_context(connected(options.ray_address, cores)),
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
        from trainers.ray_engine import RayEngine  # needs Ray, of which `connected` has told

        file = None
        if shared is not None:
            shared.mkdir(parents=True, exist_ok=True)
            folder = stack.enter_context(
                TemporaryDirectory(prefix=".nodes-", dir=shared.absolute())
            )
            file = Path(folder)
        origin = Origin.here(file)
        check_nodes(origin)
        engine = RayEngine(origin)
        with performing_on(engine):
            yield
        if not engine.is_used:
            console.print(
                "note: the cluster was not used: one process makes it all, or it was there."
            )
