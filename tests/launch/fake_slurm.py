"""SLURM's programs on one machine, as far as a job needs them: a folder for the PATH.

sbatch takes a copy of the script, as SLURM does, and runs it in the background until nobody has asked for it to be
queued again; srun starts its tasks; scontrol notes that a job is to be queued again; sacct says how it ended.
"""

from __future__ import annotations

from pathlib import Path

SBATCH = """
case $1 in *.sh) ;; *) exit 1 ;; esac
if grep -q -- '--partition=nowhere' "$1"; then
  echo 'sbatch: error: invalid partition specified: nowhere' >&2
  exit 1
fi
id=4242
while [ -e "$HERE/$id.sh" ]; do id=$((id + 1)); done
cp "$1" "$HERE/$id.sh"
echo PENDING > "$HERE/$id.state"
value() { sed -n "s/^#SBATCH --$1=//p" "$HERE/$id.sh"; }
export SLURM_JOB_ID=$id SLURM_JOB_NUM_NODES=1 SLURM_JOB_NODELIST=localhost
SLURM_NTASKS=$(value ntasks-per-node)
export SLURM_NTASKS
(
  while :; do
    echo RUNNING > "$HERE/$id.state"
    bash "$HERE/$id.sh" >> "$(value output | sed "s/%j/$id/")" 2>&1
    code=$?
    [ -e "$HERE/$id.requeue" ] || break
    rm "$HERE/$id.requeue"
  done
  [ $code = 0 ] && echo COMPLETED > "$HERE/$id.state" || echo FAILED > "$HERE/$id.state"
  echo $code > "$HERE/$id.code"
) > /dev/null 2>&1 < /dev/null &
echo "Submitted batch job $id"
"""

SRUN = """
while [ "${1#--}" != "$1" ]; do
  case $1 in --output) output=$2; shift ;; esac
  shift
done
most=0
pids=
for task in $(seq 0 $((SLURM_NTASKS - 1))); do
  file=$(echo "$output" | sed "s/%j/$SLURM_JOB_ID/; s/%t/$task/")
  SLURM_PROCID=$task SLURM_LOCALID=$task SLURM_NODEID=0 "$@" >> "$file" 2>&1 &
  pids="$pids $!"
  echo $! > "$HERE/$SLURM_JOB_ID.$task.pid"
done
for pid in $pids; do
  wait $pid || { code=$?; [ $code -gt $most ] && most=$code; }
done
exit $most
"""

SCONTROL = """
[ "$1" = requeue ] && touch "$HERE/$2.requeue"
"""

SACCT = """
echo 'JobID|State|NodeList'
for file in "$HERE"/*.state; do
  echo "$(basename "$file" .state)|$(cat "$file")|localhost"
done
"""


def make_slurm(folder: Path) -> Path:
    """The programs, in a new folder."""
    folder.mkdir()
    for name, text in {"sbatch": SBATCH, "srun": SRUN, "scontrol": SCONTROL, "sacct": SACCT}.items():
        program = folder / name
        program.write_text(f"#!/bin/bash\nHERE={folder}\n{text}")
        program.chmod(0o755)
    return folder
