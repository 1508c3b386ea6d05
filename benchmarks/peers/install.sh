#!/bin/sh
# Install the peers, each into a virtual environment of its own: their pins disagree with ours and with each other.
#     sh benchmarks/peers/install.sh [PEER …]      (PYTHON=python3.11; ENVIRONMENTS=benchmarks/.peers)
# A peer that cannot be installed leaves its reason in PEER.failed, which the table then shows.
set -u
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-python3}
environments=${ENVIRONMENTS:-$here/../.peers}

requirements() {
    case $1 in
    # The client of the same series, and what it needs in the versions of its time.
    milvus) echo 'milvus==2.3.5 pymilvus==2.3.5 marshmallow<4 setuptools<81 numpy<2' ;;
    milvus_lite) echo 'milvus-lite>=2.4.11 pymilvus>=2.5,<3 setuptools<81 numpy' ;;
    chroma) echo 'chromadb>=1.0 numpy' ;;
    usearch) echo 'usearch>=2.16 numpy' ;;
    *) return 1 ;;
    esac
}

install_peer() {
    wanted=$(requirements "$1") || { echo "no such peer: $1" >&2; return 1; }
    "$here/../../.ci/venv.sh" "$python" "$environments/$1" >"$environments/$1.log" 2>&1 || return 1
    # shellcheck disable=SC2086 # one requirement a word
    "$environments/$1/bin/python" -m pip install --quiet --disable-pip-version-check $wanted >>"$environments/$1.log" 2>&1
}

mkdir -p "$environments"
for peer in ${*:-milvus milvus_lite chroma usearch}; do
    rm -f "$environments/$peer.failed"
    if install_peer "$peer"; then
        echo "$peer: installed"
    else
        tail -n 1 "$environments/$peer.log" 2>/dev/null >"$environments/$peer.failed"
        echo "$peer: not installed: $(cat "$environments/$peer.failed")"
    fi
done
