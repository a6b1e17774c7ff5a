# shellcheck shell=bash
# Sourced by the launchers: errors, required variables, dry runs.

DRY_RUN=${DRY_RUN:-0}

# A user error: one line and exit status 2, as in main.py.
fail() {
  printf 'error: %s\n' "$*" >&2
  exit 2
}

# need VARIABLE MEANING [VARIABLE MEANING ...]: one line for each variable that is unset or empty, then exit status 2.
need() {
  local missing=0
  while (($#)); do
    if [[ -z ${!1:-} ]]; then
      printf 'error: set %s: %s\n' "$1" "$2" >&2
      missing=1
    fi
    shift 2
  done
  ((missing == 0)) || exit 2
}

# Print the words as one line that a shell parses into the same words.
quoted() {
  local word line=()
  for word in "$@"; do
    [[ $word =~ ^[A-Za-z0-9_./:=@%+,-]+$ ]] || word=${word@Q}
    line+=("$word")
  done
  printf '%s\n' "${line[*]}"
}

# Run the command; on a dry run print it.
run() {
  if [[ $DRY_RUN == 0 ]]; then "$@"; else quoted "$@"; fi
}

# Print the comment at the head of the script.
usage() {
  sed -n '/^#SBATCH/d; 2,/^[^#]/s/^# \{0,1\}//p' "$0"
}
