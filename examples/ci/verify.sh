#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 OR MIT
# Has a preverify service verify an object, and fetches the signed bundle. Needs curl and jq.
#
#   PREVERIFY_SERVER=https://verify.example PREVERIFY_TOKEN=pv_... verify.sh OBJECT BUNDLE TARGET...
set -eu
if [ $# -lt 3 ]; then
    echo "usage: verify.sh OBJECT BUNDLE TARGET..." >&2
    exit 2
fi
object=$1 bundle=$2
shift 2
for target; do
    set -- "$@" -F "target=$target"
    shift
done

# The token is on no command line, where other users would see it.
ask() {
    path=$1
    shift
    printf 'header = "Authorization: Bearer %s"\n' "$PREVERIFY_TOKEN" |
        curl --config - --silent --show-error --fail-with-body "$@" "$PREVERIFY_SERVER$path"
}

# Something of the last answer. (echo would read what is escaped in it.)
of() {
    printf '%s\n' "$answer" | jq -r "$1"
}

# What is refused says why, as JSON.
answer=$(ask /v1/jobs -F "object=@$object" "$@") || {
    of .detail >&2
    exit 1
}
job=$(of .id)
echo "job $job"
# The stream ends when the job does; if the connection is lost before, it is asked again.
while [ "$(of .state)" = running ]; do
    ask "/v1/jobs/$job/events" --no-buffer |
        sed -un 's/^data: *//p' |
        jq --unbuffered -r '[.targets[] | "\(.target): \(.state) \(.step // "")"] | join(", ")' |
        uniq
    # Nor does it matter if the service is away for a moment.
    for _ in $(seq 30); do
        answer=$(ask "/v1/jobs/$job") && break
        sleep 2
    done
    [ "$(of .state)" != running ] || sleep 2
done

if [ "$(of .state)" != accepted ]; then
    of '(.reason // .detail // empty), (.targets[]? | select(.message) | "\(.target): \(.message)")' >&2
    exit 1
fi
ask "/v1/jobs/$job/bundle" -o "$bundle"
echo "$bundle"
