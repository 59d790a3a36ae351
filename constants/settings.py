"""What is known of settings by their names."""

# Settings that change no number of a run: they may differ between the runs of a sweep or of a group of seeds, and are
# no reason for two runs to differ.
CHANGE_NO_NUMBER = frozenset(
    {
        "artifacts_dir", "device", "threads", "num_workers", "memory_share", "log_every_n_steps", "loss_spike_factor",
        "keep_last_checkpoints", "checkpoint_every_n_steps", "checkpoint_every_n_minutes", "saving_share",
        "save_in_background", "on_write_error", "plot_at_end", "tensorboard", "mlflow", "wandb",
        "peer_timeout_minutes",
    }
)  # fmt: skip
