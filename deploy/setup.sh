#!/usr/bin/env bash
# What ProgRock needs on a machine, installed where it is missing; quick when nothing is.
#   setup.sh venv    .venv with every package of the lock, and the project itself
#   setup.sh demo    a RabbitMQ to run: one that is installed, else Docker, else apt's
#   setup.sh test    RabbitMQ, PostgreSQL and Chromium
# apt is asked about first; as root without a terminal (a container, CI) it proceeds. No system service is ever started.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin:/opt/homebrew/sbin

fail() { printf 'setup: %s\n' "$@" >&2; exit 1; }
has() { command -v "$1" >/dev/null 2>&1; }

# install_packages WHY PACKAGE…: by apt, with a policy that keeps the packages' own services from starting
install_packages() {
  local why=$1; shift
  local as_root=() policy=/usr/sbin/policy-rc.d
  has apt-get || fail "$why, and this system has no apt: please install what Debian calls: $*"
  if [ "$(id -u)" != 0 ]; then
    { has sudo && [ -t 0 ]; } || fail "$why: as root, please run: apt-get install --no-install-recommends $*"
    as_root=(sudo)
  fi
  if [ -t 0 ]; then
    read -r -p "$why. Install $* with ${as_root[*]+sudo }apt-get? [y/N] " answer
    [[ $answer = [yY]* ]] || fail "nothing was installed; to do it yourself: apt-get install --no-install-recommends $*"
  else
    echo "setup: $why: installing $*"
  fi
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
    "${as_root[@]}" chmod 755 "$policy"
    # shellcheck disable=SC2064  # expanded now: the function's variables are gone when the trap runs
    trap "${as_root[*]} rm -f $policy" EXIT
  fi
  local apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0)
  "${apt[@]}" update || fail "apt-get update failed (its words are above)"
  "${apt[@]}" install --yes --no-install-recommends "$@" >/dev/null || fail "apt-get could not install $*"
}

has_rabbitmq() { has erl && has rabbitmq-server; }
# what Playwright's own Node.js is linked with, and no package of a small Debian brings
has_libatomic() { ! has ldconfig || ldconfig -p | grep -q 'libatomic\.so\.1 '; }
has_postgres() { has postgres || compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null; }

make_venv() {
  if ! has "$PYTHON"; then
    [ "$PYTHON" = python3 ] || fail "PYTHON=$PYTHON was not found"
    install_packages "Python is missing" python3 python3-venv
  fi
  "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "ProgRock needs Python 3.11 or newer, and $PYTHON is $("$PYTHON" --version 2>&1); name another: make setup PYTHON=python3.12"
  local wanted
  wanted=$("$PYTHON" -c 'import hashlib, sys
print(sys.version, hashlib.sha256(b"".join(open(name, "rb").read() for name in sys.argv[1:])).hexdigest())' \
    requirements-dev.txt pyproject.toml)
  [ "$(cat .venv/setup-done 2>/dev/null)" != "$wanted" ] || return 0
  if ! "$PYTHON" -c 'import ensurepip, venv' 2>/dev/null; then
    install_packages "Python's venv module is missing" "$("$PYTHON" -c 'import sys; print("python3.%d-venv" % sys.version_info[1])')"
  fi
  echo "setup: packages into .venv (a minute or two the first time)"
  # one that was made elsewhere or by another Python is made anew
  .venv/bin/python -c 'import sys; sys.exit(sys.argv[1] != sys.version)' "$("$PYTHON" -c 'import sys; print(sys.version)')" 2>/dev/null &&
    .venv/bin/python -m pip --version >/dev/null 2>&1 || "$PYTHON" -m venv --clear .venv
  local pip=(.venv/bin/python -m pip --quiet --disable-pip-version-check --no-input)
  "${pip[@]}" install --require-hashes -r requirements-dev.txt || fail "pip could not install requirements-dev.txt (its words are above)"
  "${pip[@]}" install --no-deps --no-build-isolation --editable . || fail "pip could not install the project (its words are above)"
  echo "$wanted" > .venv/setup-done
}

for_demo() {
  [ -z "${AMQP_URL:-}" ] || return 0
  has_rabbitmq || { has docker && docker info >/dev/null 2>&1; } || install_packages "RabbitMQ is missing" rabbitmq-server
}

for_test() {
  local missing=()
  has_rabbitmq || missing+=(rabbitmq-server)
  has_postgres || missing+=(postgresql)
  has chromium || missing+=(chromium)
  has_libatomic || missing+=(libatomic1)
  [ ${#missing[@]} = 0 ] || install_packages "The tests need real services" "${missing[@]}"
}

case "${1:-}" in
venv) make_venv ;;
demo) for_demo ;;
test) for_test ;;
*) sed -n '2,6s/^# //p' "$0"; exit 2 ;;
esac
