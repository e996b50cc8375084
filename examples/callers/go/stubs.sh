#!/bin/sh
# Generates the stubs into stubs/. Needs protoc, and the plugins:
#   go install google.golang.org/protobuf/cmd/protoc-gen-go@latest
#   go install google.golang.org/grpc/cmd/protoc-gen-go-grpc@latest
set -eu
cd "$(dirname "$0")"
stubs=example.com/detect/stubs
names=
for name in detection types; do
    names="$names,Myolopool/v1/$name.proto=$stubs"
done
mkdir -p stubs
# One word a flag, on purpose.
# shellcheck disable=SC2086
protoc -I"${PROTOS:-../../../protos}" --go_out=stubs --go-grpc_out=stubs \
    --go_opt="module=$stubs$names" --go-grpc_opt="module=$stubs$names" \
    yolopool/v1/detection.proto yolopool/v1/types.proto
