#!/usr/bin/env bash
#SBATCH --job-name=score-sde
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@180
# Training under Slurm, on one node or many; submitted from the root of the repository:
#
#   sbatch --nodes=N --ntasks-per-node=G --gpus-per-node=G --cpus-per-task=C --time=LIMIT [--partition=... ...] \
#     launch/slurm.sh python main.py --config=FILE --mode=train --workdir=SHARED_DIR
#   launch/slurm.sh --dry-run COMMAND   prints what the job would run
#
# One process per GPU, so G tasks on a node of G GPUs: jax.distributed gives the process of local rank i GPU i of its
# node when it finds itself under Slurm. Without GPUs, one process per task.
#
# 180 seconds before the time limit Slurm sends SIGUSR1 to this script, which passes it on as SIGTERM; the program saves
# a checkpoint and exits with 143, and the job goes back into the queue, to resume from there. --signal on the sbatch
# command line changes the 180. To save and end for good: scancel --signal=TERM JOBID.
set -euo pipefail
# sbatch runs a copy of this file, so common.sh is read from the directory of the submission.
if [[ ! -f launch/common.sh ]]; then
  echo "error: submit from the root of the repository: sbatch ... launch/slurm.sh COMMAND" >&2
  exit 2
fi
# shellcheck source=launch/common.sh
source launch/common.sh

case ${1:-} in
  --dry-run) DRY_RUN=1 && shift ;;
  --help) usage && exit ;;
esac
(($#)) || fail "give the command, such as: launch/slurm.sh python main.py --config=configs/digits.py --mode=train"
[[ $DRY_RUN == 0 ]] || SLURM_JOB_ID=${SLURM_JOB_ID:-JOBID}
need SLURM_JOB_ID "sbatch does it; submit this script with sbatch"
gpus=${SLURM_GPUS_ON_NODE:-}
if [[ -n $gpus && ${SLURM_NTASKS_PER_NODE:-1} != "$gpus" ]]; then
  fail "${SLURM_NTASKS_PER_NODE:-1} tasks for $gpus GPUs on a node; one process per GPU: sbatch --ntasks-per-node=$gpus"
fi

# After a failure the others get two minutes. --kill-on-bad-exit would take 143, after saving, for a failure.
command=(srun --label --kill-on-bad-exit=0 --wait=120)
[[ -z ${SLURM_CPUS_PER_TASK:-} ]] || command+=("--cpus-per-task=$SLURM_CPUS_PER_TASK") # srun does not inherit it
[[ -z $gpus ]] || command+=(--gpu-bind=none)                                           # local rank i takes GPU i of all
command+=("$@")
# The signal goes to the tasks alone, since srun kills them if it gets SIGTERM itself.
forward=(scancel --signal=TERM "$SLURM_JOB_ID")
requeue=(scontrol requeue "$SLURM_JOB_ID")

if [[ $DRY_RUN != 0 ]]; then
  quoted "${command[@]}"
  echo "# on SIGUSR1"
  quoted "${forward[@]}"
  echo "# then, after exit status 143"
  quoted "${requeue[@]}"
  exit
fi

# `scancel JOBID` sends SIGTERM here and to the tasks; a canceled job is not requeued.
limit=0 signaled=0
trap 'limit=1 signaled=1; "${forward[@]}" || true' USR1
trap 'signaled=1' TERM
"${command[@]}" &
while
  signaled=0
  wait "$!" && status=0 || status=$?
  ((signaled)) # a trapped signal ends the wait before srun ends
do :; done
if ((limit && status == 143)); then "${requeue[@]}"; fi
exit "$status"
