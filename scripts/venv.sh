# Sourced by the scripts beside it: makes the checkout's .venv hold what is asked for.
#
#   venv run     what a daemon needs
#   venv dev     that, and what the tests and checks need
#   venv bench   what a daemon and the benchmark need
#
# Afterwards $python is the environment's interpreter, and the folder is the checkout. Nothing is
# done when setup.py, pyproject.toml and the place of the checkout are as they were at the last
# installation. PYTHON names the interpreter to begin with (python3).

set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
python=$PWD/.venv/bin/python

# pip speaks when it fails, and does not mind being root inside an environment of its own.
export PIP_QUIET=2 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore

fail() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# The first line of a stamp is the place: scripts in an environment name their interpreter by it.
stamp() {
    printf '%s\n' "$PWD"
    cat setup.py pyproject.toml | "$1" -c 'import hashlib, sys
print(sys.version_info[:2], hashlib.sha256(sys.stdin.buffer.read()).hexdigest())'
}

create() {
    local base=${PYTHON:-python3}
    command -v "$base" >/dev/null || fail "no $base found; chatd needs Python 3.11 or newer"
    "$base" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        fail "$base is $("$base" -V 2>&1); chatd needs 3.11 or newer (PYTHON=... names another)"
    "$base" -c 'import ensurepip, venv' 2>/dev/null ||
        fail "$base has no venv module; on Debian and Ubuntu: apt-get install python3-venv"
    echo "making .venv with $("$base" -V)"
    "$base" -m venv --clear .venv
}

venv() {
    local profile=$1 project=. wanted
    local serves=(.venv/chatd-"$profile")
    case $profile in
    run) serves+=(.venv/chatd-dev .venv/chatd-bench) ;;
    dev) project='.[dev,postgres]' ;;
    bench) project='.[bench,postgres]' ;;
    esac
    if "$python" -m pip --version >/dev/null 2>&1; then
        wanted=$(stamp "$python")
        local done
        for done in "${serves[@]}"; do
            if [ -f "$done" ] && [ "$(cat "$done")" = "$wanted" ]; then return; fi
        done
        # Moved or copied from elsewhere.
        for done in .venv/chatd-*; do
            if [ -f "$done" ] && [ "$(head -n 1 "$done")" != "$PWD" ]; then
                create
                break
            fi
        done
    else
        create
    fi
    echo "installing chatd's dependencies into .venv"
    "$python" -m pip install --editable "$project" || fail "could not install $project"
    stamp "$python" >".venv/chatd-$profile"
}
