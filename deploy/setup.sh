#!/usr/bin/env bash
# Installs what is missing on this machine; quick when nothing is.
#   setup.sh demo    .venv with what the demo runs on; RabbitMQ, if neither it nor Docker is there
#   setup.sh venv    .venv with what the demo, the tests and the tools need
#   setup.sh test    the same, RabbitMQ, PostgreSQL and Chromium, and npm's packages of the tests
#   setup.sh servers .venv as above, RabbitMQ, and servers of others in .progrock/servers
# It asks before it calls apt; as root without a terminal (a container, CI) it goes ahead.
# It never starts a system service.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
apt_updated=
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin:/opt/homebrew/sbin

fail() { printf 'setup: %s\n' "$@" >&2; exit 1; }
has() { command -v "$1" >/dev/null 2>&1; }

# install_packages WHY PACKAGE…: by apt, with a policy that keeps services from starting
install_packages() {
  local why=$1; shift
  local by_hand="apt-get install --no-install-recommends $*"
  local as_root=() policy=/usr/sbin/policy-rc.d
  has apt-get || fail "$why, and this system has no apt. Please install what Debian calls: $*"
  if [ "$(id -u)" != 0 ]; then
    { has sudo && [ -t 0 ]; } || fail "$why. Please run as root: $by_hand"
    as_root=(sudo)
  fi
  if [ -t 0 ]; then
    read -r -p "$why. Install $* with ${as_root[*]+sudo }apt-get? [y/N] " answer
    [[ $answer = [yY]* ]] || fail "nothing was installed; to do it yourself: $by_hand"
  else
    echo "setup: $why: installing $*"
  fi
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
    "${as_root[@]}" chmod 755 "$policy"
    # shellcheck disable=SC2064  # expanded now, because as_root is gone when the trap runs
    trap "${as_root[*]} rm -f $policy" EXIT
  fi
  local apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0)
  if [ -z "$apt_updated" ]; then
    "${apt[@]}" update || fail "apt-get update failed; its output is above"
    apt_updated=yes
  fi
  "${apt[@]}" install --yes --no-install-recommends "$@" >/dev/null ||
    fail "apt-get could not install $*"
}

has_rabbitmq() { has erl && has rabbitmq-server; }
# Playwright's Node.js needs it, and no package of a small Debian installs it.
has_libatomic() { ! has ldconfig || ldconfig -p | grep -q 'libatomic\.so\.1 '; }
has_postgres() { has postgres || compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null; }

# stamp LOCK: prints the version of Python and a hash of the lock file; .venv/LOCK.done keeps that
stamp() {
  "$PYTHON" -c 'import hashlib, sys
print(sys.version, hashlib.sha256(open(sys.argv[1], "rb").read()).hexdigest())' "$1"
}
is_installed() { [ "$(cat ".venv/$1.done" 2>/dev/null)" = "$(stamp "$1")" ]; }

# make_venv LOCK: .venv with the packages of a lock file, and the project on Python's path
make_venv() {
  local lock=$1 packages
  if ! has "$PYTHON"; then
    [ "$PYTHON" = python3 ] || fail "PYTHON=$PYTHON was not found"
    install_packages "Python is missing" python3 python3-venv
  fi
  "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "ProgRock needs Python 3.11 or newer, and $PYTHON is $("$PYTHON" --version 2>&1)." \
      "Name another: make setup PYTHON=python3.12"
  # requirements-dev.txt contains all of requirements.txt
  ! is_installed requirements-dev.txt && ! is_installed "$lock" || return 0
  if ! "$PYTHON" -c 'import ensurepip, venv' 2>/dev/null; then
    install_packages "Python's venv module is missing" \
      "$("$PYTHON" -c 'import sys; print("python3.%d-venv" % sys.version_info[1])')"
  fi
  echo "setup: packages of $lock into .venv"
  # A .venv that was made elsewhere or by another Python is made anew.
  { .venv/bin/python -c 'import sys; sys.exit(sys.argv[1] != sys.version)' \
    "$("$PYTHON" -c 'import sys; print(sys.version)')" && .venv/bin/python -m pip --version; } \
    >/dev/null 2>&1 || "$PYTHON" -m venv --clear .venv
  local pip=(.venv/bin/python -m pip --quiet --disable-pip-version-check --no-input)
  if [ -e .venv/setup-done ]; then  # an older setup, which installed the project as a package
    "${pip[@]}" uninstall --yes progrock
    rm .venv/setup-done
  fi
  "${pip[@]}" install --require-hashes -r "$lock" ||
    fail "pip could not install $lock; its output is above"
  packages=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  echo ../../../../site >"$packages/progrock.pth"  # relative to the folder of this .pth file
  stamp "$lock" >".venv/$lock.done"
}

# make_servers: the servers get an environment of their own, because they want other versions
make_servers() {
  local lock=requirements-servers.txt venv=.progrock/servers
  [ "$(cat "$venv/done" 2>/dev/null)" != "$(stamp "$lock")" ] || return 0
  echo "setup: packages of $lock into $venv"
  "$PYTHON" -m venv --clear "$venv"
  "$venv/bin/python" -m pip --quiet --disable-pip-version-check --no-input \
    install --require-hashes -r "$lock" || fail "pip could not install $lock; its output is above"
  stamp "$lock" >"$venv/done"
}

# make_frameworks: what the pages of the browser tests are built with, by the npm that pip brought
make_frameworks() {
  local from=tests/browser/frameworks folder=.progrock/frameworks try
  local bin=$PWD/.venv/bin
  [ "$(cat "$folder/done" 2>/dev/null)" != "$(stamp "$from/package-lock.json")" ] || return 0
  echo "setup: packages of $from/package-lock.json into $folder"
  mkdir -p "$folder"
  rm -f "$folder/done"
  cp "$from/package.json" "$from/package-lock.json" "$from/.npmrc" "$folder"
  for try in 1 2 3; do  # the registry may be slow or away for a moment
    ! (cd "$folder" && PATH=$bin:$PATH npm ci --ignore-scripts --loglevel=error) || break
    [ "$try" != 3 ] || fail "npm could not install $from/package-lock.json; its output is above"
    sleep $((try * 5))
  done
  stamp "$from/package-lock.json" >"$folder/done"
}

services_for_demo() {
  [ -z "${AMQP_URL:-}" ] || return 0
  has_rabbitmq || { has docker && docker info >/dev/null 2>&1; } ||
    install_packages "RabbitMQ is missing" rabbitmq-server
}

services_for_test() {
  local missing=()
  has_rabbitmq || missing+=(rabbitmq-server)
  has_postgres || missing+=(postgresql)
  has chromium || missing+=(chromium)
  has_libatomic || missing+=(libatomic1)
  [ ${#missing[@]} = 0 ] || install_packages "The tests need real services" "${missing[@]}"
}

case "${1:-}" in
demo) make_venv requirements.txt; services_for_demo ;;
venv) make_venv requirements-dev.txt ;;
test) make_venv requirements-dev.txt; services_for_test; make_frameworks ;;
servers)
  make_venv requirements-dev.txt
  has_rabbitmq || install_packages "RabbitMQ is missing" rabbitmq-server
  make_servers ;;
*) sed -n '2,8s/^# //p' "$0"; exit 2 ;;
esac
