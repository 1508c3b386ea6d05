#!/bin/sh
# Make a virtual environment with pip in it: .ci/venv.sh PYTHON FOLDER
# Debian and Ubuntu ship Python without what `venv` needs for pip; as root we fetch it, otherwise we say how.
set -eu
python=$1
folder=$2

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "sealpool needs Python 3.11 to 3.13; $python is $("$python" --version 2>&1). Try make PYTHON=python3.12 …" >&2
    exit 1
}
if [ -x "$folder/bin/python" ] && "$folder/bin/python" -m pip --version >/dev/null 2>&1; then
    exit 0
fi
if ! "$python" -c 'import ensurepip' >/dev/null 2>&1; then
    package="python$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv"
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        apt-get update --quiet=2 && apt-get install --yes --quiet=2 "$package"
    else
        echo "Python lacks its venv module. Install it first: sudo apt-get install $package" >&2
        exit 1
    fi
fi
rm -rf "$folder"
"$python" -m venv "$folder"
