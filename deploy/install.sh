#!/bin/sh
# Fill the virtual environment of an image; the Containerfile runs this.
#   install.sh dependencies LOCK [OPTIONS OF PIP]   the locked files, and no others
#   install.sh sealpool EXTRAS                      our own wheel, into /own: a layer that the Containerfile lays over the
#                                                   environment; it fails where the lock lacks what the extras need
set -eu
environment=/opt/sealpool

pip() {
    /build/tools/bin/pip --python "$environment/bin/python" "$@"
}

# By hash and unchecked: bytecode that is compared with the times of its sources is worth nothing in an image whose files
# were given other times, and a read-only file system would have it made anew at every start.
compile() {
    "$environment/bin/python" -m compileall -j 0 --invalidation-mode unchecked-hash "$@"
}

case $1 in
dependencies)
    # shellcheck disable=SC2086 # the options are words
    pip install --no-compile --no-deps --require-hashes --only-binary :all: --requirement "$2" ${3-}
    # Tests and C headers of the packages: nobody runs or compiles anything here.
    find "$environment/lib" -depth -type d \( -name tests -o -name include \) -exec rm -rf {} +
    # Some packages keep a file for a newer Python, which this one cannot compile and never imports; of ours there is none.
    compile -qq "$environment/lib" || true
    ;;
sealpool)
    pip install --no-compile --no-index --prefix /own "$(echo /build/wheels/sealpool-*.whl)[$2]"
    cd /own/lib/python3.*/site-packages
    compile -q sealpool index_server learner scheduler
    ;;
esac
