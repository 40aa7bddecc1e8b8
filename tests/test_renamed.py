"""Former names of settings, metrics and stored columns are still read, and never written."""

import json

import numpy as np
import pytest
from gymnasium import spaces

from datamodules import Episode, Store, write_store
from rate.envs.retrieval import RetrievalOptions, retrieval_spec
from rate.envs.spec import EnvironmentSpec
from rate.renamed import (
    METRICS,
    SETTINGS,
    current_metrics,
    current_settings,
    current_weights,
    former_settings,
)
from tests.digests import renew_store
from trainers.cli import parse
from trainers.config_files import config_from_dict, load_config_file, section_types
from trainers.registry import get_environment


def as_formerly(text: str) -> str:
    """Returns a file's text with the names of an earlier version."""
    return text.replace('"privileged"', '"hint"').replace("/privileged", "/hint")


@pytest.mark.parametrize("former", SETTINGS)
def test_every_former_name_maps_to_an_existing_setting(former: str) -> None:
    section, _, name = former.partition(".")
    kind = section_types({"environment": "retrieval"})[section]
    assert kind is not None
    known = kind.__dataclass_fields__
    assert name not in known
    assert SETTINGS[former].name in known


def test_a_former_option_is_read_with_a_note() -> None:
    words = ["--env.hint=true", "--loss.hint_weight=0.5", "--loss.decisive_steps", "changes"]
    command = parse("retrieval", words)
    assert command.config.env["privileged"] is True
    assert "--env.hint is now called --env.privileged." in command.notes
    assert "--loss.hint_weight is now called --loss.auxiliary_state_weight." in command.notes
    assert command.config.to_dict()["loss"]["weighted_steps"] == "keyframes"
    assert not any("now called" in note for note in parse("retrieval", []).notes)


def test_former_names_in_configuration_files_are_read(tmp_path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(
        "environment: retrieval\nenv: {hint: true}\nevaluation: {exact_window: false}\n"
        "loss: {hint_weight: 2, decisive_steps: final}\n"
    )
    for config in (
        load_config_file(path),
        parse("retrieval", [f"--config={path}"]).config,
    ):
        plain = config.to_dict()
        assert plain["env"] == {"privileged": True}
        assert plain["loss"]["auxiliary_state_weight"] == 2
        assert plain["loss"]["weighted_steps"] == "last"
        assert plain["evaluation"]["recompute_window"] is False
    assert config_from_dict(plain) == config


def test_settings_of_a_users_own_environment_keep_their_names() -> None:
    config = config_from_dict({"environment": "my_package:MyEnv", "env": {"hint": True}})
    assert config.env == {"hint": True}
    assert current_settings("env", {"hint": 1}, ["hint", "privileged"]) == {"hint": 1}


def test_the_current_name_takes_precedence() -> None:
    given = {"hint": False, "privileged": True}
    assert current_settings("env", given, ["privileged"]) == {"privileged": True}


def test_a_saved_model_of_an_earlier_version_keeps_the_order_of_its_observations() -> None:
    spec = get_environment("retrieval", {"privileged": True}).spec
    old = json.loads(as_formerly(json.dumps(spec.to_dict())))
    assert list(old["observation_space"]["spaces"]) == ["hint", "vector"]
    read = EnvironmentSpec.from_dict(old)
    assert read == spec
    assert list(read.observation_space.spaces) == ["privileged", "vector"]
    foreign = EnvironmentSpec.from_dict({**old, "name": "my_package:MyEnv"})
    assert "hint" in foreign.observation_space.spaces


def test_a_data_set_of_an_earlier_version_is_read(tmp_path) -> None:
    options = RetrievalOptions(privileged=True)
    observations = {
        "vector": np.ones((3, 3), np.float32),
        "privileged": np.ones((3, 2), np.float32),
    }
    episode = Episode(observations, np.zeros(3, np.int64), np.ones(3, np.float32), True, False)
    spec = EnvironmentSpec.from_dict(
        {**retrieval_spec(options).to_dict(), "options": {"privileged": True}}
    )
    store = write_store([episode], tmp_path / "store", spec, {"privileged": True})
    manifest = store.path / "manifest.json"
    manifest.write_text(as_formerly(manifest.read_text()))
    renew_store(store.path)
    read = Store.open(store.path, verify=True)
    assert set(read.observations) == {"vector", "privileged"}
    assert read.spec == spec
    assert read.manifest["provenance"]["privileged"] is True  # so it is not made again
    assert read.normalisation.keys() == store.normalisation.keys()
    assert isinstance(read.observing(spaces.Box(0, 1, (2,), np.float32)).observations, np.ndarray)


def test_generated_data_sets_keep_their_names() -> None:
    assert former_settings("env", {"privileged": True, "size": 9}) == {"hint": True, "size": 9}
    added = {"game": "Pong", "last_action": False, "last_reward": True, "python": None}
    kept = {"game": "Pong", "last_reward": True, "python": None}
    assert former_settings("env", added) == kept


def test_metrics_and_weights_of_an_old_run() -> None:
    for former, name in METRICS.items():
        row = {"step": "1", former: "2", f"held_out/{former}": "3"}
        assert current_metrics(row) == {"step": "1", name: "2", f"held_out/{name}": "3"}
    old = {"objective.hint_head.linear.weight": 1, "model.head.weight": 2}
    new = {"objective.auxiliary_head.linear.weight": 1, "model.head.weight": 2}
    assert current_weights(old, new) == new
    assert current_weights(old, old) == old
    assert current_weights({"residual.alpha": 2.0}, {"residual.alpha_tenth"}) == {
        "residual.alpha_tenth": 0.2
    }
    assert current_weights({"cell.alpha": 2.0}, {"cell.alpha"}) == {"cell.alpha": 2.0}
