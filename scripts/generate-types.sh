#!/usr/bin/env bash
# Types of the messages in proto/, as @grpc/proto-loader decodes them: the options are those of src/cri/proto.ts.
set -euo pipefail
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.."

out=src/cri/generated
new=.cache/generated
mapfile -t protos < <(find proto -name '*.proto' -printf '%P\n' | sort)
rm -rf "$new"
node_modules/node/bin/node node_modules/.bin/proto-loader-gen-types \
  --includeDirs=proto --grpcLib=@grpc/grpc-js --keepCase --longs=String --enums=String --defaults --oneofs \
  --importFileExtension=.ts --outDir="$new" "${protos[@]}"
rm -rf "$out"
mv "$new" "$out"
