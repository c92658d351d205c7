#!/bin/sh
# `engines compile`: build the active release's TensorRT engines on this GPU, unless they are there.
# `engines lay-out`: wait until they are there, and lay the release out with them.
set -eu
morphbatch() { /opt/morphbatch/bin/python -m services.cli.main "$@"; }
triton=$MORPHBATCH_HOME/triton

morphbatch release install
release=$triton/releases/$(morphbatch release list --json |
    /opt/morphbatch/bin/python -c 'import json, sys; print(next(row["id"] for row in json.load(sys.stdin) if row["active"]))')
# A form is named after the TensorRT version and the GPU; of another it is never laid out.
form=$(morphbatch release compile "$release" --target tensorrt --dry-run --json |
    /opt/morphbatch/bin/python -c 'import json, sys; print(json.load(sys.stdin)["form"])')
case $1 in
compile)
    test -e "$release/forms/$form/form.json" || morphbatch release compile "$release" --target tensorrt
    ;;
lay-out)
    until test -e "$release/forms/$form/form.json"; do
        echo "waiting for $form of $release: the Job that compiles it" >&2
        sleep 10
    done
    morphbatch release lay-out "$release" "$triton/repository" --backend tensorrt --form "$form"
    ;;
esac
