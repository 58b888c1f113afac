#!/usr/bin/env bash
# Trains one model on several machines under SLURM: sbatch --nodes 8 course/launch/slurm.sh
# One launcher (torchrun) runs on each machine and starts one process for each of its GPUs.
#SBATCH --job-name=segedu
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=segedu-%j.log
set -euo pipefail

# All machines must see the data and the checkpoint. A job that is started again goes on from it.
export SEGEDU_DATA="${SEGEDU_DATA:?set it to the folder of the data sets, which all machines share}"
CHECKPOINT="${CHECKPOINT:-runs/$SLURM_JOB_ID.pt}"
export OMP_NUM_THREADS=1
# Processes that are started again must not read the addresses of the dead (pytorch issue 135712).
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1

# The launchers meet at the first machine.
FIRST="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)"

srun --kill-on-bad-exit=1 torchrun \
  --nnodes "$SLURM_JOB_NUM_NODES" \
  --nproc-per-node 8 \
  --max-restarts 3 \
  --rdzv-id "$SLURM_JOB_ID" \
  --rdzv-backend c10d \
  --rdzv-endpoint "$FIRST:29500" \
  -m segedu train \
  --data camvid \
  --model deeplabv3plus_resnet34 \
  --batch-size "$((64 * SLURM_JOB_NUM_NODES))" \
  --workers 7 \
  --log-to tensorboard \
  --checkpoint "$CHECKPOINT"
