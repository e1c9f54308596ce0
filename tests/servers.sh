#!/usr/bin/env bash
# Debian's packages that some tests run: PostgreSQL and Chromium. Installs what is missing where it may; else says how,
# and the tests that need it are skipped.
set -euo pipefail

missing=()
command -v initdb >/dev/null || compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || missing+=(postgresql)
command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null || missing+=(chromium)
[ ${#missing[@]} -eq 0 ] && exit 0

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "Installing ${missing[*]} for the tests …"
    export DEBIAN_FRONTEND=noninteractive
    if apt-get update -qq && apt-get install -qq --yes --no-install-recommends "${missing[@]}" >/dev/null; then
        exit 0
    fi
fi
echo "Not installed: ${missing[*]}. The tests that need them are skipped; to run them: apt-get install ${missing[*]}"
