#!/usr/bin/env bash
# Types of the messages in proto/, as @grpc/proto-loader decodes them: the options are those of src/cri/.
set -euo pipefail
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.."

out=src/cri/generated
rm -rf "$out"
node_modules/node/bin/node node_modules/.bin/proto-loader-gen-types \
  --grpcLib=@grpc/grpc-js --keepCase --longs=String --enums=String --defaults --oneofs \
  --importFileExtension=.ts --outDir="$out" proto/*.proto
