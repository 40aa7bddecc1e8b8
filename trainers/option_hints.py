"""Hints for options that are named differently in other trainers."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from rate.advice import command
from rate.messages import did_you_mean

# The option here, and its names in other trainers: lower case, underscores, without a section.
_TABLE = (
    ("--training.accelerator gpu, cpu or auto", "device devices gpu gpus cuda num_gpus use_gpu"),
    (
        "Batches need no workers; --data.workers N are for collecting data, and "
        "--evaluation.workers N for the simulators of rollouts",
        "num_workers workers n_workers dataloader_workers",
    ),
    ("--optimizer.learning_rate VALUE", "lr learning_rate lr_max max_lr"),
    (
        "--training.max_steps N (optimiser steps; there are no epochs)",
        "epochs epoch num_epochs n_epochs max_epochs max_iters num_steps steps iterations n_iters "
        "num_steps_per_iter total_steps update_steps num_updates train_steps final_tokens "
        "total_timesteps",
    ),
    ("--training.batch_size N (windows)", "batch_size bs batch batchsize"),
    (
        "--model.context_length N (K, steps of a segment)",
        "k context context_len seq_len block_size window",
    ),
    ("--training.segments N", "n num_segments n_segments segments"),
    ("--max_n_final N (segments)", "min_n_final"),
    (
        "--data PATH (a file or folder of any format, or the name of a public data set)",
        "data_dir data_path path_to_dataset dataset_path dataset_dir dataset_name data_dir_prefix",
    ),
    ("--model.num_layers N", "n_layers layers num_layers depth"),
    ("--model.num_heads N", "n_heads heads num_heads nhead"),
    ("--model.d_model N", "embed_dim hidden_size hidden_dim n_embd d_embed width embedding_dim"),
    ("--model.d_ff N", "d_ff ffn_dim n_inner dim_feedforward"),
    (
        "--model.dropout VALUE (of attention: --model.attention_dropout)",
        "dropout dropatt attn_dropout embd_pdrop resid_pdrop",
    ),
    ("--optimizer.gradient_clip VALUE", "grad_norm_clip grad_clip clip_grad clip max_grad_norm"),
    ("--optimizer.weight_decay VALUE", "weight_decay wd"),
    ("--optimizer.warmup_steps N", "warmup warmup_steps warmup_tokens"),
    ("--optimizer.beta_1 VALUE and beta_2", "betas beta1 beta2"),
    ("--optimizer.final_fraction VALUE", "lr_end_factor min_lr lr_min"),
    ("--optimizer.schedule NAME", "lr_schedule scheduler use_cosine_decay"),
    (
        "--resume RUN to go on with a run",
        "checkpoint ckpt ckpt_path load load_model load_from load_path pretrained resume_from "
        "restore continue",
    ),
    (
        "--logging.output FOLDER (of all runs) and --logging.name NAME (of one)",
        "save_dir save_path output_dir output out out_dir log_dir logdir tensorboard_dir exp_name "
        "run_name name experiment exp tag",
    ),
    (
        "--evaluation.target_return VALUE",
        "target_return desired_return desired_return_1 rtg target_rtg target_returns target_reward",
    ),
    ("--evaluation.episodes N", "num_eval_episodes eval_episodes n_eval_episodes"),
    ("--evaluation.every_n_steps N", "eval_interval eval_freq eval_every eval_steps"),
    ("--training.checkpoint_every_n_steps N", "save_interval save_freq save_every ckpt_epoch"),
    ("--training.log_every_n_steps N", "log_interval log_freq log_every print_freq"),
    ("--training.precision bf16-mixed", "fp16 bf16 amp mixed_precision dtype"),
    (
        "--seed N for a run; {study} STUDY --seeds 1 2 3 for several",
        "seeds start_seed end_seed num_seeds",
    ),
    (
        "--model NAME (a preset) and --arch_mode BLOCK",
        "model_type model_name algo algorithm agent",
    ),
    (
        "--logging.wandb true (settings in wandb_config.yaml)",
        "log_to_wandb use_wandb wandb wwandb track",
    ),
    (
        "--evaluation.lengths N (of rollouts) and --data.max_length N (of data made here)",
        "max_ep_len episode_timeout max_episode_steps horizon",
    ),
    ("--model.return_scale VALUE", "scale rtg_scale reward_scale"),
    ("Returns-to-go are not discounted", "gamma discount"),
    ("--training.threads N", "num_threads n_threads"),
    ("--evaluation.num_envs N", "num_envs n_envs"),
    ("--evaluation.decoding.temperature and top_k", "temperature top_k"),
    ("--evaluation.decoding.method argmax or sample", "use_argmax"),
    (
        "The first word, or --env, names the environment, and --env.task one of its tasks",
        "env_name task",
    ),
)
USUAL = {name: text for text, names in _TABLE for name in names.split()}


def hint_for(option: str, known: Sequence[str]) -> str:
    """Returns a hint for an unknown option, as the end of a message; empty if there is none.

    Tries the names of other trainers, then an option of this name in any section, then the closest
    match.

    Args:
        option: The unknown option, without leading dashes.
        known: The existing options.
    """
    plain = option.lower().replace("-", "_")
    name = plain.rpartition(".")[2]
    same = [each for each in known if each == plain or each.rpartition(".")[2] == plain]
    if same and plain not in USUAL:
        return f" Did you mean {' or '.join(f'--{each}' for each in same)}?"
    is_setting = plain.startswith("env.")  # environments define these names
    if (
        name in USUAL
        and not is_setting
        and (plain == name or not did_you_mean(plain, known, cutoff=0.85))
    ):
        return _usual(name)
    if plain != name:
        return did_you_mean(plain, known, "--")
    names = {each.rpartition(".")[2]: each for each in reversed(known)}
    (close,) = difflib.get_close_matches(name, [*names, *USUAL], n=1, cutoff=0.7) or [""]
    if close in names:
        return f" Did you mean --{names[close]}?"
    return _usual(close) if close else did_you_mean(name, known, "--", cutoff=0.6)


def _usual(name: str) -> str:
    text = USUAL[name].format(study=command("study"))
    return f" Here it is {text}." if text.startswith("--") else f" {text}."
