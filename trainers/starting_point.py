"""The base configuration of a command line: a preset, a file, or a run to continue."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from datamodules.store import Store
from rate.advice import command
from rate.errors import ConfigError
from trainers import trust
from trainers.config import DataConfig, RunConfig
from trainers.config_files import load_config_file
from trainers.data_sets import notes_of_data, store_of
from trainers.defaults import (
    PRESET,
    default_preset,
    settings_of_dataset,
    settings_of_store,
    target_of_store,
)
from trainers.fit_to_data import ends_by_itself, fit_to_data, fit_to_length
from trainers.flag_table import Translation
from trainers.given_options import AUTO, Given
from trainers.meter import Meter
from trainers.own_environment import PYTHON
from trainers.preset_files import (
    config_path,
    has_own_presets,
    load_over_preset,
    load_preset,
    preset_names,
)
from trainers.registry import check_lengths, environment_of_run, find_environment
from trainers.tasks import merge, preset_for_task
from trainers.working_folder import with_own_paths


def starting_point(
    environment: str, translation: Translation, given: Given
) -> tuple[dict[str, Any], list[str]]:
    """Returns the base configuration: a preset, the file of `--config`, or the run of `--resume`.

    Returns:
        The base configuration as nested plain types, and notes on it.
    """
    resume = None if given.resume == AUTO else given.resume  # uses the settings of the command
    if given.config is None and resume is None:
        return choose_preset(environment, translation, given)
    if translation.preset:
        source = "--resume" if given.config is None else "--config"
        raise ConfigError(
            f"--model chooses a preset, but {source} has all settings already. Leave one out."
        )
    if given.config is not None:
        path, task = config_path(given.config), given.text("env.task")
        config, notes = load_over_preset(path, environment, PRESET, task)
        _require_typed(config, given)
        return config.to_dict(), notes
    path = Path(str(resume)) / "config.yaml"
    if not path.is_file():
        raise ConfigError(
            f"{resume} holds no run: {path.name} is missing. Give --resume the folder of a "
            "run, for example runs/tmaze-rate-1, or --resume auto, which starts a run that is not "
            "there yet."
        )
    base = load_config_file(path)
    if base.environment != environment:
        raise ConfigError(
            f"{path} is of {base.environment}, not of {environment}; use: "
            f"{command('train', base.environment)}"
        )
    base, notes = with_own_paths(base, path.parent)
    _require_typed(base, given)
    return base.to_dict(), notes


def _require_typed(config: RunConfig, given: Given) -> None:
    """Check that a file's Python for simulators is trusted: named by the user, now or before."""
    python = config.env.get(PYTHON)
    if python is not None and given.text(f"env.{PYTHON}") is None:
        trust.require("", {PYTHON: python})


def is_fitted_to_own_data(run: RunConfig) -> bool:
    """Whether the generic preset of a run is fitted to data that are generated for the run."""
    if run.data.store is not None or has_own_presets(run.environment):
        return False
    return run.data.expert is not None or bool(find_environment(run.environment).preset_base)


def _played_length(run: RunConfig) -> int:
    """Returns the most steps of an episode that is played: the environment's own limit, if any."""
    environment = environment_of_run(run)
    if run.data.max_length is None and ends_by_itself(environment):
        return environment.steps_at(None)
    return run.max_length


def _play(run: RunConfig, length: int) -> Store:
    """Returns the data that a policy plays, with a progress display."""
    environment = environment_of_run(run)
    environment.check_data(run.data)
    check_lengths(environment, [length], "data.max_length")
    with Meter(shown=run.logging.progress) as meter:
        return Store.open(environment.prepare_data(run.data, length, meter.show))


def choose_preset(
    environment: str, translation: Translation, given: Given, run: RunConfig | None = None
) -> tuple[dict[str, Any], list[str]]:
    """Returns the named or default preset, adapted to the task and the data.

    Args:
        environment: The environment.
        translation: The short flags.
        given: The options.
        run: The configuration before the data, or the length of data that are to be generated, are
            taken into account; None ignores both.

    Returns:
        The preset, and notes on it.
    """
    names, name, notes = preset_names(environment), translation.preset, []
    dataset, store, played = given.text("data.dataset"), None, None
    if run is not None and run.data.store is not None:
        store = store_of(run)
    elif run is not None and not find_environment(environment).preset_base:
        played = _played_length(run)
        store = _play(run, played)
    if name is None:
        name = default_preset(names, given.text("data.store") or dataset or given.text("env.game"))
        if name != PRESET:
            published = f"--model_mode {PRESET.upper()} is the published model, for a GPU."
            notes.append(f"the preset is {name}, small and for a CPU. {published}")
    if store is not None:
        settings_in_data = settings_of_store(environment, store.spec)
    else:
        settings_in_data = settings_of_dataset(
            environment, dataset, given.text("data.root") or DataConfig.root
        )
    preset = load_preset(environment, name)
    preset = preset_for_task(
        environment, preset, given.text("env.task") or settings_in_data.get("task")
    )
    if run is not None and store is not None:
        notes += notes_of_data(run, store)
        merge(preset, {"evaluation": target_of_store(environment, store)})
        if not has_own_presets(environment):
            preset = fit_to_data(preset, store, environment_of_run(run))
    elif run is not None:
        preset = fit_to_length(preset, run, environment_of_run(run), dict(given.settings))
    if played is not None:
        merge(preset, {"data": {"max_length": played}})
    settings = find_environment(environment).options
    usual = {**({} if settings is None else asdict(settings())), **preset.get("env", {})}
    if unusual := [
        f"env.{name}={value}" for name, value in settings_in_data.items() if value != usual[name]
    ]:
        words = ", ".join(unusual)
        notes.append(f"as in the data, unless you say otherwise: {words}.")
    env = {**preset.get("env", {}), **settings_in_data}
    return {**preset, "environment": environment, "env": env}, notes
