# Sourced by the scripts beside it: creates the checkout's virtual environment and keeps it current.
#
#   venv run     the daemon's dependencies
#   venv dev     also those of the tests and checks
#   venv bench   the dependencies of the daemon and the benchmark
#   programs NAME ...   installs programs that tests and checks need
#
# Afterwards $python is the environment's interpreter and the current directory is the checkout. pip
# runs only if setup.py, the build system or the location of the checkout has changed since the last
# installation. PYTHON selects the interpreter that creates the environment (default: python3).

set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
python=$PWD/.venv/bin/python

export PIP_QUIET=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore

fail() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# One line per step.
step() {
    printf '== %s\n' "$*"
}

# The first line of a stamp is the location, because programs in .venv/bin name their interpreter
# by its absolute path. Comments and the configuration of tools do not count.
stamp() {
    printf '%s\n' "$PWD"
    "$1" -c 'import ast, hashlib, pathlib, sys, tomllib
setup = ast.dump(ast.parse(pathlib.Path("setup.py").read_bytes()))
build = tomllib.loads(pathlib.Path("pyproject.toml").read_text())["build-system"]
print(sys.version_info[:2], hashlib.sha256(f"{setup}{build}".encode()).hexdigest())'
}

create() {
    local base=${PYTHON:-python3}
    command -v "$base" >/dev/null || fail "no $base found; chatd needs Python 3.11 or newer"
    "$base" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        fail "$base is $("$base" -V 2>&1); chatd needs 3.11 or newer (select one with PYTHON=...)"
    "$base" -c 'import ensurepip, venv' 2>/dev/null ||
        fail "$base has no venv module; on Debian and Ubuntu: apt-get install python3-venv"
    step "creating .venv with $("$base" -V)"
    "$base" -m venv --clear .venv
}

venv() {
    local profile=$1 project=. wanted installed
    local sufficient=(.venv/chatd-"$profile")
    case $profile in
    run) sufficient+=(.venv/chatd-dev .venv/chatd-bench) ;;
    dev) project='.[dev,postgres]' ;;
    bench) project='.[bench,postgres]' ;;
    esac
    if wanted=$(stamp "$python" 2>/dev/null); then
        for installed in "${sufficient[@]}"; do
            if [ -f "$installed" ] && [ "$(cat "$installed")" = "$wanted" ]; then return; fi
        done
        # The environment was moved, or copied from another checkout.
        for installed in .venv/chatd-*; do
            if [ -f "$installed" ] && [ "$(head -n 1 "$installed")" != "$PWD" ]; then
                create
                break
            fi
        done
    fi
    "$python" -m pip --version >/dev/null 2>&1 || create
    step "installing chatd and its dependencies into .venv (this takes a minute the first time)"
    "$python" -m pip install --editable "$project" || fail "could not install $project"
    stamp "$python" >".venv/chatd-$profile"
}

declare -A packages=(
    [chromium]=chromium [chromedriver]=chromium-driver
    [chromium-headless-shell]=chromium-headless-shell [pgbouncer]=pgbouncer
    [node]=nodejs [npm]=npm [nginx]=nginx [haproxy]=haproxy [promtool]=prometheus
    [systemd-analyze]=systemd [nats-server]=nats-server [debootstrap]=debootstrap
    [unshare]=util-linux [nsenter]=util-linux
)

# Installs these programs if they are missing. Some are in folders on the PATH of root only.
programs() {
    local missing=() program
    for program in "$@"; do
        PATH=$PATH:/usr/sbin command -v "$program" >/dev/null || missing+=("${packages[$program]}")
    done
    if [ ${#missing[@]} = 0 ]; then return; fi
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        step "installing programs that the tests need: ${missing[*]}"
        { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install --yes \
            --no-install-recommends "${missing[@]}"; } >/dev/null 2>&1 && return
    fi
    fail "the tests need programs that are missing; on Debian: apt-get install ${missing[*]}"
}
