"""Starting `nt-jax pretrain` where it shall run: this machine, a Cloud TPU slice, Slurm."""
