#!/bin/bash
# An archive's studies over several nodes of a Slurm cluster:
#   sbatch slurm.sh /archive/studies.parquet /archive/model.pt /archive/maps
# multiad-med[scale] must be installed in $VENV, and all paths must be on a file system that all nodes see.
# Ended by its time limit, the same command goes on where it stopped.
#SBATCH --job-name=multiad
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --mem=64G
#SBATCH --time=12:00:00
#SBATCH --exclusive
set -euo pipefail

source_=$1 model=$2 output=$3
ray="${VENV:?the virtual environment with multiad-med[scale]}/bin/ray"
# Ray ends a worker after one idle second, and the next one imports everything again.
export RAY_idle_worker_killing_time_threshold_ms=600000
export RAY_USAGE_STATS_ENABLED=0
# Memory that a study leaves is taken by the next one.
export MALLOC_ARENA_MAX=1
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
port=6379

srun --nodes=1 --ntasks=1 --nodelist="$head" \
    "$ray" start --head --block --port="$port" --num-cpus="$SLURM_CPUS_PER_TASK" &
for _ in $(seq 60); do
    (: < "/dev/tcp/$head/$port") 2> /dev/null && break
    sleep 2
done
if ((SLURM_JOB_NUM_NODES > 1)); then
    srun --nodes=$((SLURM_JOB_NUM_NODES - 1)) --ntasks=$((SLURM_JOB_NUM_NODES - 1)) --exclude="$head" \
        "$ray" start --block --address="$head:$port" --num-cpus="$SLURM_CPUS_PER_TASK" &
    sleep 20
fi

# The batch script runs on the first node, which is the cluster's head.
"$VENV/bin/multiad" predict "$source_" -m "$model" -o "$output" --ray "$head:$port"
