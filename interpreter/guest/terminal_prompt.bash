# Read by the bash of a terminal instead of ~/.bashrc, which it reads first.
#
# Before each prompt PROMPT_COMMAND's first entry, `__cellshell_prompt`, tells the service the exported
# variables and the working directory, and takes over what others in the session have changed:
# `changes`, sourced only when `version` has moved. Nothing here forks. To leave the session's
# environment alone from now on: `unset -f __cellshell_prompt`.

__cellshell_directory=$CELLSHELL_TERMINAL
__cellshell_version=0
unset CELLSHELL_TERMINAL

PS1='\u@\h:\w\$ '
if [[ -r ~/.bashrc ]]; then
  source ~/.bashrc
fi

# One report: NUL, then five fields that each end with NUL, then `end`. A report that was cut short is
# never taken for a whole one.
__cellshell_report() {
  builtin printf '\0cellshell\0%s\0%s\0%s\0' "$1" "$__cellshell_version" "$PWD"
  builtin export -p
  builtin printf '\0end\0'
}

# `<>` opens the pipe without waiting for the service to be there. Braces and `if` are reserved words
# and work whatever functions the user defines; where `builtin` is one, nothing is shared.
__cellshell_prompt() {
  if [[ -p ${__cellshell_directory-}/report ]]; then
    __cellshell_report state 1<>"$__cellshell_directory/report"
    if [[ $(<"$__cellshell_directory/version") != "${__cellshell_version-}" ]]; then
      builtin source "$__cellshell_directory/changes" >/dev/null
      __cellshell_report told 1<>"$__cellshell_directory/report"
    fi
  fi
} 2>/dev/null

PROMPT_COMMAND=('{ __cellshell_prompt || [[ 1 ]]; } 2>/dev/null' "${PROMPT_COMMAND[@]}")
