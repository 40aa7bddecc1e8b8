"""The public model once more, written independently of `rate.reference` and as slowly as it reads.

Encoders are `torch.nn` sequences spelled out per environment; attention walks over every batch
row, head, query and key. It is there to disagree with `rate.reference` where that one is wrong.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

BASE: dict[str, Any] = {
    "dropout": 0.0, "dropatt": 0.0, "ext_len": 0, "mem_at_end": True, "mrv_act": "relu",
    "padding_idx": -10, "skip_dec_ffn": False, "pre_lnorm": False, "use_gate": False,
    "use_stable_version": False, "env_name": "tmaze", "state_dim": 4, "act_dim": 4, "n_layer": 2,
    "n_head": 2, "n_head_ca": 2, "d_model": 8, "d_head": 3, "d_inner": 10, "mem_len": 9,
    "num_mem_tokens": 2,
}  # fmt: skip

IMAGES = {
    "vizdoom": (3, 64, 112), "memory_maze": (3, 64, 64), "minigrid_memory": (3, 84, 84),
    "atari": (4, 84, 84), "mikasa_robo": (6, 128, 128),
}  # fmt: skip

LOCOMOTION = (
    "hopper", "halfcheetah", "walker2d", "hopper-medium-v2", "HalfCheetah-v4",
    "mujoco/walker2d-expert-v0",
)  # fmt: skip
CONTINUOUS = (
    *LOCOMOTION, "mikasa_robo", "mujoco", "popgym-PositionOnlyPendulumEasy-v0",
    "MountainCarContinuous-v0", "Pendulum-v1",
)  # fmt: skip


def _image(channels: int, features: int, width: int, padding: int, *tail: nn.Module) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(channels, 32, 8, 4, padding), nn.ReLU(),
        nn.Conv2d(32, 64, 4, 2, padding), nn.ReLU(),
        nn.Conv2d(64, 64, 3, 1, padding), nn.ReLU(),
        nn.Flatten(), nn.Linear(features, width), *tail,
    )  # fmt: skip


def build_ends(config: dict[str, Any]) -> nn.ModuleDict:
    """The encoders and head of an environment, under their public names."""
    env, d, a, s = (config[name] for name in ("env_name", "d_model", "act_dim", "state_dim"))
    rtg, rtg_tanh = nn.Linear(1, d), nn.Sequential(nn.Linear(1, d), nn.Tanh())
    table = nn.Sequential(nn.Embedding(a, d), nn.Tanh())
    squashed = nn.Sequential(nn.Linear(a, d), nn.Tanh())
    padded_table = nn.Sequential(nn.Embedding(a + 1, d), nn.Tanh())
    plain_head = nn.Linear(d, a, bias=False)
    tanh_head = nn.Sequential(nn.Linear(d, a), nn.Tanh())
    makers: dict[str, tuple[nn.Module, nn.Module, nn.Module, nn.Module]] = {
        "tmaze": (nn.Linear(s, d), rtg, padded_table, plain_head),
        "aar": (nn.Linear(s, d), rtg, padded_table, plain_head),
        "CartPole-v1": (nn.Linear(s, d), rtg, padded_table, plain_head),
        "vizdoom": (_image(3, 2560, d, 0, nn.Tanh()), rtg_tanh, table, plain_head),
        "memory_maze": (_image(3, 7744, d, 2, nn.Tanh()), rtg_tanh, table, plain_head),
        "minigrid_memory": (_image(3, 3136, d, 0), rtg, nn.Embedding(a + 1, d), plain_head),
        "atari": (_image(4, 3136, d, 0, nn.Tanh()), rtg_tanh, padded_table, plain_head),
        "mikasa_robo": (_image(6, 9216, d, 0, nn.Tanh()), rtg, nn.Linear(a, d), tanh_head),
        "mujoco": (nn.Linear(s, d), rtg, nn.Linear(a, d), tanh_head),
        **{task: (nn.Linear(s, d), rtg, squashed, tanh_head) for task in LOCOMOTION},
        **{task: (nn.Linear(s, d), rtg, padded_table, plain_head)
           for task in ("MountainCar-v0", "Acrobot-v1")},
        **{task: (nn.Linear(s, d), rtg, squashed, tanh_head)
           for task in ("MountainCarContinuous-v0", "Pendulum-v1")},
        "popgym-RepeatFirstEasy-v0": (nn.Linear(s, d), rtg, nn.Embedding(a + 1, d), plain_head),
        "popgym-AutoencodeHard-v0": (
            nn.Linear(s, d), rtg, nn.Sequential(nn.Embedding(a + 1, d)), plain_head,
        ),
        "popgym-PositionOnlyPendulumEasy-v0": (nn.Linear(s, d), rtg, squashed, plain_head),
        "arshot": (nn.Embedding(s + 1, d), rtg, padded_table, plain_head),
    }  # fmt: skip
    names = ("state_encoder", "ret_emb", "action_embeddings", "head")
    return nn.ModuleDict(dict(zip(names, makers[env], strict=True)))


def build_weights(config: dict[str, Any], ends: nn.ModuleDict) -> dict[str, Tensor]:
    """A random public state dict around the given encoders, unused parameters included."""
    d, inner = config["d_model"], config["n_head"] * config["d_head"]
    shapes: dict[str, tuple[int, ...]] = {
        "embed_timestep.weight": (1000, d), "embed_ln.weight": (d,), "embed_ln.bias": (d,),
        "r_w_bias": (config["n_head"], config["d_head"]),
        "r_r_bias": (config["n_head"], config["d_head"]),
    }  # fmt: skip
    for i in range(config["n_layer"]):
        norms = ["dec_attn.layer_norm", "layer_norm1"]
        if not config["skip_dec_ffn"]:
            norms += ["layer_norm2", "pos_ff.layer_norm"]
            shapes[f"layers.{i}.pos_ff.CoreNet.0.weight"] = (config["d_inner"], d)
            shapes[f"layers.{i}.pos_ff.CoreNet.0.bias"] = (config["d_inner"],)
            shapes[f"layers.{i}.pos_ff.CoreNet.3.weight"] = (d, config["d_inner"])
            shapes[f"layers.{i}.pos_ff.CoreNet.3.bias"] = (d,)
        for norm in norms:
            shapes[f"layers.{i}.{norm}.weight"] = shapes[f"layers.{i}.{norm}.bias"] = (d,)
        shapes[f"layers.{i}.dec_attn.qkv_net.weight"] = (3 * inner, d)
        shapes[f"layers.{i}.dec_attn.r_net.weight"] = (inner, d)
        shapes[f"layers.{i}.dec_attn.o_net.weight"] = (d, inner)
        if config["use_gate"]:
            for gate in ("gate_mha", "gate_mlp"):
                for matrix in ("Wr", "Ur", "Wz", "Uz", "Wg", "Ug"):
                    shapes[f"layers.{i}.{gate}.{matrix}.weight"] = (d, d)
                shapes[f"layers.{i}.{gate}.bg"] = (d,)
    if config["num_mem_tokens"]:
        shapes["mem_tokens"] = (config["num_mem_tokens"], 1, d)
    if config["n_head_ca"]:
        for layer in ("wq", "wk", "wv", "dense"):
            shapes[f"mha_mem_to_mem.{layer}.weight"] = (d, d)
            shapes[f"mha_mem_to_mem.{layer}.bias"] = (d,)
    weights = {name: 0.4 * torch.randn(shape) for name, shape in shapes.items()}
    weights["pos_emb.inv_freq"] = 1 / 10000 ** (torch.arange(0.0, d, 2.0) / d)
    return weights | {name: tensor.detach().clone() for name, tensor in ends.state_dict().items()}


def inputs_for(config: dict[str, Any], steps: int, batch: int) -> dict[str, Tensor]:
    """Random inputs; the last step of the last row is padded where actions are indices."""
    env, vector = config["env_name"], (config["state_dim"],)
    observations = torch.rand(batch, steps, *IMAGES.get(env, vector))
    if env == "arshot":
        observations = torch.randint(config["state_dim"] + 1, (batch, steps, 1)).float()
    actions = torch.randint(config["act_dim"], (batch, steps, 1)).float()
    if env in CONTINUOUS:
        actions = torch.randn(batch, steps, config["act_dim"])
    if config["padding_idx"] is not None:
        actions[-1, -1] = config["padding_idx"]
    returns = torch.rand(batch, steps, 1)
    return {"observations": observations, "actions": actions, "returns_to_go": returns}


def triple(inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    return inputs["observations"], inputs["actions"], inputs["returns_to_go"]


class ByHand:
    """Answers as the public model would, in float64."""

    def __init__(
        self, config: dict[str, Any], ends: nn.ModuleDict, weights: dict[str, Tensor]
    ) -> None:
        self.config, self.ends = config, ends.double()
        self.weights = {name: tensor.double() for name, tensor in weights.items()}

    def run(
        self, observations: Tensor, actions: Tensor, returns: Tensor, context: int
    ) -> list[tuple[Tensor, Tensor | None, list[Tensor] | None]]:
        c, b, d = self.config, returns.shape[0], self.config["d_model"]
        m = c["num_mem_tokens"]
        memory = self.weights["mem_tokens"][:, 0].repeat(b, 1, 1) if m else None
        cache = [torch.zeros(b, 0, d).double() for _ in range(c["n_layer"] + 1)]
        results = []
        for start in range(0, returns.shape[1], context):
            part = slice(start, start + context)
            tokens = self.tokens(observations[:, part], actions[:, part], returns[:, part])
            count = tokens.shape[1]
            pieces = [tokens] if memory is None else [memory, tokens]
            if memory is not None and c["mem_at_end"]:
                pieces.append(memory)
            levels = [torch.cat(pieces, 1)]
            for i in range(c["n_layer"]):
                levels.append(self.block(i, levels[-1], cache[i]))
            logits = self.ends["head"](levels[-1])[:, m : m + count][:, 1::3]
            if memory is not None:
                first, last = levels[-1][:, :m], levels[-1][:, levels[-1].shape[1] - m :]
                if c["n_head_ca"]:  # a valve reads the last rows, be they of memory or of tokens
                    memory = self.valve(memory, last)
                else:
                    memory = last if c["mem_at_end"] else first
            joined = [torch.cat(pair, 1) for pair in zip(cache, levels, strict=True)]
            cache = [level[:, max(0, level.shape[1] - c["mem_len"]) :] for level in joined]
            results.append((logits, memory, list(cache) if c["mem_len"] else None))
        return results

    def tokens(self, observations: Tensor, actions: Tensor, returns: Tensor) -> Tensor:
        b, k = returns.shape[:2]
        table = any(isinstance(m, nn.Embedding) for m in self.ends["action_embeddings"].modules())
        if table:
            actions = actions.long()[:, :, 0]
            actions = torch.where(actions == self.config["padding_idx"], self.config["act_dim"],
                                  actions) if self.config["padding_idx"] else actions  # fmt: skip
        else:
            actions = actions.double()
        if isinstance(self.ends["state_encoder"], nn.Embedding):
            observed = self.ends["state_encoder"](observations.long()[:, :, 0])
        else:
            flat = observations.double().flatten(0, 1)
            observed = self.ends["state_encoder"](flat).view(b, k, -1)
        acted, returned = self.ends["action_embeddings"](actions), self.ends["ret_emb"](returns)
        order = [x[:, t] for t in range(k) for x in (returned, observed, acted)]
        return torch.stack(order, 1)

    def may_look(self, row: int, key: int, rows: int, cached: int) -> bool:
        """Row and key are counted from the first cached position for keys, from 0 for rows."""
        c, m, own = self.config, self.config["num_mem_tokens"], key - cached
        if c.get("same_length"):
            seen = [k for k in range(cached + rows) if k - cached <= row]
            return key in (seen[-c["mem_len"] :] if cached + rows > c["mem_len"] else seen)
        suffix = rows - m if m and c["mem_at_end"] else rows
        if (row < m or row >= suffix) and own < 0:
            return bool(c.get("read_mem_from_cache", False))
        same_block = (row < m and 0 <= own < m) or (row >= suffix and own >= suffix)
        return same_block or own <= row

    def attend(self, i: int, x: Tensor, cache: Tensor) -> Tensor:
        c, w, name = self.config, self.weights, f"layers.{i}.dec_attn"
        (b, q, _), h, e = x.shape, c["n_head"], c["d_head"]
        source = torch.cat([cache, x], 1)
        k = source.shape[1]
        queries, keys, values = (source @ w[f"{name}.qkv_net.weight"].T).chunk(3, -1)
        queries = queries[:, k - q :]
        far = torch.arange(k - 1, -1, -1).double()
        if c.get("clamp_len", -1) > 0:
            far = far.clamp(max=c["clamp_len"])
        angle = far[:, None] * w["pos_emb.inv_freq"][None]
        r = torch.cat([angle.sin(), angle.cos()], 1) @ w[f"{name}.r_net.weight"].T
        mixed = torch.zeros(b, q, h * e).double()
        for n in range(b):
            for head in range(h):
                at = slice(head * e, (head + 1) * e)
                raw = [[float((queries[n, a, at] + w["r_r_bias"][head]) @ r[z, at])
                        for z in range(k)] for a in range(q)]  # fmt: skip
                for a in range(q):
                    scores = []
                    for z in range(k):
                        content = (queries[n, a, at] + w["r_w_bias"][head]) @ keys[n, z, at]
                        # Transformer-XL's shift: one zero before each row, read q entries later.
                        row, column = divmod(a * k + z + q, k + 1)
                        position = raw[row][column - 1] if column else 0.0
                        score = (float(content) + position) / math.sqrt(e)
                        scores.append(score if self.may_look(a, z, q, k - q) else -math.inf)
                    top = max(scores)
                    shares = [math.exp(score - top) for score in scores]
                    for z in range(k):
                        mixed[n, a, at] += shares[z] / sum(shares) * values[n, z, at]
        return mixed @ w[f"{name}.o_net.weight"].T

    def norm(self, name: str, x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt()
        return scaled * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]

    def linear(self, name: str, x: Tensor) -> Tensor:
        return x @ self.weights[f"{name}.weight"].T + self.weights.get(f"{name}.bias", 0.0)

    def gate(self, name: str, x: Tensor, y: Tensor) -> Tensor:
        reset = (self.linear(f"{name}.Wr", y) + self.linear(f"{name}.Ur", x)).sigmoid()
        z = self.linear(f"{name}.Wz", y) + self.linear(f"{name}.Uz", x)
        z = (z - self.weights[f"{name}.bg"]).sigmoid()
        new = (self.linear(f"{name}.Wg", y) + self.linear(f"{name}.Ug", reset * x)).tanh()
        return (1 - z) * x + z * new

    def block(self, i: int, x: Tensor, cache: Tensor) -> Tensor:
        c, name = self.config, f"layers.{i}"

        def feed(values: Tensor) -> Tensor:
            inner = self.linear(f"{name}.pos_ff.CoreNet.0", values).clamp(min=0)
            return self.linear(f"{name}.pos_ff.CoreNet.3", inner)

        if not c["use_stable_version"]:
            x = self.norm(f"{name}.layer_norm1", x + x + self.attend(i, x, cache))
            return x if c["skip_dec_ffn"] else self.norm(f"{name}.layer_norm2", x + feed(x))
        normed = self.norm(f"{name}.layer_norm1", x)
        y = (normed + self.attend(i, normed, cache)).clamp(min=0)
        x = self.gate(f"{name}.gate_mha", x, y) if c["use_gate"] else x + y
        y = feed(self.norm(f"{name}.layer_norm2", x)).clamp(min=0)
        return self.gate(f"{name}.gate_mlp", x, y) if c["use_gate"] else x + y

    def valve(self, memory: Tensor, written: Tensor) -> Tensor:
        act = {"relu": nn.ReLU(), "leaky_relu": nn.LeakyReLU(), "tanh": nn.Tanh(),
               "no_act": nn.Identity()}[self.config["mrv_act"]]  # fmt: skip
        written, width = act(written), self.config["d_model"] // self.config["n_head_ca"]
        q, k, v = (self.linear(f"mha_mem_to_mem.{n}", x)
                   for n, x in (("wq", memory), ("wk", written), ("wv", written)))  # fmt: skip
        heads = [
            (q[..., s : s + width] @ k[..., s : s + width].mT / math.sqrt(width)).softmax(-1)
            @ v[..., s : s + width]
            for s in range(0, self.config["d_model"], width)
        ]
        return self.linear("mha_mem_to_mem.dense", torch.cat(heads, -1))
